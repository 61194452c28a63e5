"""Windows of one size that cover an image of any size: what it is resized to, where they lie, what is in them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from seitpp.runtime.config import require


@dataclass(frozen=True, kw_only=True)
class Windowing:
    """How images become windows.

    Attributes:
        size: (height, width) of a window, pixels.
        stride: (down, across) from one window to the next, pixels; the last is moved inside, to end at the edge.
        short_side: what the short side of an image is resized to, pixels; None: images keep their size.
    """

    size: tuple[int, int] = (512, 512)
    stride: tuple[int, int] = (512, 512)
    short_side: int | None = 512

    def __post_init__(self) -> None:
        require(self, "size", min(self.size) >= 1, "must be at least 1 pixel")
        fits = all(1 <= step <= side for step, side in zip(self.stride, self.size, strict=True))
        require(self, "stride", fits, f"must lie between 1 and the window's size {self.size}, or windows leave gaps")
        require(self, "short_side", self.short_side is None or self.short_side >= 1, "must be at least 1 pixel")

    @classmethod
    def of(cls, manifest: dict) -> "Windowing":
        """That of a segmentation store, by its manifest."""
        told = manifest["windows"]
        return cls(size=tuple(told["size"]), stride=tuple(told["stride"]), short_side=told["short_side"])

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that an image of this size gets: its short side is `short_side`, its aspect what it was."""
        if self.short_side is None:
            return height, width
        scale = self.short_side / min(height, width)
        return max(self.short_side, round(height * scale)), max(self.short_side, round(width * scale))

    def places(self, height: int, width: int) -> list[tuple[int, int]]:
        """(top, left) of the windows of a resized image, line by line; each pixel is in at least one."""
        rows, columns = (
            _starts(side, *one) for side, *one in zip((height, width), self.size, self.stride, strict=True)
        )
        return [(top, left) for top in rows for left in columns]

    def fill(self, image: np.ndarray, place: tuple[int, int], *, outside: int | None = None) -> np.ndarray:
        """One window of a resized image.

        Args:
            image: (height, width) or (height, width, 3).
            place: its (top, left).
            outside: the value past the edge of an image that is smaller than a window; None: its edge goes on, which
                shows a tokenizer no colour that the image has not.
        Returns: the window, of `size`; a view where nothing is outside.
        """
        (top, left), (height, width) = place, self.size
        part = image[top : top + height, left : left + width]
        lacking = [(0, height - part.shape[0]), (0, width - part.shape[1]), *[(0, 0)] * (image.ndim - 2)]
        if not any(after for _, after in lacking):
            return part
        if outside is None:
            return np.pad(part, lacking, mode="edge")
        return np.pad(part, lacking, constant_values=outside)


def windows_of(
    image: np.ndarray, mask: np.ndarray, windowing: Windowing, *, ignore: int
) -> Iterator[tuple[tuple[int, int], np.ndarray, np.ndarray]]:
    """Yield ((top, left), pixels, label map) of the windows of an image, line by line.

    Args:
        image: (height, width, 3) uint8, as it came.
        mask: (height, width) uint8 or uint16.
        windowing: a Windowing.
        ignore: the label map's value outside of an image that is smaller than a window.
    """
    size = windowing.resized(*image.shape[:2])
    pixels, labels = resize_image(image, size), resize_mask(mask, size)
    for place in windowing.places(*size):
        yield place, windowing.fill(pixels, place), windowing.fill(labels, place, outside=ignore)


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image (h, w, 3) uint8 of another (height, width), bicubic, as all images are resized here."""
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A label map (h, w) of another (height, width): the label of the pixel under each new pixel's centre."""
    lines, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new)  # whole numbers: floats would decide ties by their rounding
        for new, old in zip(size, mask.shape, strict=True)
    )
    return mask if mask.shape == size else mask[lines[:, None], columns]


def _starts(side: int, window: int, stride: int) -> list[int]:
    last = max(0, side - window)
    return [*range(0, last, stride), last]
