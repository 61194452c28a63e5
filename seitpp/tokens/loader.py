"""Batches of a token store as a pure function of (seed, rank, world size, step): resuming is arithmetic.

No worker processes: a batch is one indexing call on memory-mapped rows, copied to the device packed (about 1 KB an
image) and unpacked there. Of a store behind a URL the next window of shards is fetched while this one is read.
"""

from dataclasses import dataclass

import numpy as np
import torch

from seitpp.tokens.codec import unpack
from seitpp.tokens.order import SampleOrder, WindowOrder


@dataclass(frozen=True)
class Batch:
    """Ids and what belongs to them, all on one device.

    Attributes:
        ids: (b, h, w) int64.
        labels: (b,) int64, -1 where unknown.
        positions: place of each sample in the whole global batch, (b,) int64: the key of its random draws.
    """

    ids: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor


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
        self, store, batch_size, *, seed, device="cpu", accum_iter=1, rank=0, world_size=1, rows=None, labels=None
    ):
        self.store = store
        self.device = torch.device(device)
        self.rows = rows
        self.labels = labels
        self._window = None
        share = {"batch_size": batch_size, "accum_iter": accum_iter, "rank": rank, "world_size": world_size}
        if store.files.window is None or rows is not None:
            self.order = SampleOrder(length=len(store) if rows is None else len(rows), seed=seed, **share)
        else:
            self.order = WindowOrder(shard_offsets=store.shard_offsets, window=store.files.window, seed=seed, **share)
            store.files.check_windows(store.manifest["shards"])

    def __len__(self):
        return self.order.length

    @property
    def steps_per_epoch(self):
        """Optimizer steps of a pass."""
        return self.order.steps_per_epoch

    def __call__(self, step, micro=0):
        """The Batch of this process for an optimizer step and micro-step."""
        if isinstance(self.order, WindowOrder):
            self._look_ahead(step)
        chosen, positions = self.order.at(step, micro)
        indices = chosen if self.rows is None else self.rows[chosen]
        labels = self.store.labels_at(indices) if self.labels is None else self.labels[indices]
        return gather(self.store, indices, labels, positions, self.device)

    def _look_ahead(self, step):
        """On entering a window, begin to fetch it and the one after it."""
        epoch, window = self.order.window_of(step)
        if (epoch, window) == self._window:
            return
        self._window = epoch, window
        last = (window + 1) * self.order.window >= self.order.part
        following = (epoch + 1, 0) if last else (epoch, window + 1)
        for each in (self._window, following):
            self.store.prefetch(self.order.shards_of(*each))


def evaluation_batches(store, batch_size, *, device="cpu", rank=0, world_size=1, rows=None, labels=None):
    """Yield every row once, in order; process `rank` of `world_size` gets every world_size-th batch.

    Args: as for TrainingBatches.
    Yields: Batch; its positions are places in `rows`.
    """
    count = len(store) if rows is None else len(rows)
    for start in range(rank * batch_size, count, batch_size * world_size):
        positions = np.arange(start, min(start + batch_size, count))
        indices = positions if rows is None else rows[positions]
        each = store.labels_at(indices) if labels is None else labels[indices]
        yield gather(store, indices, each, positions, torch.device(device))


def gather(store, indices, labels, positions, device):
    """Bring rows to a device packed and unpack them there."""
    return Batch(
        ids=unpack(_moved(store.packed(indices), device), store.codebook_size, store.grid),
        labels=_moved(labels.astype(np.int64), device),
        positions=_moved(positions, device),
    )


def _moved(array, device):
    """A tensor of an array on a device; the machine does not wait for a copy to a GPU."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
