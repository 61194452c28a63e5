"""Batches of windows with their label maps, the next of which is read while a step runs.

Tokens of a batch are read in a moment, but a label map is a PNG, which takes a millisecond to restore.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from torch import Tensor

from seitpp.downstream.segmentation.windows import SegmentationRows
from seitpp.tokens.loader import TrainingBatches
from seitpp.tokens.to_device import moved


@dataclass(frozen=True, eq=False)
class WindowBatch:
    """Windows, all on one device.

    Attributes:
        ids: (b, h, w) int64.
        masks: label maps, (b, H, W) uint8.
        positions: place of each sample in the whole global batch, (b,) int64: the key of its random draws.
    """

    ids: Tensor
    masks: Tensor
    positions: Tensor


class WindowBatches:
    """Training batches as a pure function of (step, micro-step); the one after is read ahead by a thread.

    All reading is done by that one thread, so the store needs to be safe for one at a time only.

    Args:
        rows: SegmentationRows; the store in it should not be read by others meanwhile.
        make: makes the TrainingBatches of the store.
        accum_iter: micro-steps of a step.
    """

    def __init__(self, rows: SegmentationRows, make: Callable[..., TrainingBatches], *, accum_iter: int):
        self.rows, self.accum_iter = rows, accum_iter
        self.batches = make(rows.store, labels=_Rows())
        self.reader = ThreadPoolExecutor(1, "label maps")
        self.ahead: tuple[tuple[int, int], Future[WindowBatch]] | None = None

    def __call__(self, step: int, micro: int = 0) -> WindowBatch:
        """The batch of this process."""
        if self.ahead is None or self.ahead[0] != (step, micro):
            self.ahead = (step, micro), self.reader.submit(self._read, step, micro)
        batch = self.ahead[1].result()
        following = (step, micro + 1) if micro + 1 < self.accum_iter else (step + 1, 0)
        self.ahead = following, self.reader.submit(self._read, *following)
        return batch

    def _read(self, step: int, micro: int) -> WindowBatch:
        batch = self.batches(step, micro)
        masks = self.rows.masks(batch.read_labels())
        return WindowBatch(ids=batch.ids, masks=moved(masks, batch.ids.device), positions=batch.positions)


class _Rows:
    """Stands for labels: that of a row is its number."""

    def __getitem__(self, rows):
        return rows
