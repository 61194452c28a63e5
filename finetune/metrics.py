"""Metrics of a classifier's answers, each a pure function of them; what a run reports is one list.

Another kind of labels brings answers of its own and another list, as `SINGLE_LABEL` is that of one label a row.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from seitpp.finetune.answers import Answers

CALIBRATION_BINS = 15
RESAMPLES = 10_000


def accuracy(answers: Answers) -> float:
    """Fraction of right answers (top-1)."""
    return float(answers.right.mean())


def top5(answers: Answers) -> float:
    """Fraction of rows whose true class is among the five most likely; of fewer classes, among all."""
    return float((answers.rank < 5).mean())


def mean_per_class(answers: Answers) -> float:
    """Mean over the classes that have rows of the fraction of right answers in each."""
    rows = np.bincount(answers.targets, minlength=answers.classes)
    right = np.bincount(answers.targets[answers.right], minlength=answers.classes)
    return float((right[rows > 0] / rows[rows > 0]).mean())


def cross_entropy(answers: Answers) -> float:
    """Mean cross-entropy in nats."""
    return float(answers.loss.astype(np.float64).mean())


def calibration_error(answers: Answers) -> float:
    """Expected calibration error: how far confidence and accuracy lie apart, mean over equally wide bins, by rows.

    Source: Guo et al. 2017 (arXiv 1706.04599), with 15 bins.
    """
    from torchmetrics.functional.classification import binary_calibration_error  # seconds to import

    confidence = torch.from_numpy(answers.confidence).clamp(0, 1)  # a softmax may round to above 1
    right = torch.from_numpy(answers.right.astype(np.int64))
    # Whether the answer is right is the binary label whose probability the confidence is.
    return float(binary_calibration_error(confidence, right, n_bins=CALIBRATION_BINS, norm="l1"))


def accuracy_interval(answers: Answers, seed: int, *, coverage: float = 0.95) -> tuple[float, float]:
    """Bootstrap interval of the accuracy, by percentiles: what other samples of as many images might have measured.

    Rows drawn with replacement hold a binomial number of right ones, so that number is drawn, and no rows are.

    Args:
        answers: Answers.
        seed: of the resamples.
        coverage: of the interval.
    Returns: (lower end, upper end).
    """
    draws = np.random.default_rng(seed).binomial(len(answers), answers.right.mean(), size=RESAMPLES) / len(answers)
    low, high = np.quantile(draws, [(1 - coverage) / 2, (1 + coverage) / 2])
    return float(low), float(high)


SINGLE_LABEL: dict[str, Callable[[Answers], float]] = {
    "accuracy": accuracy,
    "top5": top5,
    "mean_per_class": mean_per_class,
    "cross_entropy": cross_entropy,
    "ece": calibration_error,
}
"""Metrics of rows with one label each, by their names in results."""


def measures(answers: Answers, seed: int) -> Iterator[tuple[str, float]]:
    """All metrics of rows with one label each.

    Args:
        answers: Answers.
        seed: of the bootstrap.
    Yields: (name in results, value).
    """
    for name, metric in SINGLE_LABEL.items():
        yield name, metric(answers)
    yield from zip(("accuracy_low", "accuracy_high"), accuracy_interval(answers, seed), strict=True)


@dataclass(frozen=True, eq=False)
class Confusion:
    """How often each class was answered for each, without the pairs that never occur: memory is bounded by the rows.

    Attributes:
        targets: true classes of the pairs, (pairs,) int64, sorted.
        predicted: answers of the pairs, (pairs,) int64; sorted within a true class.
        counts: rows of each pair, (pairs,) int64, above 0.
        classes: how many there are.
    """

    targets: np.ndarray
    predicted: np.ndarray
    counts: np.ndarray
    classes: int

    def matrix(self) -> np.ndarray:
        """Rows by true class and answer, (classes, classes) int64; for few classes."""
        matrix = np.zeros((self.classes, self.classes), np.int64)
        matrix[self.targets, self.predicted] = self.counts
        return matrix


def confusion(answers: Answers) -> Confusion:
    """The pairs of true class and answer, and how often each occurs."""
    pairs, counts = np.unique(answers.targets * answers.classes + answers.predicted, return_counts=True)
    return Confusion(pairs // answers.classes, pairs % answers.classes, counts, answers.classes)


def worst_mistakes(answers: Answers, count: int) -> np.ndarray:
    """Places of the wrong answers of the highest loss, the worst first, (at most count,) int64."""
    wrong = np.flatnonzero(~answers.right)
    return wrong[np.argsort(-answers.loss[wrong], kind="stable")][:count]
