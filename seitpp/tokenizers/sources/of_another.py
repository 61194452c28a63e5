"""What image sources share that give the images of another source in another form: all but the pixels is its own."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seitpp.tokenizers.sources.decoding.resize import Resize
from seitpp.tokenizers.sources.listing.left_out import LeftOut
from seitpp.tokenizers.sources.source import ImageSource


@dataclass(frozen=True)
class ImagesOfAnother(ABC):
    """An ImageSource with the names, labels and places of another.

    Attributes:
        images: the ImageSource.
    """

    images: ImageSource

    @abstractmethod
    def read(self, index: int, size: tuple[int, int], resize: Resize = "crop") -> np.ndarray:
        """Pixels of one image, (3, height, width) uint8.

        Raises: what the source raises where the image can't be decoded.
        """

    @property
    def keys(self) -> list[str]:
        """A name for each image."""
        return self.images.keys

    @property
    def labels(self) -> np.ndarray:
        """Class index of each, (n,) int32."""
        return self.images.labels

    @property
    def classes(self) -> list[str]:
        """Class names."""
        return self.images.classes

    @property
    def left_out(self) -> list[LeftOut]:
        """What gives no image."""
        return self.images.left_out

    def __len__(self) -> int:
        return len(self.images)

    def where(self, index: int) -> str:
        """Where one image lies, for messages."""
        return self.images.where(index)

    def sizes(self, rows: Sequence[int]) -> np.ndarray:
        """Bytes of some images as the other source has them, (rows,) int64."""
        return self.images.sizes(rows)
