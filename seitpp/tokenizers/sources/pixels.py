"""One image file of any kind to RGB pixels of one size. Needs no torch."""

import ctypes
import errno
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from einops import rearrange
from PIL import Image, UnidentifiedImageError

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.decoding.formats import readable_formats
from seitpp.tokenizers.sources.decoding.resize import Resize, resized
from seitpp.tokenizers.sources.decoding.rgb import to_rgb

_NOT_THE_IMAGE = frozenset(
    {errno.EIO, errno.ENXIO, errno.ENODEV, errno.EINTR, errno.EAGAIN, errno.EBUSY, errno.ENOMEM, errno.ENFILE,
     errno.EMFILE, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ECONNRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH,
     errno.EPERM}
)  # fmt: skip
"""What the disk or the machine does to a read, and may not do the next time. All else is a fault of the file."""


class BrokenImage(Exception):
    """An image that can't be read. Its text is the reason in one line, without the image's name."""


def read_image(
    file: str | Path | BinaryIO, size: tuple[int, int], resize: Resize = "crop", *, reduced: bool = False
) -> np.ndarray:
    """Decode an image: its first frame, upright, RGB (transparency on white), of the size asked for.

    Args:
        file: path or binary file, of one of FORMATS whatever its name ends in.
        size: (height, width) of the result.
        resize: what is done where the image is of another shape.
        reduced: decode a large JPEG at a fraction of its size, at least twice `size`: faster, but other pixels.
    Returns: (3, height, width) uint8 array.
    Raises: BrokenImage where it can't be decoded, or is so large that it may be an attack; OSError where reading it
        failed, which may work the next time.
    """
    with image_faults(), open_image(file) as image:
        if reduced:
            image.draft("RGB", (2 * size[1], 2 * size[0]))
        return to_pixels(image, size, resize)


def open_image(file: str | Path | BinaryIO) -> Image.Image:
    """Read an image's header; the formats that are tried start no program and open no other file.

    Raises: BrokenImage, OSError, as `read_image`.
    """
    with image_faults():
        try:
            return Image.open(file, formats=readable_formats())
        except UnidentifiedImageError as error:  # its message holds a path or an address in memory
            raise BrokenImage("it is no image of a format that is read") from error


def to_pixels(image: Image.Image, size: tuple[int, int], resize: Resize = "crop") -> np.ndarray:
    """The rules of `read_image` for an image that Pillow has opened."""
    with image_faults():
        return rearrange(np.asarray(resized(to_rgb(image), size, resize)), "h w c -> c h w")


@contextmanager
def image_faults() -> Iterator[None]:
    """Make BrokenImage of whatever a decoder raises: each of a dozen libraries has its own ways.

    What the disk does, too little memory and what was said already (UserError) stay as they are.
    """
    try:
        yield
    except (BrokenImage, UserError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _NOT_THE_IMAGE:
            raise
        words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise BrokenImage(" ".join(str(words).split())[:300] or type(error).__name__) from error


@contextmanager
def quiet_decoding() -> Iterator[None]:
    """Keep what Pillow and libtiff say (large images, odd metadata) from the user, who can do nothing about it.

    Filters belong to the process: enter it in the main thread, around all that decodes, and seldom, as each time Python
    forgets which other warnings it has shown already. It is a decorator too.
    """
    log = logging.getLogger("PIL")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    handler = _set_libtiff_handler(None)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
    finally:
        _set_libtiff_handler(handler)
        log.setLevel(level)


def _set_libtiff_handler(handler: int | None) -> int | None:
    """Choose who gets libtiff's errors, None: nobody; by default it prints them, past Python. Returns who got them."""
    try:  # a symbol is looked for in a library and in those that it is linked to
        set_handler = ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler
    except (OSError, AttributeError):  # a Pillow without libtiff, or with all in one file
        return None
    set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
    return set_handler(handler)
