"""Which samples a process takes at a step: arithmetic on a keyed permutation, so resuming needs no state.

`SampleOrder` shuffles the whole set; it is for rows that are all at hand. `WindowOrder` is for shards that must be
fetched: an epoch puts the shards in a keyed order, one after the other; each process gets an equal part of that
sequence (so that at most one shard at each end is shared with a neighbour) and shuffles it within windows.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from seitpp.tokens.order.permutation import permute

_ROWS_AT_ONCE = 16384


@dataclass(frozen=True, kw_only=True, eq=False)
class _Order(ABC):
    """A process's fraction of every optimizer step.

    Attributes:
        batch_size: samples of one process and micro-step.
        seed: of the order.
        accum_iter: micro-steps of an optimizer step.
        rank: this process.
        world_size: number of processes.
    """

    batch_size: int
    seed: int
    accum_iter: int = 1
    rank: int = 0
    world_size: int = 1

    @property
    @abstractmethod
    def steps_per_epoch(self) -> int:
        """Optimizer steps of a pass."""

    @abstractmethod
    def indices(self, epoch: int, steps: range) -> np.ndarray:
        """Indices into the set of a range of steps of an epoch, (steps, accum_iter, batch_size)."""

    def at(self, step: int, micro: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """(indices into the set, places in the global batch), both (batch_size,) int64, of a step and micro-step."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        ahead = max(1, _ROWS_AT_ONCE // (self.batch_size * self.accum_iter))
        block, place = divmod(step_in_epoch, ahead)
        steps = range(block * ahead, min((block + 1) * ahead, self.steps_per_epoch))
        return _indices(self, epoch, steps)[place, micro], self.positions(micro)

    def positions(self, micro: int) -> np.ndarray:
        """Places in the global batch of this process's samples of a micro-step, (batch_size,) int64."""
        return (micro * self.world_size + self.rank) * self.batch_size + np.arange(self.batch_size)


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleOrder(_Order):
    """Shuffled passes over a set; the last incomplete global batch of a pass is dropped.

    Attributes:
        length: size of the set.
    """

    length: int

    @property
    def global_batch(self) -> int:
        """Samples of an optimizer step over all processes and micro-steps."""
        return self.batch_size * self.accum_iter * self.world_size

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of a pass."""
        return self.length // self.global_batch

    def indices(self, epoch: int, steps: range) -> np.ndarray:
        """Indices into the set of a range of steps of an epoch, (steps, accum_iter, batch_size)."""
        positions = np.stack([self.positions(micro) for micro in range(self.accum_iter)])
        places = np.asarray(steps)[:, None, None] * self.global_batch + positions
        return permute(places, self.length, seed=self.seed, stream="sample order", part=(epoch,))


@dataclass(frozen=True, kw_only=True, eq=False)
class WindowOrder(_Order):
    """Shuffled passes over shards; what does not fill a step of all processes waits for another pass.

    Attributes:
        shard_offsets: first row of each shard and, last, the number of rows, (shards + 1,) int64.
        window: rows that are shuffled among each other.
    """

    shard_offsets: np.ndarray
    window: int

    @property
    def length(self) -> int:
        """Size of the set."""
        return int(self.shard_offsets[-1])

    @property
    def part(self) -> int:
        """Rows of a process in a pass."""
        return self.length // self.world_size

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of a pass."""
        return self.part // (self.batch_size * self.accum_iter)

    def indices(self, epoch: int, steps: range) -> np.ndarray:
        """Indices into the set of a range of steps of an epoch, (steps, accum_iter, batch_size)."""
        size = self.batch_size * self.accum_iter
        places = np.arange(steps.start * size, steps.stop * size)
        shuffled = np.empty_like(places)
        windows = places // self.window
        for number in np.unique(windows).tolist():
            start = number * self.window
            rows = min(self.window, self.part - start)
            here = windows == number
            shuffled[here] = start + permute(
                places[here] - start, rows, seed=self.seed, stream="window order", part=(epoch, self.rank, number)
            )
        rows = self._rows(epoch, self.rank * self.part + shuffled)
        return rows.reshape(len(steps), self.accum_iter, self.batch_size)

    def window_of(self, step: int) -> tuple[int, int]:
        """(epoch, window) that a step of this process begins in."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        return epoch, step_in_epoch * self.batch_size * self.accum_iter // self.window

    def shards_of(self, epoch: int, window: int) -> list[int]:
        """Numbers of the shards, in order, that a window of this process takes rows from."""
        start = self.rank * self.part + window * self.window
        stop = self.rank * self.part + min((window + 1) * self.window, self.part)
        order, starts = _sequence(self, epoch)
        first, last = np.searchsorted(starts, (start, stop - 1), side="right") - 1
        return order[first : last + 1].tolist()

    def _rows(self, epoch: int, places: np.ndarray) -> np.ndarray:
        """Rows of the set at places of an epoch's sequence of shards."""
        order, starts = _sequence(self, epoch)
        shards = np.searchsorted(starts, places, side="right") - 1
        return places - starts[shards] + self.shard_offsets[order[shards]]


@lru_cache(maxsize=8)
def _indices(order: _Order, epoch: int, steps: range) -> np.ndarray:
    """Indices of many steps at once cost little more than those of one."""
    indices = order.indices(epoch, steps)
    indices.flags.writeable = False
    return indices


@lru_cache(maxsize=8)
def _sequence(order: WindowOrder, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """(shards in the order of an epoch, first place of each in the sequence)."""
    shards = len(order.shard_offsets) - 1
    sequence = permute(np.arange(shards), shards, seed=order.seed, stream="shard order", part=(epoch,))
    starts = np.cumsum([0, *np.diff(order.shard_offsets)[sequence]])[:-1]
    return sequence, starts
