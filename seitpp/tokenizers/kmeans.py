"""Weighted k-means, to start a codebook."""

import torch


def kmeans(
    points: torch.Tensor, weights: torch.Tensor, centres: int, *, seed: int, iterations: int = 10
) -> torch.Tensor:
    """Lloyd's algorithm, started by k-means++ (Arthur and Vassilvitskii 2007).

    Args:
        points: (n, c), n >= 1.
        weights: how much each point counts, (n,), not negative.
        centres: how many to find.
        seed: of the start.
        iterations: rounds of assignment and mean; an empty centre stays where it is.
    Returns: (centres, c).
    """
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(centres, generator=generator).to(points.device)
    found = points[:1].repeat(centres, 1)
    distance = torch.full((len(points),), float("inf"), device=points.device)
    for index in range(centres):
        chances = weights * distance if index else weights
        found[index] = points[weighted_choice(chances, uniform[index : index + 1])[0]]
        distance = torch.minimum(distance, (points - found[index]).square().sum(dim=1))
    for _ in range(iterations):
        assigned = torch.cdist(points, found).argmin(dim=1)
        sums = torch.zeros_like(found).index_add_(0, assigned, points * weights[:, None])
        counts = torch.bincount(assigned, weights, minlength=centres)
        found = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp_min(1e-12), found)
    return found


def weighted_choice(weights: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Indices drawn in proportion to weights, by inverting their distribution.

    Args:
        weights: (n,), not negative; where all are zero every index is as likely.
        uniform: (m,) in [0, 1).
    Returns: (m,) int64.
    """
    sums = torch.where(weights.sum() > 0, weights, torch.ones_like(weights)).double().cumsum(0)
    return torch.searchsorted(sums, uniform.double() * sums[-1], right=True).clamp(max=len(weights) - 1)
