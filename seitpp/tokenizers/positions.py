"""Fixed two-dimensional sine and cosine positions."""

import numpy as np
import torch


def sincos_positions(width, grid):
    """Position table of a grid, row by row.

    The first half of the channels encodes the column, the second the row; in each half sines come before cosines,
    with frequencies 10000^(-i / (width / 4)).

    Args:
        width: channels, a multiple of 4.
        grid: (rows, columns).
    Returns: (rows * columns, width) float32.
    Raises: ValueError if width is not a multiple of 4.
    Source: MAE (arXiv 2111.06377), after Vaswani et al. 2017; the published SeiT++ models use the same order.
    """
    if width % 4:
        raise ValueError(f"width must be a multiple of 4, got {width}")
    rows, columns = (coordinate.reshape(-1, 1) for coordinate in np.indices(grid).astype(np.float64))
    frequencies = 10000.0 ** (-np.arange(width // 4) / (width / 4))
    halves = [np.concatenate([np.sin(axis * frequencies), np.cos(axis * frequencies)], 1) for axis in (columns, rows)]
    return torch.from_numpy(np.concatenate(halves, axis=1)).to(torch.float32)
