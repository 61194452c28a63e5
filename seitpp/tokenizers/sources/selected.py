"""Some images of a source, as a source of their own, under its labels or under others."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.decoding.resize import Resize
from seitpp.tokenizers.sources.listing.left_out import LeftOut
from seitpp.tokenizers.sources.source import ImageSource


@dataclass(frozen=True)
class SelectedImages:
    """An ImageSource that holds some images of another, in the order of `rows`.

    Attributes:
        images: the ImageSource.
        rows: indices into it, (n,) int64.
        relabelled: other labels of these images than the source's, (n,) int32, and the class names that they are of.
    """

    images: ImageSource
    rows: np.ndarray
    relabelled: tuple[np.ndarray, list[str]] | None = None

    @cached_property
    def keys(self) -> list[str]:
        """A name for each image."""
        return [self.images.keys[row] for row in self.rows]

    @cached_property
    def labels(self) -> np.ndarray:
        """Class index of each, -1 where unknown, (n,) int32."""
        return self.images.labels[self.rows] if self.relabelled is None else self.relabelled[0]

    @property
    def classes(self) -> list[str]:
        """Class names."""
        return self.images.classes if self.relabelled is None else self.relabelled[1]

    @property
    def left_out(self) -> list[LeftOut]:
        """What gives no image, of the whole source."""
        return self.images.left_out

    def __len__(self):
        return len(self.rows)

    def read(self, index: int, size: tuple[int, int], resize: Resize = "crop") -> np.ndarray:
        """Pixels of one image, see `read_image`."""
        return self.images.read(int(self.rows[index]), size, resize)

    def where(self, index: int) -> str:
        """Where one image lies, for messages."""
        return self.images.where(int(self.rows[index]))

    def sizes(self, rows: Sequence[int]) -> np.ndarray:
        """Bytes of some images, (rows,) int64."""
        return self.images.sizes([int(self.rows[row]) for row in rows])


def images_of_keys(images: ImageSource, keys: Sequence[str], *, where: str | Path, store: str | Path) -> SelectedImages:
    """The images that keys name, in their order: those that a store was made of, row by row.

    Args:
        images: an ImageSource.
        keys: names, as the store has them.
        where: where the images lie, for the message.
        store: what has the keys, likewise.
    Raises: UserError if one is missing.
    """
    place = {key: index for index, key in enumerate(images.keys)}
    missing = [key for key in keys if key not in place]
    if missing:
        raise UserError(f"{where} lacks {missing[0]}, which {store} was made of: name the right folder")
    return SelectedImages(images, np.array([place[key] for key in keys], np.int64))
