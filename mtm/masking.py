"""Masks of a step as pure functions: one ratio for all, equal counts in every sample, dropped ones among the masked."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from seitpp.runtime.config import require
from seitpp.training.random_streams import Draws


def patch_count(ratio: float, patches: int) -> int:
    """How many patches a ratio is: rounded up, here and everywhere."""
    return math.ceil(ratio * patches)


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """Mask ratio: a normal truncated to [min, max], one draw a step. Defaults: the papers' (after MAGE)."""

    mask_ratio_min: float = 0.4
    """least ratio; this fraction of the patches is dropped: never encoded"""
    mask_ratio_max: float = 1.0
    """largest ratio"""
    mask_ratio_mean: float = 0.45
    """mean before truncation"""
    mask_ratio_std: float = 0.25
    """standard deviation before truncation"""

    def __post_init__(self):
        require(self, "mask_ratio_max", 0 < self.mask_ratio_max <= 1, "must lie in (0, 1]")
        fits = 0 <= self.mask_ratio_min <= self.mask_ratio_max
        require(self, "mask_ratio_min", fits, f"must lie in [0, mask_ratio_max = {self.mask_ratio_max}]")
        require(self, "mask_ratio_std", self.mask_ratio_std > 0, "must be above 0")

    def counts(self, ratio: float, patches: int) -> tuple[int, int]:
        """(Masked, dropped) of so many patches at a mask ratio, not less than `mask_ratio_min`."""
        return patch_count(ratio, patches), patch_count(self.mask_ratio_min, patches)


@dataclass(frozen=True)
class Masks:
    """Which patches the model must predict, and which of them it never sees.

    Attributes:
        masked: (b, n) bool, True = hidden; `masked_count` in every row.
        dropped: (b, n) bool, a subset of `masked`; `dropped_count` in every row.
    """

    masked: Tensor
    dropped: Tensor
    masked_count: int
    dropped_count: int


def sample_mask_ratio(config: MaskConfig, uniform: float) -> float:
    """The ratio of a step by inverting the truncated normal's distribution.

    Args:
        config: a MaskConfig.
        uniform: a number in [0, 1).
    Returns: ratio in [mask_ratio_min, mask_ratio_max].
    """
    normal = NormalDist(config.mask_ratio_mean, config.mask_ratio_std)
    low, high = normal.cdf(config.mask_ratio_min), normal.cdf(config.mask_ratio_max)
    probability = min(max(low + (high - low) * uniform, 1e-12), 1.0 - 1e-12)
    return min(max(normal.inv_cdf(probability), config.mask_ratio_min), config.mask_ratio_max)


def make_masks(noise: Tensor, *, masked_count: int, dropped_count: int) -> Masks:
    """Hide the patches of least noise; ties go by place, so the counts are always exact.

    Args:
        noise: (b, n), any float.
        masked_count: patches to hide in each row.
        dropped_count: patches of those to drop.
    Raises: ValueError unless 0 <= dropped_count <= masked_count <= n.
    """
    patches = noise.shape[1]
    if not 0 <= dropped_count <= masked_count <= patches:
        raise ValueError(f"need 0 <= dropped {dropped_count} <= masked {masked_count} <= {patches} patches")
    rank = noise.argsort(dim=1, stable=True).argsort(dim=1)
    return Masks(rank < masked_count, rank < dropped_count, masked_count, dropped_count)


def sample_masks(config: MaskConfig, draws: Draws, patches: int) -> Masks:
    """Masks of a step for a batch: the ratio by (seed, step) alone, the places by sample.

    Args:
        config: a MaskConfig.
        draws: a Draws.
        patches: n.
    """
    ratio = sample_mask_ratio(config, draws.per_step("mask ratio"))
    masked, dropped = config.counts(ratio, patches)
    return make_masks(draws.uniform("mask", patches), masked_count=masked, dropped_count=dropped)


def places(mask: Tensor, count: int) -> Tensor:
    """Indices of the True places of each row in order, without asking the device how many there are.

    Args:
        mask: (b, n) bool with `count` True in each row.
        count: that number.
    Returns: (b, count) int64.
    """
    return (~mask).to(torch.uint8).argsort(dim=1, stable=True)[:, :count]
