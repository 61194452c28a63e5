"""Images that a program has at hand: paths, arrays, Pillow's images, rows of a Hugging Face data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.decoding.resize import Resize
from seitpp.tokenizers.sources.labels import label_by_name
from seitpp.tokenizers.sources.listing.left_out import LeftOut
from seitpp.tokenizers.sources.listing.names import require_utf8
from seitpp.tokenizers.sources.pixels import image_faults, read_image, to_pixels
from seitpp.tokenizers.sources.source import ImageSource, open_source
from seitpp.tokenizers.sources.timm_images import from_hugging_face


class GivenImages:
    """An ImageSource of a list.

    Args:
        images: paths, arrays (H, W, 3) or (H, W) uint8, or Pillow's images.
        labels: names of their classes, None where unknown; None: all unknown.
        keys: a name for each; None: its path, else its number.
    """

    def __init__(
        self, images: Sequence[Any], labels: Sequence[str | None] | None = None, keys: Sequence[str] | None = None
    ):
        self.images = images
        paths = [isinstance(image, str | Path) for image in images]
        self.keys = list(keys) if keys else [
            str(image) if is_path else f"{number:08d}"
            for number, (image, is_path) in enumerate(zip(images, paths, strict=True))
        ]  # fmt: skip
        if len(set(self.keys)) < len(self.keys):
            twice = next(key for key in self.keys if self.keys.count(key) > 1)
            raise UserError(f"images has {twice} twice: every image needs a name of its own")
        if labels is not None and len(labels) != len(images):
            raise UserError(f"labels has {len(labels)} entries, images {len(images)}")
        names = [None] * len(images) if labels is None else list(labels)
        require_utf8(self.keys, "images")
        self.left_out: list[LeftOut] = []
        self.labels, self.classes = label_by_name(names, None, "labels")

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int, size: tuple[int, int], resize: Resize = "crop") -> np.ndarray:
        """Pixels of one image, see `read_image`."""
        image = self.images[index]
        if isinstance(image, str | Path):
            return read_image(image, size, resize)
        with image_faults():
            return to_pixels(_opened(image, self.where(index)), size, resize)

    def where(self, index: int) -> str:
        """Which image it is, for messages."""
        return f"image {self.keys[index]}"

    def sizes(self, rows: Sequence[int]) -> np.ndarray:
        """Nobody says: (rows,) zeros."""
        return np.zeros(len(rows), np.int64)


def given_images(
    images: str | Path | Sequence[Any], labels: Sequence[str | None] | None = None, label_column: str | None = None
) -> ImageSource:
    """An ImageSource of whatever a program has.

    Args:
        images: a folder or a pattern of tar files as for `open_source`, a list of paths, arrays or Pillow's images, or
            a data set of Hugging Face with one column of images.
        labels: names of the classes of a list's images, None where unknown.
        label_column: of a data set; None: `label`, where there is one.
    Raises: UserError if there are no images, or it is something else.
    """
    if isinstance(images, str | Path):
        return open_source(images)
    if hasattr(images, "features") and hasattr(images, "column_names"):
        return from_hugging_face(images, label_column)
    if not isinstance(images, Sequence | np.ndarray):
        raise UserError(f"images is a {type(images).__name__}: give a folder, a list of images, or a data set")
    if not len(images):
        raise UserError("images is empty: there is nothing to tokenise")
    return GivenImages(images, labels)


def _opened(image: Any, name: str) -> Image.Image:
    if isinstance(image, Image.Image):
        return image.copy()
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ValueError(f"{name} is an array {array.shape} of {array.dtype}, expected (H, W, 3) uint8")
    return Image.fromarray(array)
