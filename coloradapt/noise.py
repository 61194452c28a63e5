"""Emb-Noise: normal noise on embeddings, one part per channel and one per element."""

import torch


def add_noise(
    embeddings: torch.Tensor,
    chosen: torch.Tensor,
    channel_noise: torch.Tensor,
    element_noise: torch.Tensor,
    *,
    channel_scale: float | torch.Tensor = 1.0,
    element_scale: float | torch.Tensor = 1.0,
) -> torch.Tensor:
    """Add noise to the chosen samples.

    Args:
        embeddings: (b, c, h, w), float.
        chosen: which samples change, (b,) bool.
        channel_noise: standard normal, (b, c, 1, 1).
        element_noise: standard normal, (b, c, h, w).
        channel_scale: std of the part that a whole channel shares.
        element_scale: std of the part of each element.
    Returns: new tensor, shape and dtype of `embeddings`.
    Source: SeiT (arXiv 2303.11114), Emb-Noise.
    """
    noise = (channel_noise * channel_scale + element_noise * element_scale).to(embeddings.dtype)
    return torch.where(chosen[:, None, None, None], embeddings + noise, embeddings)
