"""Coded rows as an Arrow column: bytes one after the other, and where each row begins."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

CODED_TYPE = pa.binary()
_MOST_BYTES = 2**31 - 1
"""What 32-bit offsets reach."""


@dataclass(frozen=True, eq=False)
class CodedRows:
    """Rows of bytes of any length.

    Attributes:
        content: bytes of all rows, (n,) uint8.
        offsets: where each row begins in them and, last, where the last one ends, (rows + 1,) integers, never falling.
    """

    content: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def of(cls, column: Any) -> "CodedRows":
        """Those of an Arrow array of type binary without nulls, over its memory; its offsets were checked."""
        if len(column) == 0:
            return cls(np.zeros(0, np.uint8), np.zeros(1, np.int32))
        _, offsets, content = column.buffers()
        whole = np.zeros(0, np.uint8) if content is None else np.frombuffer(content, np.uint8)
        return cls(whole, np.frombuffer(offsets, np.int32, count=len(column) + 1, offset=4 * column.offset))

    @classmethod
    def joined(cls, parts: Sequence["CodedRows"]) -> "CodedRows":
        """Those of several blocks of rows, one after the other."""
        ends = np.cumsum([0, *(len(part.content) for part in parts)])
        offsets = [part.offsets[1:] + end for part, end in zip(parts, ends[:-1], strict=True)]
        content = [part.content for part in parts]
        return cls(np.concatenate([np.zeros(0, np.uint8), *content]), np.concatenate([np.zeros(1, np.int64), *offsets]))

    def column(self) -> Any:
        """An Arrow array of type binary.

        Raises: ValueError if they are more bytes than its offsets reach.
        """
        if self.offsets[-1] > _MOST_BYTES:
            raise ValueError(f"{self.offsets[-1]} bytes of coded rows in one shard, it holds {_MOST_BYTES}")
        buffers = [None, pa.py_buffer(self.offsets.astype(np.int32)), pa.py_buffer(np.ascontiguousarray(self.content))]
        return pa.BinaryArray.from_buffers(CODED_TYPE, len(self), buffers)
