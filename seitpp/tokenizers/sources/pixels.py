"""One image file of any kind to RGB pixels of one size. Needs no torch."""

import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from einops import rearrange
from PIL import Image, ImageOps, UnidentifiedImageError

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})
DECODING_ERRORS = (
    OSError, ValueError, SyntaxError, LookupError, ArithmeticError, TypeError, AttributeError, AssertionError, EOFError,
    NotImplementedError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow's readers raise where a file is broken; each format has its own ways."""
LONGEST = 32
"""Images this many times longer than wide are cut to their middle before they are resized."""


def read_image(file: str | Path | BinaryIO, size: Sequence[int], *, reduced: bool = False) -> np.ndarray:
    """Decode an image: its first frame, upright, RGB (transparency on white), short side to `size`, centre crop.

    Args:
        file: path or binary file, of any format that Pillow reads.
        size: (height, width) of the result.
        reduced: decode a large JPEG at a fraction of its size, at least twice `size`: faster, but other pixels.
    Returns: (3, height, width) uint8 array.
    Raises: what Pillow raises where the file is broken, or so large that it may be an attack: DECODING_ERRORS.
    """
    try:
        image = Image.open(file)
    except UnidentifiedImageError as error:  # its message holds a path or an address in memory
        raise UnidentifiedImageError("it is no image of a format that Pillow reads") from error
    with image:
        if reduced:
            image.draft("RGB", (2 * size[1], 2 * size[0]))
        return to_pixels(image, size)


def to_pixels(image: Image.Image, size: Sequence[int]) -> np.ndarray:
    """The rules of `read_image` for an image that Pillow has opened."""
    image = _middle(_on_white(_upright(image)), size)
    height, width = size
    scale = max(height / image.height, width / image.width)
    resized = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    if resized != image.size:
        image = image.resize(resized, Image.Resampling.BICUBIC)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    pixels = np.asarray(image.crop((left, top, left + width, top + height)))
    return rearrange(pixels, "h w c -> c h w")


def _upright(image):
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except DECODING_ERRORS:  # the pixels are whole, what the camera noted beside them is not
        return image


def _middle(image, size):
    """Cut an extremely long image to its middle: resized as a whole, 1 x 50,000 pixels would take gigabytes."""
    longest = LONGEST * min(image.size) * max(size) // min(size)
    width, height = (min(side, longest) for side in image.size)
    if (width, height) == image.size:
        return image
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _on_white(image):
    if image.mode in ("P", "L", "RGB") and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode in ("RGBA", "LA", "PA"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):  # 16-bit greys: Pillow's own conversion would clip them
        image = Image.fromarray((np.asarray(image).astype(np.float32) / 257.0).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


@contextmanager
def quiet_decoding() -> Iterator[None]:
    """Keep Pillow's warnings (large images, odd metadata) from the user, who can do nothing about them.

    Warning filters belong to the process: enter it in the main thread, around the threads that decode, and seldom, as
    each time Python forgets which other warnings it has shown already.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield
