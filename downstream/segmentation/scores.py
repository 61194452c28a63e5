"""The measures of semantic segmentation, all of one confusion matrix over the pixels of a data set."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from seitpp.downstream.segmentation.windows import IGNORE
from seitpp.runtime.files import replacing

MEASURES = ("miou", "pixel_accuracy", "mean_class_accuracy")


@dataclass(frozen=True, eq=False)
class Confusion:
    """Pixels of a data set by true class and answer.

    Attributes:
        counts: (k, k) int64: row the true class, column the answer; ignored pixels are in none.
    """

    counts: np.ndarray

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union of each class, (k,) float64; NaN for one that is neither there nor answered."""
        right = np.diag(self.counts).astype(np.float64)
        return _divided(right, self.counts.sum(axis=0) + self.counts.sum(axis=1) - right)

    @property
    def accuracy(self) -> np.ndarray:
        """Share of each class's pixels that are right, (k,) float64; NaN for one that is not there."""
        return _divided(np.diag(self.counts).astype(np.float64), self.counts.sum(axis=1))

    def measures(self) -> dict[str, float]:
        """Measures, fractions: {"miou", "pixel_accuracy", "mean_class_accuracy"}; means over the classes that count.

        mIoU is what torchmetrics' MulticlassJaccardIndex is on all pixels at once.
        """
        total = self.counts.sum()
        return {
            "miou": _mean(self.iou),
            "pixel_accuracy": float(np.trace(self.counts) / total) if total else 0.0,
            "mean_class_accuracy": _mean(self.accuracy),
        }


def count_pixels(truth: np.ndarray, answer: np.ndarray, classes: int) -> np.ndarray:
    """(classes, classes) int64 of two label maps of one shape: row the true class; pixels of truth IGNORE are left out.

    Raises: ValueError if the maps differ in shape.
    """
    if truth.shape != answer.shape:
        raise ValueError(f"truth is of {truth.shape} pixels, the answer of {answer.shape}")
    known = truth != IGNORE
    pairs = truth[known].astype(np.int64) * classes + answer[known]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def write_per_class(path: str | Path, confusion: Confusion, names: list[str]) -> None:
    """Write one row a class: class, iou and accuracy (fractions, empty without pixels), pixels, answered_pixels."""
    table = pd.DataFrame(
        {
            "class": names,
            "iou": confusion.iou,
            "accuracy": confusion.accuracy,
            "pixels": confusion.counts.sum(axis=1),
            "answered_pixels": confusion.counts.sum(axis=0),
        }
    )
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False)


def _divided(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else 0.0
