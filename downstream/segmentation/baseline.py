"""A baseline without any context: each token is of the class that most pixels under tokens of its id are of.

Of more than 65,536 codes the upper bits of an id count as it, the last of the numbers that it is split into.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from seitpp.downstream.segmentation.windows import SegmentationRows
from seitpp.tokens.code_factors import factors_of


def token_majority(rows: SegmentationRows, *, block: int = 64) -> Tensor:
    """The class of each code, by the pixels of a store; the commonest class for codes that never occur.

    Args:
        rows: SegmentationRows to learn from.
        block: windows in memory at a time.
    Returns: (codes,) int64; of more than 65,536 codes, (values of the last number,).
    """
    factors, classes = factors_of(rows.store.codebook_size), len(rows.classes)
    codes = factors.sizes[-1]
    counts = np.zeros(codes * (classes + 1), np.int64)
    height, width = rows.store.grid
    for start in range(0, len(rows), block):
        which = np.arange(start, min(start + block, len(rows)))
        masks = np.minimum(rows.masks(which).numpy(), classes).astype(
            np.int64
        )  # IGNORE, the largest value, is the last
        pixels = rearrange(masks, "b (h p) (w q) -> b h w (p q)", h=height, w=width)
        pairs = factors.of(rows.store.ids(which))[-1].numpy()[..., None] * (classes + 1) + pixels
        counts += np.bincount(pairs.reshape(-1), minlength=len(counts))
    table = counts.reshape(codes, classes + 1)[:, :classes]
    majority = table.argmax(axis=1)
    majority[table.sum(axis=1) == 0] = table.sum(axis=0).argmax()
    return torch.from_numpy(majority)


def majority_logits(majority: Tensor, rows: SegmentationRows) -> Callable[[np.ndarray], Tensor]:
    """What the baseline answers to windows of a store: one class a token, with hard edges.

    Args:
        majority: from `token_majority`.
        rows: SegmentationRows to answer for.
    """
    classes, factors = len(rows.classes), factors_of(rows.store.codebook_size)

    def logits_at(which: np.ndarray) -> Tensor:
        labels = majority[factors.of(rows.store.ids(which))[-1]]
        p, q = (side // tokens for side, tokens in zip(rows.size, rows.store.grid, strict=True))
        pixels = labels.repeat_interleave(p, dim=1).repeat_interleave(q, dim=2)
        return rearrange(F.one_hot(pixels, classes).float(), "b h w k -> b k h w")

    return logits_at
