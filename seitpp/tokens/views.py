"""Views: the part at the centre of a stored grid that a model sees, in tokens and in pixels."""

from collections.abc import Sequence

import torch


def centre(maps: torch.Tensor, view: Sequence[int]) -> torch.Tensor:
    """The central part of the last two axes: (…, h, w) to (…, h', w')."""
    top, left = ((maps.shape[axis] - side) // 2 for axis, side in zip((-2, -1), view, strict=True))
    return maps[..., top : top + view[0], left : left + view[1]]


def centre_pixels(images: torch.Tensor, grid: Sequence[int], view: Sequence[int]) -> torch.Tensor:
    """What the central tokens show: (b, c, H, W) of a grid of (h, w) tokens to that of a view of (h', w')."""
    spans = []
    for pixels, whole, part in zip(images.shape[-2:], grid, view, strict=True):
        before, side = (whole - part) // 2, pixels // whole  # as `centre` cuts tokens
        spans.append(slice(before * side, (before + part) * side))
    return images[..., spans[0], spans[1]]


def put(ids: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    """Put a view back into its grids: (n, h, w) and (n, h', w') to (n, h, w)."""
    whole = ids.clone()
    centre(whole, part.shape[1:])[:] = part
    return whole
