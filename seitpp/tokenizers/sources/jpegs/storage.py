"""How images are kept as JPEGs: of which quality and size, and which of both fit a number of bytes.

    jpeg75            quality 75, at the size that a tokenizer takes: as many images as fit
    jpeg75_side32     the same, scaled down before so that the shorter side has 32 pixels
    jpeg_fit          all images, at the highest quality of QUALITIES that fits
    jpeg75_side_fit   all images at quality 75, at the largest side that fits

Where all images fit at no quality or side, it is the smallest, and as many as fit.
"""

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.decoding.jpeg import to_jpeg
from seitpp.tokenizers.sources.decoding.resize import Resize
from seitpp.tokenizers.sources.pixels import BrokenImage, quiet_decoding
from seitpp.tokenizers.sources.source import ImageSource

QUALITIES = (95, 90, 85, 75, 65, 55, 45, 35, 25, 15, 10, 5, 1)
"""That jpeg_fit tries."""
EIGHTHS = (8, 7, 6, 5, 4, 3, 2, 1)
"""Eighths of the side that jpeg…_side_fit tries."""
SAMPLE = 2048
"""Images that quality or side are chosen on, from the first of the order on."""
_NAME = re.compile(r"jpeg(?P<quality>\d{1,2})?(?:_side(?P<side>\d{1,4})|(?P<fit>_fit|_side_fit))?")
_OFFSET, _LABEL = 4, 4
"""Bytes of the offset of a text or JPEG, and of a label, in a file of them: int32."""


@dataclass(frozen=True, kw_only=True)
class JpegForm:
    """One way to keep an image.

    Attributes:
        quality: of the JPEG, 1 to 95.
        side: pixels of the shorter side; None: as the images are read.
    """

    quality: int
    side: int | None = None

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) in which images of `size` are kept."""
        if self.side is None or self.side >= min(size):
            return size
        height, width = (max(1, round(each * self.side / min(size))) for each in size)
        return height, width


def forms_of(storage: str, size: tuple[int, int]) -> list[JpegForm]:
    """The forms that a storage may take, the best first: one, or those of which one is chosen by its bytes.

    Args:
        storage: as above.
        size: (height, width) in which images are read.
    Raises: UserError if it is none of these.
    """
    match = _NAME.fullmatch(storage)
    if match is None or (match["quality"] is None) != (match["fit"] == "_fit"):
        raise UserError(
            f"{storage!r} is no way to store images: expected jpeg75, jpeg75_side32, jpeg_fit or jpeg75_side_fit"
        )
    if match["fit"] == "_fit":
        return [JpegForm(quality=quality) for quality in QUALITIES]
    quality, side = int(match["quality"]), match["side"]
    if not 1 <= quality <= 95 or side == "0":
        raise UserError(f"{storage!r}: a JPEG's quality lies in 1 to 95, and its side has pixels")
    if match["fit"]:
        sides = dict.fromkeys(max(1, min(size) * part // 8) for part in EIGHTHS)
        return [JpegForm(quality=quality, side=side) for side in sides]
    return [JpegForm(quality=quality, side=None if side is None else int(side))]


def row_bytes(jpeg: bytes, key: str) -> dict[str, int]:
    """Bytes that an image takes among others: {"jpeg", "label", "key"}, counted as in token stores."""
    return {"jpeg": _OFFSET + len(jpeg), "label": _LABEL, "key": _OFFSET + len(key.encode())}


@dataclass(frozen=True)
class Encoder:
    """Images as JPEGs of one form; many threads may use it.

    Attributes:
        images: an ImageSource.
        size: (height, width) in which they are read.
        resize: what is done with images of another shape.
    """

    images: ImageSource
    size: tuple[int, int]
    resize: Resize = "crop"

    def encode(self, row: int, form: JpegForm) -> bytes:
        """One image.

        Raises: UserError that names it where it can't be decoded.
        """
        try:
            pixels = self.images.read(row, form.size(self.size), self.resize)
        except BrokenImage as error:
            raise UserError(f"{self.images.where(row)} can't be decoded ({error}): mend it or remove it") from error
        return to_jpeg(pixels, form.quality, optimize=True)


def choose_form(storage: str, encoder: Encoder, ranked: np.ndarray, budget: int | None) -> JpegForm:
    """The form of a storage: the best at which all images fit, by the mean of a sample of them.

    Args:
        storage: see above.
        encoder: makes the JPEGs.
        ranked: rows of its images in the order in which they are taken, (n,) int64.
        budget: bytes for all of them; None: without a limit.
    """
    forms = forms_of(storage, encoder.size)
    if budget is None or len(forms) == 1:
        return forms[0]
    sample = ranked[:SAMPLE].tolist()
    keys = [encoder.images.keys[row] for row in sample]

    def fits(form: JpegForm) -> bool:
        with quiet_decoding(), ThreadPoolExecutor(max_workers=4) as threads:
            jpegs = threads.map(encoder.encode, sample, [form] * len(sample))
            total = sum(sum(row_bytes(jpeg, key).values()) for jpeg, key in zip(jpegs, keys, strict=True))
        return total * len(ranked) <= budget * len(sample)

    return _first_that_fits(forms, fits)


def _first_that_fits(forms: Sequence[JpegForm], fits: Callable[[JpegForm], bool]) -> JpegForm:
    """By halves, as each form takes fewer bytes than the one before it; the last where none fits."""
    low, high = 0, len(forms) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(forms[middle]) else (middle + 1, high)
    return forms[low]
