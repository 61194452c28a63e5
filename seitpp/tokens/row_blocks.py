"""Rows in blocks: a store read from front to back, and blocks of rows written as shards."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seitpp.tokens.format.shard import write_shard
from seitpp.tokens.format.targets import Targets

if TYPE_CHECKING:
    from seitpp.tokens.store import TokenStore

MANY_ROWS = 100_000
"""Reading fewer is over in a moment: no progress is shown."""


def row_ranges(rows: range, block: int = 512) -> list[range]:
    """Cut a range of rows into ranges of at most `block`, in order: few enough that their ids stay in the cache."""
    return [range(start, min(start + block, rows.stop)) for start in range(rows.start, rows.stop, block)]


def pass_through(store: "TokenStore", block: int = 512) -> Iterator[range]:
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

    def __init__(self, folder: str | Path, rows_per_shard: int | None = None) -> None:
        self.folder = Path(folder)
        self.rows_per_shard = rows_per_shard
        self.shards: list[dict[str, Any]] = []
        self.rows = 0
        self._clear()

    def append(
        self,
        packed: np.ndarray,
        labels: Sequence[int] | np.ndarray,
        keys: Sequence[str],
        targets: Targets | None = None,
    ) -> None:
        """Add rows: (n, bytes) uint8, (n,) integers, n strings and their targets, whose columns are always the same."""
        start = 0
        targets = Targets() if targets is None else targets
        while start < len(keys):
            room = len(keys) if self.rows_per_shard is None else self.rows_per_shard - self._waiting
            part = slice(start, start + room)
            self._packed.append(packed[part])
            self._labels.append(np.asarray(labels[part]))
            self._keys += keys[part]
            self._targets.append(targets[part])
            taken = len(keys[part])
            self._waiting += taken
            self.rows += taken
            start += taken
            if self._waiting == self.rows_per_shard:
                self.cut()

    def cut(self) -> None:
        """Write the rows that wait, if any, as a shard."""
        if not self._waiting:
            return
        path = self.folder / f"shard-{len(self.shards):05d}.arrow"
        packed, labels = np.concatenate(self._packed), np.concatenate(self._labels)
        self.shards.append(write_shard(path, packed, labels, self._keys, Targets.joined(self._targets)))
        self._clear()

    def _clear(self) -> None:
        self._packed: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []
        self._keys: list[str] = []
        self._targets: list[Targets] = []
        self._waiting = 0
