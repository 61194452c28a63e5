"""ColorAdapt: a token map takes the channel statistics of another image's map."""

import torch


def color_adapt(embeddings: torch.Tensor, partners: torch.Tensor, *, eps: float = 1e-6) -> torch.Tensor:
    """Give each map the channel mean and standard deviation of its partner.

    Args:
        embeddings: (b, c, h, w), float.
        partners: index of each sample's partner, (b,) int64; its own index leaves a sample as it is.
        eps: least std to divide by; a constant channel becomes the partner's mean.
    Returns: new tensor, shape and dtype of `embeddings`.
    Source: SeiT++ (arXiv 2312.10105), section 3.3, after AdaIN (arXiv 1703.06868), eq. 8; unbiased stds. (The
        published code draws once a step whether the batch is recoloured, then recolours half of it, in place; here each
        sample is drawn for itself.)
    """
    mean = embeddings.mean(dim=(2, 3), keepdim=True)
    std = embeddings.std(dim=(2, 3), keepdim=True)
    adapted = (embeddings - mean) / std.clamp_min(eps) * std[partners] + mean[partners]
    unchanged = partners == torch.arange(len(partners), device=partners.device)
    return torch.where(unchanged[:, None, None, None], embeddings, adapted)
