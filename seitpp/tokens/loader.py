"""Batches of a token store as a pure function of (seed, rank, world size, step): resuming is arithmetic.

No worker processes: a batch is one indexing call on memory-mapped rows, copied to the device packed (about 1 KB an
image) and unpacked there. Of a store behind a URL the next window of shards is fetched while this one is read.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch

from seitpp.tokens.order.sample_order import SampleOrder, WindowOrder
from seitpp.tokens.store import TokenStore
from seitpp.tokens.to_device import moved


@dataclass(frozen=True, eq=False)
class Batch:
    """Ids and what belongs to them, all on one device.

    Attributes:
        ids: (b, h, w) int64.
        positions: place of each sample in the whole global batch, (b,) int64: the key of its random draws.
        read_labels: gives the labels of these rows, (b,) integers; called when `labels` is first asked for.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    read_labels: Callable[[], np.ndarray]

    @cached_property
    def labels(self) -> torch.Tensor:
        """(b,) int64, -1 where unknown, on the device of `ids`; pre-training never asks, so never reads them."""
        return moved(torch.from_numpy(self.read_labels().astype(np.int64)), self.ids.device)


class TrainingBatches:
    """Shuffled batches without end; the last incomplete global batch of an epoch is dropped.

    Args:
        store: a TokenStore.
        batch_size: samples of one process and micro-step.
        seed: of the order.
        device: where batches go.
        accum_iter: micro-steps of an optimizer step.
        rank: this process.
        world_size: number of processes.
        rows: indices to use, (n,) integers; None: all of the store.
        labels: (rows of the store,) labels instead of the store's own.
    """

    def __init__(
        self,
        store: TokenStore,
        batch_size: int,
        *,
        seed: int,
        device: str | torch.device = "cpu",
        accum_iter: int = 1,
        rank: int = 0,
        world_size: int = 1,
        rows: np.ndarray | None = None,
        labels: np.ndarray | None = None,
    ) -> None:
        self.store = store
        self.device = torch.device(device)
        self.rows = rows
        self.labels = labels
        self._window: tuple[int, int] | None = None
        share = {"batch_size": batch_size, "accum_iter": accum_iter, "rank": rank, "world_size": world_size}
        self.order: SampleOrder | WindowOrder
        if store.files.window is None or rows is not None:
            self.order = SampleOrder(length=len(store) if rows is None else len(rows), seed=seed, **share)
        else:
            self.order = WindowOrder(shard_offsets=store.shard_offsets, window=store.files.window, seed=seed, **share)
            store.files.check_windows(store.manifest["shards"])

    def __len__(self) -> int:
        return self.order.length

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of a pass."""
        return self.order.steps_per_epoch

    def __call__(self, step: int, micro: int = 0) -> Batch:
        """The Batch of this process for an optimizer step and micro-step."""
        if isinstance(self.order, WindowOrder):
            self._look_ahead(self.order, step)
        chosen, positions = self.order.at(step, micro)
        indices = chosen if self.rows is None else self.rows[chosen]
        return gather(self.store, indices, self.labels, positions, self.device)

    def _look_ahead(self, order: WindowOrder, step: int) -> None:
        """On entering a window, begin to fetch it and the one after it."""
        epoch, window = order.window_of(step)
        if (epoch, window) == self._window:
            return
        self._window = epoch, window
        last = (window + 1) * order.window >= order.part
        following = (epoch + 1, 0) if last else (epoch, window + 1)
        for each in (self._window, following):
            self.store.prefetch(order.shards_of(*each))


def evaluation_batches(
    store: TokenStore,
    batch_size: int,
    *,
    device: str | torch.device = "cpu",
    rank: int = 0,
    world_size: int = 1,
    rows: np.ndarray | None = None,
    labels: np.ndarray | None = None,
) -> Iterator[Batch]:
    """Yield every row once, in order; process `rank` of `world_size` gets every world_size-th batch.

    Args: as for TrainingBatches.
    Yields: Batch; its positions are places in `rows`.
    """
    count = len(store) if rows is None else len(rows)
    for start in range(rank * batch_size, count, batch_size * world_size):
        positions = np.arange(start, min(start + batch_size, count))
        indices = positions if rows is None else rows[positions]
        yield gather(store, indices, labels, positions, torch.device(device))


def gather(
    store: TokenStore, indices: np.ndarray, labels: np.ndarray | None, positions: np.ndarray, device: torch.device
) -> Batch:
    """Bring rows to a device, packed ones to be unpacked there; their labels, when they are asked for.

    Args:
        store: a TokenStore.
        indices: rows, (b,) int64.
        labels: (rows of the store,) labels instead of the store's own; None: those.
        positions: places in the global batch, (b,) int64.
        device: where the batch goes.
    """
    return Batch(
        ids=store.ids(indices, device),
        positions=moved(torch.from_numpy(positions), device),
        read_labels=partial(store.labels_at, indices) if labels is None else partial(labels.__getitem__, indices),
    )


class TokenLoader:
    """A store's batches as something to iterate over: what trains here, for loops of one's own.

        for batch in TokenLoader(store, 256, device="cuda"):
            loss = model(batch.ids, batch.labels)

    Shuffled, a pass is that of TrainingBatches: a function of (seed, pass), divided among processes, and each further
    iteration is the next pass. In order (`shuffle=False`), every row comes once, the last batch may be smaller, and
    process `rank` of `world_size` gets every world_size-th batch. No worker processes; rows go to the device packed.

    Args:
        store: a TokenStore.
        batch_size: rows of a batch.
        shuffle: in an order drawn anew for each pass, without what fills no whole batch of all processes.
        seed: of the order.
        device: where batches go.
        rank: this process.
        world_size: number of processes.
        labels: (rows,) labels instead of the store's own.
    Raises: ValueError if a shuffled pass has not even one batch.

    Attributes:
        epoch: the pass that the next iteration makes; set it to resume.
    """

    def __init__(
        self,
        store: TokenStore,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        device: str | torch.device = "cpu",
        rank: int = 0,
        world_size: int = 1,
        labels: np.ndarray | None = None,
    ) -> None:
        self.store, self.batch_size, self.shuffle = store, batch_size, shuffle
        self.share = {"device": device, "rank": rank, "world_size": world_size, "labels": labels}
        self.batches = TrainingBatches(store, batch_size, seed=seed, **self.share) if shuffle else None
        self.epoch = 0
        if self.batches is not None and not len(self):
            raise ValueError(f"{len(store)} rows are fewer than a batch of {batch_size} x {world_size} processes")

    def __len__(self) -> int:
        """Batches of a pass, of this process."""
        if self.batches is not None:
            return self.batches.steps_per_epoch
        every = -(-len(self.store) // self.batch_size)
        return len(range(self.share["rank"], every, self.share["world_size"]))

    def __iter__(self) -> Iterator[Batch]:
        if self.batches is None:
            yield from evaluation_batches(self.store, self.batch_size, **self.share)
            return
        first, self.epoch = self.epoch * len(self), self.epoch + 1
        for step in range(first, first + len(self)):
            yield self.batches(step)
