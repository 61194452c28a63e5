"""A source of images that lose the detail of a smaller size: scaled down, and up again."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from einops import rearrange
from PIL import Image

from seitpp.tokenizers.sources.decoding.resize import Resize
from seitpp.tokenizers.sources.listing.left_out import LeftOut
from seitpp.tokenizers.sources.pixels import to_pixels
from seitpp.tokenizers.sources.source import ImageSource


@dataclass(frozen=True)
class ScaledImages:
    """An ImageSource of another's images, as they are after `through`.

    Attributes:
        images: the ImageSource.
        through: (height, width) of the smaller size.
    """

    images: ImageSource
    through: tuple[int, int]

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

    def read(self, index: int, size: tuple[int, int], resize: Resize = "crop") -> np.ndarray:
        """Pixels of one image of `size`, cut to its shape at the smaller size."""
        pixels = self.images.read(index, self.through, resize)
        if size == self.through:
            return pixels
        return to_pixels(Image.fromarray(rearrange(pixels, "c h w -> h w c")), size, "squash")

    def where(self, index: int) -> str:
        """Where one image lies, for messages."""
        return self.images.where(index)

    def sizes(self, rows: Sequence[int]) -> np.ndarray:
        """Bytes of some images, (rows,) int64."""
        return self.images.sizes(rows)
