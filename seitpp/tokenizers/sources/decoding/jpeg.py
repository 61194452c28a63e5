"""Pixels to the bytes of a JPEG."""

import io

import numpy as np
from einops import rearrange
from PIL import Image


def to_jpeg(pixels: np.ndarray, quality: int, *, optimize: bool = False) -> bytes:
    """Compress pixels.

    Args:
        pixels: (3, height, width) uint8.
        quality: 1 to 95.
        optimize: fit the Huffman tables to the image: fewer bytes, for a second pass over it.
    """
    file = io.BytesIO()
    Image.fromarray(rearrange(pixels, "c h w -> h w c")).save(file, "JPEG", quality=quality, optimize=optimize)
    return file.getvalue()
