"""Images side by side as one PNG."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from seitpp.runtime.files import replacing
from seitpp.runtime.ownership import begins_with

_MARK = ("Software", "seitpp")


def image_grid(rows: Sequence[torch.Tensor], path: str | Path, *, gap: int = 2) -> None:
    """Write rows of images as one PNG.

    Args:
        rows: list of (n, 3, h, w) tensors in [0, 1], one row each, the same n, h and w.
        path: the PNG; in its text it says that it is ours.
        gap: white pixels between images.
    """
    mark = PngInfo()
    mark.add_text(*_MARK)
    with replacing(Path(path)) as temporary:
        Image.fromarray(grid_pixels(rows, gap=gap)).save(temporary, format="PNG", pnginfo=mark)


def grid_pixels(rows: Sequence[torch.Tensor], *, gap: int = 2) -> np.ndarray:
    """Rows of images as the pixels of one: (height, width, 3) uint8. Arguments as of `image_grid`."""
    cells = torch.stack([row.detach().float().cpu().clamp(0, 1) for row in rows])
    cells = torch.nn.functional.pad(cells, (0, gap, 0, gap), value=1.0)
    pixels = rearrange(cells, "row n c h w -> (row h) (n w) c")[: -gap or None, : -gap or None]
    return (pixels.numpy() * 255.0).round().astype(np.uint8)


def is_image_grid(path: Path) -> bool:
    """Whether a file is a PNG that `image_grid` wrote."""
    return begins_with(path, b"tEXt" + "\0".join(_MARK).encode(), within=256)
