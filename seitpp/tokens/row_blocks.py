"""Rows in blocks: a store read from front to back, and blocks of rows written as shards."""

from itertools import pairwise
from pathlib import Path

import numpy as np

from seitpp.tokens.shard import write_shard

MANY_ROWS = 100_000
"""Reading fewer is over in a moment: no progress is shown."""


def row_ranges(rows, block=512):
    """Cut a range of rows into ranges of at most `block`, in order: few enough that their ids stay in the cache."""
    return [range(start, min(start + block, rows.stop)) for start in range(rows.start, rows.stop, block)]


def pass_through(store, block=512):
    """Yield ranges of rows from the first to the last, and close each shard behind: memory stays what it was.

    Args:
        store: a TokenStore.
        block: most rows of a range.
    """
    for start, stop in pairwise(store.shard_offsets.tolist()):
        yield from row_ranges(range(start, stop), block)
        store.close_shards()


class ShardSeries:
    """Collects rows and writes them as shard-00000.arrow, shard-00001.arrow and so on.

    Args:
        folder: where the shards go.
        rows_per_shard: a shard is written when it has so many rows; None: only when `cut` says so.

    Attributes:
        shards: what `write_shard` returned, in order.
        rows: number of rows so far.
    """

    def __init__(self, folder, rows_per_shard=None):
        self.folder = Path(folder)
        self.rows_per_shard = rows_per_shard
        self.shards = []
        self.rows = 0
        self._clear()

    def append(self, packed, labels, keys):
        """Add rows: (n, bytes) uint8, (n,) integers and n strings."""
        start = 0
        while start < len(keys):
            room = len(keys) if self.rows_per_shard is None else self.rows_per_shard - self._waiting
            part = slice(start, start + room)
            self._packed.append(packed[part])
            self._labels.append(np.asarray(labels[part]))
            self._keys += keys[part]
            taken = len(keys[part])
            self._waiting += taken
            self.rows += taken
            start += taken
            if self._waiting == self.rows_per_shard:
                self.cut()

    def cut(self):
        """Write the rows that wait, if any, as a shard."""
        if not self._waiting:
            return
        path = self.folder / f"shard-{len(self.shards):05d}.arrow"
        packed, labels = np.concatenate(self._packed), np.concatenate(self._labels)
        self.shards.append(write_shard(path, packed, labels, self._keys))
        self._clear()

    def _clear(self):
        self._packed, self._labels, self._keys, self._waiting = [], [], [], 0
