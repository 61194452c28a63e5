"""PSNR of what a store's tokens decode to, after they were changed, or as another tokenizer makes them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from seitpp.tokenizers.reconstruction import psnr
from seitpp.tokenizers.sources.decoding.resize import resize_of
from seitpp.tokenizers.sources.images import read_all
from seitpp.tokenizers.sources.source import ImageSource
from seitpp.tokenizers.tokenizer import Tokenizer
from seitpp.tokens.coding.fit import spread_rows
from seitpp.tokens.store import TokenStore

_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedQuality:
    """Measures PSNR on some images, evenly spaced.

    Attributes:
        tokenizer: the store's.
        store: where ids come from if there are no images.
        images: an ImageSource, what PSNR is against; None: what the store's own ids decode to.
        most: images to measure on at most.
    """

    tokenizer: Tokenizer
    store: TokenStore
    images: ImageSource | None
    most: int

    @property
    def rows(self) -> np.ndarray:
        """Which images, or which rows of the store."""
        return spread_rows(len(self.store if self.images is None else self.images), self.most)

    def of_codes(self, new: Tensor) -> float | None:
        """Mean PSNR, dB, with some codes in the place of others; None where nothing differs, and without images.

        Args:
            new: the code that each is replaced by, (k,) int64.
        """
        device, found = self.tokenizer.codebook.device, []
        if self.images is None and torch.equal(new, torch.arange(len(new))):
            return None
        for rows in _parts(self.rows):
            if self.images is None:
                ids = self.store.ids(rows)
                reference = self.tokenizer.decode(ids.to(device))
            else:
                reference = self._pixels(rows, self.tokenizer)
                ids = self.tokenizer.encode(reference).cpu()
            found.append(psnr(self.tokenizer.decode(new[ids].to(device)), reference))
        return float(torch.cat(found).mean())

    def of_tokenizer(self, tokenizer: Tokenizer) -> float | None:
        """Mean PSNR, dB, of another tokenizer's reconstructions at its own size; None without images."""
        if self.images is None:
            return None
        found = []
        for rows in _parts(self.rows):
            pixels = self._pixels(rows, tokenizer)
            found.append(psnr(tokenizer.decode(tokenizer.encode(pixels)), pixels))
        return float(torch.cat(found).mean())

    def _pixels(self, rows: np.ndarray, tokenizer: Tokenizer) -> Tensor:
        assert self.images is not None
        size = (int(tokenizer.image_size[0]), int(tokenizer.image_size[1]))
        pixels = read_all(self.images, rows, size, resize_of(tokenizer.preprocessing))
        return pixels.to(tokenizer.codebook.device)


def _parts(rows: np.ndarray) -> list[np.ndarray]:
    return np.split(rows, range(_AT_ONCE, len(rows), _AT_ONCE))
