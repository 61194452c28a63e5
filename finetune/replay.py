"""What a learner keeps of earlier tasks, limited in bytes: token rows, or JPEGs of the images.

Which rows: a reservoir of each class, of equal size. Once and for all the seed puts the rows of every class into a
random order; what is kept are the first rows of all seen classes in turn (the first of each, the second of each, …)
until the next one does not fit. So each class keeps a random sample, samples shrink as classes come, and a row that was
dropped never comes back.
"""

import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.decoding.jpeg import to_jpeg
from seitpp.tokenizers.sources.decoding.resize import resize_of
from seitpp.tokenizers.sources.pixels import BrokenImage, quiet_decoding
from seitpp.tokenizers.sources.source import ImageSource
from seitpp.tokenizers.tokenize_images import tokenize_images
from seitpp.tokens.codec import pack
from seitpp.tokens.store import TokenStore

LABEL_BYTES = 4
"""Of a label, beside every row or JPEG: int32, as a store has it."""
_AT_ONCE = 256


class Memory(ABC):
    """Rows of a store that are kept, at most `budget` bytes of them.

    Args:
        budget: bytes.

    Attributes:
        rows: which are kept, (n,) int64, in the order of the seed.
        bytes: how many they take.
    """

    def __init__(self, budget: int):
        self.budget = budget
        self.rows = np.zeros(0, np.int64)
        self.bytes = 0

    def keep(self, ranked: np.ndarray) -> None:
        """Keep the first rows of `ranked`, (n,) int64, as many as fit; forget the others."""
        self.bytes = 0
        for place, row in enumerate(ranked.tolist()):
            size = self.size_of(row) + LABEL_BYTES
            if self.bytes + size > self.budget:
                ranked = ranked[:place]
                break
            self.bytes += size
        self.rows = ranked

    @abstractmethod
    def size_of(self, row: int) -> int:
        """Bytes that a row takes without its label."""

    @abstractmethod
    def packed(self) -> np.ndarray:
        """Tokens to train on, of the rows that are kept: (n, bytes) uint8."""


class TokenMemory(Memory):
    """Packed tokens as they are stored.

    Args:
        budget: bytes.
        store: the TokenStore.
    """

    def __init__(self, budget: int, store: TokenStore):
        super().__init__(budget)
        self.store = store

    def size_of(self, row: int) -> int:
        """That of every row of the store."""
        return self.store.row_bytes

    def packed(self) -> np.ndarray:
        """The rows themselves."""
        return self.store.packed(self.rows)


class JpegMemory(Memory):
    """JPEGs of the images at the size that the tokenizer takes. What is trained on are the tokens of decoded JPEGs.

    Args:
        budget: bytes.
        images: an ImageSource, an image for each row of the store.
        tokenizer: the store's Tokenizer.
        quality: of the JPEGs, 1 to 95.
    """

    def __init__(self, budget: int, images: ImageSource, tokenizer: Any, *, quality: int):
        super().__init__(budget)
        self.images, self.tokenizer, self.quality = images, tokenizer, quality
        self._jpegs: dict[int, bytes] = {}

    def keep(self, ranked: np.ndarray) -> None:
        """Keep the first rows of `ranked`, (n,) int64, as many as fit; forget the others."""
        with quiet_decoding():
            super().keep(ranked)
        self._jpegs = {row: self._jpegs[row] for row in self.rows.tolist()}

    def size_of(self, row: int) -> int:
        """Measured: the image is read and compressed."""
        if row not in self._jpegs:
            resize = resize_of(self.tokenizer.preprocessing)
            try:
                pixels = self.images.read(row, self.tokenizer.image_size, resize)
            except BrokenImage as error:
                where = self.images.where(row)
                raise UserError(f"{where} can't be decoded ({error}): mend it, or leave jpeg out") from error
            self._jpegs[row] = to_jpeg(pixels, self.quality)
        return len(self._jpegs[row])

    def packed(self) -> np.ndarray:
        """Tokens of the decoded JPEGs."""
        jpegs = [self._jpegs[row] for row in self.rows.tolist()]
        parts = [self._tokens(jpegs[start : start + _AT_ONCE]) for start in range(0, len(jpegs), _AT_ONCE)]
        return pack(torch.cat(parts), self.tokenizer.codebook_size).numpy()

    def _tokens(self, jpegs: Sequence[bytes]) -> torch.Tensor:
        ids = tokenize_images([Image.open(io.BytesIO(each)) for each in jpegs], self.tokenizer)
        assert isinstance(ids, torch.Tensor)
        return ids
