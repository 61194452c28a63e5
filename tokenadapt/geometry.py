"""Random geometry: one affine map a sample, and one `warp` that applies it to pixels, features or ids alike."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from seitpp.runtime.config import require
from seitpp.training.random_streams import Draws


@dataclass(frozen=True, kw_only=True)
class GeometryConfig:
    """How views are drawn. Defaults: the papers' (SeiT++, section 3.2 and the published recipe)."""

    flip: float = 0.5
    """probability of a horizontal flip"""
    affine: float = 0.5
    """probability of rotation, translation and shear together"""
    part: float = 0.5
    """probability of each of them (both axes of translation and shear by themselves) where they come at all"""
    rotation: float = 30.0
    """largest rotation to either side, degrees"""
    translation: float = 0.2
    """largest shift along either axis, fraction of the side"""
    shear: float = 15.0
    """largest shear along either axis, to both signs, degrees"""
    crop_scale: tuple[float, float] = (0.2, 1.0)
    """fraction of the area that a random resized crop keeps"""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """width to height of the crop"""

    def __post_init__(self):
        low, high = self.crop_scale
        require(self, "crop_scale", 0 < low <= high <= 1, "must be two increasing shares in (0, 1]")
        low, high = self.crop_ratio
        require(self, "crop_ratio", 0 < low <= high, "must be two increasing ratios above 0")
        for name in ("flip", "affine", "part"):
            require(self, name, 0 <= getattr(self, name) <= 1, "must be a probability")
        require(self, "rotation", 0 <= self.rotation <= 180, "must lie in [0, 180] degrees")
        require(self, "translation", 0 <= self.translation <= 1, "must lie in [0, 1]")
        require(self, "shear", 0 <= self.shear < 90, "must lie in [0, 90) degrees")


IDENTITY = GeometryConfig(flip=0.0, affine=0.0, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0))
"""No change at all."""


def sample_crop(config: GeometryConfig, draws: Draws, aspect: float = 1.0) -> torch.Tensor:
    """Draw random resized crops.

    Args:
        config: a GeometryConfig.
        draws: a Draws.
        aspect: width / height of the source.
    Returns: maps from output to source in normalised coordinates (x, y in [-1, 1]), (b, 3, 3).
    """
    area, ratio, place_x, place_y = draws.uniform("crop", 4).unbind(1)
    area = config.crop_scale[0] + (config.crop_scale[1] - config.crop_scale[0]) * area
    low, high = (math.log(bound) for bound in config.crop_ratio)
    ratio = torch.exp(low + (high - low) * ratio) / aspect
    if config.crop_scale == (1.0, 1.0):  # the whole area in its own shape, which no other ratio could keep
        ratio = torch.ones_like(ratio)
    width = (area * ratio).sqrt().clamp(max=1.0)  # shares of the source's sides
    height = (area / ratio).sqrt().clamp(max=1.0)
    left, top = (1.0 - width) * place_x, (1.0 - height) * place_y
    crop = torch.zeros(len(draws), 3, 3, device=draws.device)
    crop[:, 0, 0], crop[:, 1, 1], crop[:, 2, 2] = width, height, 1.0
    crop[:, 0, 2], crop[:, 1, 2] = 2.0 * left + width - 1.0, 2.0 * top + height - 1.0
    return crop


def sample_geometry(config: GeometryConfig, draws: Draws, aspect: float = 1.0) -> torch.Tensor:
    """Draw flip, rotation, translation, shear and crop, for each sample its own.

    Args: as for sample_crop.
    Returns: maps from output to source in normalised coordinates, (b, 3, 3): flip after affine after crop.
    """
    parts = draws.uniform("affine", 11)
    on = (parts[:, :1] < config.affine) & (parts[:, 1:6] < config.part)
    signed = torch.where(on, 2.0 * parts[:, 6:11] - 1.0, torch.zeros_like(parts[:, 6:11]))
    angle = signed[:, 0] * math.radians(config.rotation)
    shift_x, shift_y = (2.0 * config.translation * signed[:, 1:3]).unbind(1)
    shear_x, shear_y = torch.tan(signed[:, 3:5] * math.radians(config.shear)).unbind(1)
    one, cos, sin = torch.ones_like(angle), torch.cos(angle), torch.sin(angle)
    # Rotation and shear act on lengths, so x is measured in units of the height: multiply by `aspect`, then divide.
    rotation = _matrix([[cos, -sin / aspect], [sin * aspect, cos]])
    shear = _matrix([[one, shear_x / aspect], [shear_y * aspect, one + shear_x * shear_y]])
    affine = rotation @ shear
    affine[:, 0, 2], affine[:, 1, 2] = shift_x, shift_y
    flip = torch.eye(3, device=draws.device).repeat(len(draws), 1, 1)
    flip[:, 0, 0] = torch.where(draws.uniform("flip", 1)[:, 0] < config.flip, -1.0, 1.0)
    return flip @ affine @ sample_crop(config, draws, aspect)


def warp(maps: torch.Tensor, geometry: torch.Tensor, size: Sequence[int], *, mode: str = "bilinear") -> torch.Tensor:
    """Resample maps by an affine geometry; outside the source the nearest border value is taken.

    Places are computed in float32 at least, also under autocast: bf16 moves them by up to an eighth of a token (of 28).

    Args:
        maps: (b, c, h, w), float: pixels, embeddings or features.
        geometry: (b, 3, 3) from output to source in normalised coordinates, the same for every size of map.
        size: (height, width) of the result.
        mode: "bilinear", "bicubic" or "nearest".
    Returns: (b, c, *size), dtype of `maps`.
    """
    dtype = torch.promote_types(maps.dtype, torch.float32)
    with torch.autocast(maps.device.type, enabled=False):
        grid = F.affine_grid(geometry[:, :2].to(dtype), [maps.shape[0], maps.shape[1], *size], align_corners=False)
        warped = F.grid_sample(maps.to(dtype), grid, mode=mode, padding_mode="border", align_corners=False)
    return warped.to(maps.dtype)


def around_view(geometry: torch.Tensor, grid: Sequence[int], view: Sequence[int]) -> torch.Tensor:
    """Geometries that show on a whole grid, at its centre, what others show on a view.

    Args:
        geometry: (b, 3, 3) from a view to the source in normalised coordinates.
        grid: (h, w) tokens.
        view: (h', w') tokens, at most as many.
    Returns: (b, 3, 3) from the whole grid to the source.
    """
    columns = list(geometry.unbind(2))
    last = columns[2]
    for column, whole, part in zip((1, 0), grid, view, strict=True):  # rows lie along y, the second coordinate
        before = (whole - part) // 2  # as seitpp.tokens.views.centre cuts
        last = last + columns[column] * ((whole - 2 * before) / part - 1)
        columns[column] = columns[column] * (whole / part)
    return torch.stack([columns[0], columns[1], last], dim=2)


def _matrix(rows):
    """(b, 3, 3) from the 2 x 2 upper left part."""
    upper = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    matrix = torch.eye(3, device=upper.device, dtype=upper.dtype).repeat(len(upper), 1, 1)
    matrix[:, :2, :2] = upper
    return matrix
