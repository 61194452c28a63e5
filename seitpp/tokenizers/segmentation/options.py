"""What `seitpp tokenize --targets masks` can be told beside what all tokenising can."""

from dataclasses import dataclass
from typing import Literal

from seitpp.runtime.config import require
from seitpp.runtime.errors import UserError
from seitpp.runtime.locations import Location
from seitpp.tokenizers.segmentation.windowing import Windowing

Layout = Literal["ade20k", "cityscapes", "voc", "folders"]
"""How images and their masks lie: see `segmentation.layouts`."""


@dataclass(frozen=True, kw_only=True)
class SegmentationOptions:
    """Part of the configuration of tokenising that is about images with masks."""

    targets: Literal["labels", "masks"] = "labels"
    """labels: a row an image, and its class; masks: images with label maps, a row a window, see
    docs/segmentation-stores.md"""
    layout: Layout | None = None
    """masks: how the data set lies; None: what the folders show. folders: any two, --images and --masks"""
    masks: Location | None = None
    """layout folders: the masks, PNGs of the images' names"""
    mask_classes: Location | None = None
    """layout folders: file of names of the masks' values, one a line or JSON; others: instead of their own names"""
    mask_ignore: int | None = None
    """layout folders: the masks' value that counts for nothing; names of classes are those of the other values from 0.
    None: 255, or 65535 where there are more than 255 classes"""
    short_side: int = 512
    """masks: pixels that the short side of images is resized to; 0: they keep their size"""
    window: int = 512
    """masks: pixels a side of the windows that cover an image"""
    window_stride: int | None = None
    """masks: pixels from one window to the next; None: the window, so that none overlaps but the last of a line"""
    tiles: bool | None = None
    """masks: encode windows in tiles of the tokenizer's own image size; None: where it takes no other size"""

    own_size: bool | None = None
    """masks: keep the label map of each image at its own size too, which evaluation measures on; None: unless the split
    is train"""

    def check_segmentation(self) -> None:
        """Refuse values that don't fit together.

        Raises: UserError naming the field.
        """
        if self.targets == "labels":
            for name in ("layout", "masks", "mask_classes", "mask_ignore", "tiles", "own_size"):
                require(self, name, getattr(self, name) is None, "is for --targets masks")
            return
        if self.layout not in (None, "folders") and self.masks is not None:
            raise UserError(f"--masks {self.masks} is for --layout folders: {self.layout} says where its masks lie")
        require(self, "mask_ignore", self.mask_ignore is None or 0 <= self.mask_ignore <= 65535, "must be 0 to 65535")
        for name, least in (("short_side", 0), ("window", 1)):
            require(self, name, getattr(self, name) >= least, f"must be at least {least}")
        stride = self.window_stride
        require(self, "window_stride", stride is None or 1 <= stride <= self.window, "must lie between 1 and --window")

    @property
    def windowing(self) -> Windowing:
        """How images become windows."""
        stride = self.window if self.window_stride is None else self.window_stride
        return Windowing(
            size=(self.window, self.window), stride=(stride, stride), short_side=self.short_side or None
        )  # fmt: skip
