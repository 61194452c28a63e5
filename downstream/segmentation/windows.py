"""The rows of a segmentation store: windows of images, with their label maps and places."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seitpp.downstream.segmentation.segmenter import MOST_CLASSES
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.segmentation.windowing import resize_mask
from seitpp.tokens.format.windows import Windows
from seitpp.tokens.remote import CacheConfig
from seitpp.tokens.store import TokenStore, open_store

IGNORE = 255
"""The value of pixels that nobody is measured on, in all label maps here, whatever the store has for it."""


@dataclass(frozen=True)
class SegmentationRows:
    """A segmentation store and what is known of its windows.

    Attributes:
        store: the TokenStore.
        windows: Windows, places of all rows: 28 bytes a row.
    """

    store: TokenStore
    windows: Windows

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def classes(self) -> list[str]:
        """Names of the values of label maps."""
        return list(self.store.manifest["mask"]["classes"])

    @property
    def told(self) -> dict[str, Any]:
        """What the manifest says of windows: size, stride, short_side."""
        return self.store.manifest["windows"]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of a window, pixels."""
        height, width = self.told["size"]
        return height, width

    @cached_property
    def bounds(self) -> np.ndarray:
        """First row of each image and, last, the number of rows, (images + 1,) int64."""
        return self.windows.image_bounds()

    @property
    def images(self) -> int:
        """How many images there are."""
        return len(self.bounds) - 1

    def rows_of(self, image: int) -> np.ndarray:
        """The rows of an image, counted from 0 in the store's order."""
        return np.arange(self.bounds[image], self.bounds[image + 1])

    def key_of(self, image: int) -> str:
        """Where an image came from."""
        row = int(self.bounds[image])
        return self.store.keys(range(row, row + 1))[0].rpartition("#")[0]

    def masks(self, rows: np.ndarray) -> Tensor:
        """Label maps of some windows, (b, H, W) uint8, IGNORE where nobody says what is seen.

        Raises: UserError if one is missing or of another size than its window.
        """
        found = np.empty((len(rows), *self.size), np.uint8)
        for place, mask in enumerate(self.store.masks_at(rows)):
            if mask is None or mask.shape != self.size:
                what = "no label map" if mask is None else f"a label map of {mask.shape} pixels"
                raise UserError(f"{self.store.folder}, row {rows[place]}: {what}, expected {self.size}: make it again")
            found[place] = self._ignoring(mask)
        return torch.from_numpy(found)

    def _ignoring(self, mask: np.ndarray) -> np.ndarray:
        ignore = self.store.manifest["mask"].get("ignore")
        return mask if ignore in (None, IGNORE) else np.where(mask == ignore, IGNORE, mask).astype(np.uint8)

    @property
    def keeps_truth(self) -> bool:
        """Whether the store has the label maps of whole images as they came, at the images' own size."""
        return "truth" in self.store.columns

    def truth(self, image: int) -> np.ndarray:
        """The label map of a whole image at its own size, (height, width) uint8.

        As it came, where the store keeps it; else put together from the windows of the resized image, of which each
        pixel has the label that lies under its centre.

        Raises: UserError if the store has none, or one of another size than its image.
        """
        rows = self.rows_of(image)
        if self.keeps_truth:
            mask, original = self.store.truths_at(rows[:1])[0], tuple(self.windows.original[rows[0]].tolist())
            if mask is None or mask.shape != original:
                what = "no label map" if mask is None else f"a label map of {mask.shape} pixels"
                raise UserError(f"{self.store.folder}, image {self.key_of(image)}: {what}, expected {original}")
            return self._ignoring(mask)
        windows, masks = self.windows[rows], self.masks(rows).numpy()
        whole = np.full(windows.resized[0], IGNORE, np.uint8)
        for top, left, mask in zip(windows.top, windows.left, masks, strict=True):
            part = whole[top : top + mask.shape[0], left : left + mask.shape[1]]
            part[:] = mask[: part.shape[0], : part.shape[1]]
        return resize_mask(whole, tuple(windows.original[0].tolist()))


def open_segmentation(
    folder: str | Path, cache: CacheConfig | None = None, *, fingerprint: str | None = None, verify_shards: bool = True
) -> SegmentationRows:
    """Open a segmentation store.

    Args:
        folder: the store, a folder or a URL.
        cache: CacheConfig for a URL; all of the store must fit, as rows are read in any order.
        fingerprint: of the tokenizer that the store must be of; None: any.
        verify_shards: see TokenStore.
    Raises: UserError if it holds no windows with label maps, or more classes than a byte can name.
    """
    store = open_store(folder, cache, verify_shards=verify_shards)
    store.files.check_whole(store.manifest["shards"])
    if fingerprint is not None:
        store.check_tokenizer(fingerprint, "the model")
    missing = [name for name in ("mask", "window") if name not in store.columns]
    if missing:
        raise UserError(
            f"{folder} is no segmentation store (no column {missing[0]}): make one with seitpp tokenize --targets masks"
        )
    if not 1 <= len(store.manifest["mask"]["classes"]) <= MOST_CLASSES:
        count = len(store.manifest["mask"]["classes"])
        raise UserError(f"{folder} has {count} classes of pixels, expected 1 to {MOST_CLASSES}")
    if not len(store):
        raise UserError(f"{folder} has no windows")
    return SegmentationRows(store, Windows(store.windows_at(np.arange(len(store)))))
