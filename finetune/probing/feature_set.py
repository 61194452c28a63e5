"""Features of labelled rows, of which only a chunk at a time is in memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seitpp.finetune.labelled import LabelledRows
from seitpp.tokens.order.sample_order import SampleOrder

Device = torch.device | str
Examples = tuple[Tensor, Tensor]
"""(features, targets) of a batch: (b, …) float and (b,) int64, or (b, classes) where labels are mixed."""


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Features of a store and the rows of it that count.

    Attributes:
        features: (rows of the store, …), usually memory-mapped.
        labelled: LabelledRows of that store.
    """

    features: np.ndarray
    labelled: LabelledRows

    def __len__(self) -> int:
        return len(self.labelled.rows)

    def part(self, labelled: LabelledRows) -> "FeatureSet":
        """The same features for other rows."""
        return replace(self, labelled=labelled)

    def read(self, places: np.ndarray) -> np.ndarray:
        """A copy of the features at places in the labelled rows, (b, …) in the file's type."""
        rows = self.labelled.rows[places]
        if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
            return np.array(self.features[rows[0] : rows[-1] + 1])  # neighbours: one copy, no table of indices
        return np.array(self.features[rows])

    def whole(self) -> tuple[np.ndarray, np.ndarray]:
        """All of it in memory, for small sets: ((n, …) float32, (n,) int64)."""
        return self.read(np.arange(len(self))).astype(np.float32), self.labelled.targets

    def examples(self, places: np.ndarray, device: Device) -> Examples:
        """Features, float32, and labels at places in the labelled rows, on a device."""
        targets = self.labelled.labels[self.labelled.rows[places]]
        return torch.from_numpy(self.read(places)).to(device).float(), torch.from_numpy(targets).to(device)

    def chunks(self, size: int, *, device: Device = "cpu", rank: int = 0, world_size: int = 1) -> Iterator[Examples]:
        """Every row once, in order; process `rank` of `world_size` gets every world_size-th chunk."""
        for start in range(rank * size, len(self), size * world_size):
            yield self.examples(np.arange(start, min(start + size, len(self))), device)

    def training(self, layout: dict[str, Any]) -> Callable[[int, int], Examples]:
        """Shuffled batches for `fit`, a function of (step, micro-step).

        Args:
            layout: what `seitpp.training.fit.batch_layout` gives.
        """
        device = layout["device"]
        order = SampleOrder(length=len(self), **{name: value for name, value in layout.items() if name != "device"})
        return lambda step, micro: self.examples(order.at(step, micro)[0], device)

    def moments(self, size: int = 8192) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of every feature, (…) float32 each; of a constant one the deviation is 1."""
        total = torch.zeros(self.features.shape[1:], dtype=torch.float64)
        squares = total.clone()
        origin = self.examples(np.arange(min(1, len(self))), "cpu")[0].double().sum(0)  # near the mean: no cancelling
        for features, _ in self.chunks(size):
            centred = features.double() - origin
            total += centred.sum(0)
            squares += centred.square().sum(0)
        mean = total / len(self)
        deviation = (squares / len(self) - mean.square()).clamp_min(0).sqrt()
        negligible = deviation <= 1e-6 * (mean + origin).abs() + 1e-12
        return (mean + origin).float(), torch.where(negligible, 1.0, deviation).float()
