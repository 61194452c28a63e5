"""Some images of a source, as a source of their own."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from seitpp.tokenizers.sources.decoding.resize import Resize
from seitpp.tokenizers.sources.listing.left_out import LeftOut
from seitpp.tokenizers.sources.source import ImageSource


@dataclass(frozen=True)
class SelectedImages:
    """An ImageSource that holds some images of another, in the order of `rows`.

    Attributes:
        images: the ImageSource.
        rows: indices into it, (n,) int64.
    """

    images: ImageSource
    rows: np.ndarray

    @cached_property
    def keys(self) -> list[str]:
        """A name for each image."""
        return [self.images.keys[row] for row in self.rows]

    @cached_property
    def labels(self) -> np.ndarray:
        """Class index of each, -1 where unknown, (n,) int32."""
        return self.images.labels[self.rows]

    @property
    def classes(self) -> list[str]:
        """Class names."""
        return self.images.classes

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
