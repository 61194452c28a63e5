"""ColorAdapt: a token map takes the channel statistics of another image's map."""

import torch


def sample_partners(positions, probability, uniform):
    """Draw which samples exchange their statistics, and with whom.

    Samples at the global positions 2i and 2i + 1 are partners, so the result does not depend on how a batch is
    divided among processes; the order of an epoch is random, and so are the pairs. (The published code pairs
    sample i with B - 1 - i.)

    Args:
        positions: place of each sample in the global batch, (b,) int64, consecutive from an even one.
        probability: of each sample to change.
        uniform: (b,) draws in [0, 1).
    Returns: index of each sample's partner in this batch, (b,) int64; its own where it does not change.
    """
    own = torch.arange(len(positions), device=positions.device)
    neighbour = (own ^ 1).clamp(max=len(own) - 1)  # the last one of an odd batch has none
    return torch.where(uniform < probability, neighbour, own)


def color_adapt(embeddings, partners, *, eps=1e-6):
    """Give each map the channel mean and deviation of its partner.

    Args:
        embeddings: (b, c, h, w), float.
        partners: index of each sample's partner, (b,) int64; its own index leaves a sample as it is.
        eps: least deviation to divide by; a constant channel becomes the partner's mean.
    Returns: new tensor, shape and dtype of `embeddings`.
    Source: SeiT++ (arXiv 2312.10105), section 3.3, after AdaIN (arXiv 1703.06868), eq. 8; unbiased deviations.
    """
    mean = embeddings.mean(dim=(2, 3), keepdim=True)
    deviation = embeddings.std(dim=(2, 3), keepdim=True)
    adapted = (embeddings - mean) / deviation.clamp_min(eps) * deviation[partners] + mean[partners]
    unchanged = partners == torch.arange(len(partners), device=partners.device)
    return torch.where(unchanged[:, None, None, None], embeddings, adapted)
