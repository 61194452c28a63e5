"""Partners: the other sample of a batch that each sample takes something from (its statistics, or a part of it)."""

from typing import Literal

import torch

from seitpp.training.random_streams import Draws

Pairing = Literal["neighbour", "reversed", "random"]


def sample_partners(pairing: Pairing, draws: Draws, name: str) -> torch.Tensor:
    """Give every sample a partner, of which it is sure to be another one where the batch is even.

    "neighbour" pairs the places 2i and 2i + 1, so it does not depend on how a global batch is divided among processes,
    as long as each has an even number; the order of an epoch is random, and so are the pairs. The others pair within
    the batch they are given, so a run depends on the number of processes and the batch size of each: "reversed" pairs i
    with b - 1 - i, as published, and "random" draws for each step one circle through the batch, in which everyone's
    partner is the next: any other sample, all as likely.

    Args:
        pairing: "neighbour", "reversed" or "random".
        draws: the Draws of the batch, at positions that begin with an even one.
        name: of the draw, for "random".
    Returns: index of each sample's partner in this batch, (b,) int64; in an odd batch the last neighbour's and the
        middle one's reversed is its own.
    """
    own = torch.arange(len(draws), device=draws.device)
    if pairing == "neighbour":
        return (own ^ 1).clamp(max=len(own) - 1)
    if pairing == "reversed":
        return own.flip(0)
    circle = draws.uniform(name, 1)[:, 0].argsort(stable=True)
    return torch.empty_like(own).scatter(0, circle, circle.roll(-1))
