"""Windows to ids and back by a tokenizer of another size: in tiles of its own size, or whole where it takes any."""

from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange

from seitpp.runtime.errors import UserError


@dataclass(frozen=True)
class Tiling:
    """How a tokenizer encodes windows.

    Attributes:
        tokenizer: a Tokenizer.
        window: (height, width) of a window, pixels.
        tile: (height, width) that it encodes at a time, pixels; the window where it takes that whole.
        grid: (h, w) tokens of a window.
    """

    tokenizer: Any
    window: tuple[int, int]
    tile: tuple[int, int]
    grid: tuple[int, int]

    @property
    def tiles(self) -> tuple[int, int]:
        """Tiles of a window, down and across."""
        return self.window[0] // self.tile[0], self.window[1] // self.tile[1]

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Windows (n, 3, H, W) in [0, 1] to ids (n, h, w) int64; tiles see nothing of each other."""
        down, across = self.tiles
        tiles = rearrange(pixels, "n c (y p) (x q) -> (n y x) c p q", y=down, x=across)
        return rearrange(self.tokenizer.encode(tiles), "(n y x) h w -> n (y h) (x w)", y=down, x=across)

    def decode(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids (n, h, w) of windows to their pixels (n, 3, H, W) in [0, 1]."""
        down, across = self.tiles
        tiles = rearrange(ids, "n (y h) (x w) -> (n y x) h w", y=down, x=across)
        return rearrange(self.tokenizer.decode(tiles), "(n y x) c p q -> n c (y p) (x q)", y=down, x=across)


def tiling_of(tokenizer: Any, window: tuple[int, int], *, tiles: bool | None = None) -> Tiling:
    """How a tokenizer encodes windows of a size.

    Args:
        tokenizer: a Tokenizer.
        window: (height, width), pixels.
        tiles: encode in tiles of its own image size; None: where it takes no other.
    Raises: UserError if windows of this size are not made of whole tiles or tokens, or it takes no other size.
    """
    size, grid, takes_any = tuple(tokenizer.image_size), tuple(tokenizer.grid), getattr(tokenizer, "any_size", False)
    token = size[0] // grid[0], size[1] // grid[1]
    if tiles is False and not takes_any:
        raise UserError(f"the tokenizer takes images of {size[0]} x {size[1]} pixels alone: leave out --tiles")
    tiled = not takes_any if tiles is None else tiles
    unit, what = (size, "the tokenizer's own size") if tiled else (token, "pixels of a token")
    if window[0] % unit[0] or window[1] % unit[1]:
        raise UserError(
            f"windows of {window[0]} x {window[1]} pixels are no multiple of {unit[0]} x {unit[1]}, {what}: change "
            f"--window"
        )
    return Tiling(tokenizer, window, size if tiled else window, (window[0] // token[0], window[1] // token[1]))


def tiling_of_store(tokenizer: Any, manifest: dict[str, Any]) -> Tiling:
    """How the windows of a segmentation store were encoded, to decode them or to encode new images alike.

    Args:
        tokenizer: the Tokenizer of the store.
        manifest: of the store.
    """
    window, tile = (tuple(manifest["windows"][name]) for name in ("size", "tile"))
    own = tile == tuple(tokenizer.image_size)
    if not own and tile != window:
        raise UserError(f"the store was encoded in tiles of {tile} pixels, the tokenizer takes {tokenizer.image_size}")
    return tiling_of(tokenizer, window, tiles=own)
