"""Images with annotations, in the form of an ImageSource: which there are, their pixels, their label maps."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from seitpp.tokenizers.segmentation.annotation import Meaning, read_annotation
from seitpp.tokenizers.sources.decoding.resize import LONGEST, Resize
from seitpp.tokenizers.sources.decoding.rgb import to_rgb
from seitpp.tokenizers.sources.listing.left_out import LeftOut
from seitpp.tokenizers.sources.pixels import BrokenImage, image_faults, open_image, read_image


@dataclass(frozen=True)
class SegmentationImages:
    """An ImageSource whose images have label maps. It has no labels.

    Attributes:
        folder: what `keys` are relative to.
        keys: paths of the images, posix style.
        masks: files of their annotations.
        meaning: of the annotations' values.
        layout: how the data set lies.
        left_out: what else the folder of images holds.
    """

    folder: Path
    keys: list[str]
    masks: list[Path]
    meaning: Meaning
    layout: str
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def labels(self) -> np.ndarray:
        """-1 of each image, (n,) int32."""
        return np.full(len(self), -1, np.int32)

    @property
    def classes(self) -> list[str]:
        """None: those of masks are `meaning.classes`."""
        return []

    def __len__(self):
        return len(self.keys)

    def read(self, index: int, size: tuple[int, int], resize: Resize = "crop") -> np.ndarray:
        """Pixels of one image, see `read_image`."""
        return read_image(self.folder / self.keys[index], size, resize)

    def read_pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """An image and its label map at their own size.

        Returns: pixels (height, width, 3) uint8, upright; label map (height, width), see `read_annotation`.
        Raises: BrokenImage where the image can't be decoded or is no plausible shape; UserError where the annotation
            is wrong.
        """
        pixels = read_whole(self.folder / self.keys[index])
        return pixels, self.read_mask(index, pixels.shape[:2])

    def read_mask(self, index: int, size: tuple[int, int]) -> np.ndarray:
        """The label map of an image of (height, width) `size`, at that size.

        Raises: UserError where the annotation is wrong.
        """
        return read_annotation(self.masks[index], self.meaning, size, self.where(index))

    def where(self, index: int) -> str:
        """The file of one image, for messages."""
        return str(self.folder / self.keys[index])

    def sizes(self, rows: Sequence[int]) -> np.ndarray:
        """Bytes of some files, an image and its annotation together, (rows,) int64."""
        files = [(self.folder / self.keys[row], self.masks[row]) for row in rows]
        return np.array([image.stat().st_size + mask.stat().st_size for image, mask in files], np.int64)


def read_whole(file: str | Path) -> np.ndarray:
    """Decode an image at its own size: (height, width, 3) uint8, upright, transparency on white.

    Raises: BrokenImage where it can't be decoded, or is more than 32 times as long as wide; OSError as `read_image`.
    """
    with image_faults(), open_image(file) as image:
        if max(image.size) > LONGEST * min(image.size):
            raise BrokenImage(f"it is of {image.width} x {image.height} pixels, longer than {LONGEST} times its width")
        return np.asarray(to_rgb(image))
