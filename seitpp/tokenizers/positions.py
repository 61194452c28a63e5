"""Fixed two-dimensional sine and cosine positions."""

from collections.abc import Sequence

import numpy as np
import torch


def sincos_positions(width: int, grid: Sequence[int], *, spanning: Sequence[int] | None = None) -> torch.Tensor:
    """Position table of a grid, row by row.

    The first half of the channels encodes the column, the second the row; in each half sines come before cosines,
    with frequencies 10000^(-i / (width / 4)).

    Args:
        width: channels, a multiple of 4.
        grid: (rows, columns).
        spanning: (rows, columns) of the grid whose extent the places span, as when that grid's image is resized: they
            are then not whole numbers; None: `grid` itself.
    Returns: (rows * columns, width) float32; on torch's meta device, where models are only sketched, the shape alone.
    Raises: ValueError if width is not a multiple of 4.
    Source: MAE (arXiv 2111.06377), after Vaswani et al. 2017; the published SeiT++ models use the same order.
    """
    if width % 4:
        raise ValueError(f"width must be a multiple of 4, got {width}")
    if torch.get_default_device().type == "meta":
        return torch.empty(grid[0] * grid[1], width)
    rows, columns = (
        ((places.astype(np.float64) + 0.5) * (whole / side) - 0.5).reshape(-1, 1)
        for places, side, whole in zip(np.indices(grid), grid, spanning or grid, strict=True)
    )
    frequencies = 10000.0 ** (-np.arange(width // 4) / (width / 4))
    halves = [np.concatenate([np.sin(axis * frequencies), np.cos(axis * frequencies)], 1) for axis in (columns, rows)]
    return torch.from_numpy(np.concatenate(halves, axis=1)).to(torch.float32)
