"""A source of images that lose the detail of a smaller size: scaled down, and up again."""

from dataclasses import dataclass

import numpy as np
from einops import rearrange
from PIL import Image

from seitpp.tokenizers.sources.decoding.resize import Resize
from seitpp.tokenizers.sources.of_another import ImagesOfAnother
from seitpp.tokenizers.sources.pixels import to_pixels


@dataclass(frozen=True)
class ScaledImages(ImagesOfAnother):
    """An ImageSource of another's images, as they are after `through`.

    Attributes:
        images: the ImageSource.
        through: (height, width) of the smaller size.
    """

    through: tuple[int, int]

    def read(self, index: int, size: tuple[int, int], resize: Resize = "crop") -> np.ndarray:
        """Pixels of one image of `size`, cut to its shape at the smaller size."""
        pixels = self.images.read(index, self.through, resize)
        if size == self.through:
            return pixels
        return to_pixels(Image.fromarray(rearrange(pixels, "c h w -> h w c")), size, "squash")
