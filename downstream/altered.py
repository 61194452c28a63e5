"""Images of a source with their pixels changed: what all such sources share."""

import zlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from seitpp.tokenizers.sources.decoding.resize import Resize
from seitpp.tokenizers.sources.of_another import ImagesOfAnother


@dataclass(frozen=True)
class AlteredImages(ImagesOfAnother):
    """An ImageSource whose images are those of another, changed after they are decoded at the size asked for."""

    @abstractmethod
    def alter(self, pixels: np.ndarray, index: int) -> np.ndarray:
        """Change one image.

        Args:
            pixels: (3, height, width) uint8.
            index: of the image: the key of its random draws.
        Returns: the same shape and type.
        """

    def read(self, index: int, size: tuple[int, int], resize: Resize = "crop") -> np.ndarray:
        """Changed pixels of one image, (3, height, width) uint8.

        Raises: what the source raises where the image can't be decoded; what `alter` does.
        """
        return self.alter(self.images.read(index, size, resize), index)


@dataclass(frozen=True)
class SizedOnce(AlteredImages):
    """The same images, whose sizes are asked of the disk once: dozens of stores that are made of them compare these."""

    def alter(self, pixels: np.ndarray, index: int) -> np.ndarray:
        """The image as it is."""
        return pixels

    @cached_property
    def known_sizes(self) -> np.ndarray:
        """Bytes of all images, (n,) int64."""
        return self.images.sizes(range(len(self.images)))

    def sizes(self, rows: Sequence[int]) -> np.ndarray:
        """Bytes of some images, (rows,) int64."""
        return self.known_sizes[list(rows)]


def image_seed(*parts: object) -> int:
    """32 bits for the random draws of one image, the same whoever reads it and when."""
    return zlib.crc32(" ".join(map(str, parts)).encode())
