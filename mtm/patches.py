"""The patch grid: cut maps of tokens into patches, put them together again, carry learned positions to another grid.

Shapes: b batch, h w token grid, n patches of p q tokens, d width.
"""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def patchify(maps: Tensor, patch_size: int) -> Tensor:
    """Cut maps into patches.

    Args:
        maps: (b, h, w), any type; h and w are multiples of the patch size.
        patch_size: tokens a side of a patch.
    Returns: (b, n, p * q): patches row by row, in each its tokens row by row.
    """
    return rearrange(maps, "b (h p) (w q) -> b (h w) (p q)", p=patch_size, q=patch_size)


def unpatchify(patches: Tensor, patch_grid: tuple[int, int], patch_size: int) -> Tensor:
    """Put patches together: the inverse of `patchify`.

    Args:
        patches: (b, n, p * q).
        patch_grid: (rows, columns) of patches.
        patch_size: tokens a side of a patch.
    Returns: (b, h, w).
    """
    rows, columns = patch_grid
    return rearrange(patches, "b (h w) (p q) -> b (h p) (w q)", h=rows, w=columns, p=patch_size, q=patch_size)


def interpolate_positions(table: Tensor, from_grid: tuple[int, int], to_grid: tuple[int, int]) -> Tensor:
    """A learned position table on another grid: bicubic, and smoothed where the new grid is coarser.

    Args:
        table: (n, d), row by row.
        from_grid: (rows, columns) of patches of the table.
        to_grid: (rows, columns) that are wanted.
    Returns: (n', d) in the type of the table; the table itself where the grids are the same.
    Raises: ValueError if the table is not of `from_grid`.
    Source: after timm's `resample_abs_pos_embed`, without prefix tokens.
    """
    rows, columns = from_grid
    if table.shape[0] != rows * columns:
        raise ValueError(f"a table of {rows} x {columns} patches has {rows * columns} rows, got {table.shape[0]}")
    if tuple(to_grid) == tuple(from_grid):
        return table
    maps = rearrange(table.float(), "(h w) d -> 1 d h w", h=rows)
    maps = F.interpolate(maps, size=tuple(to_grid), mode="bicubic", align_corners=False, antialias=True)
    return rearrange(maps, "1 d h w -> (h w) d").to(table.dtype)
