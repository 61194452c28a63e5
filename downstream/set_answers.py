"""What a classifier reaches on one set of images: every set is judged here, whatever its labels are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from seitpp.downstream.imagenet.known import Truths
from seitpp.finetune.answers import Answers, collect_answers
from seitpp.finetune.classifier import Classifier, read_classifier
from seitpp.finetune.evaluate import measures_of
from seitpp.finetune.labelled import LabelledRows
from seitpp.finetune.trained import TrainedClassifier
from seitpp.tokens.store import TokenStore

if TYPE_CHECKING:
    from accelerate import Accelerator

HELD_BYTES = 1 << 30
"""Weights that are held at once, at most; but for a single classifier."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a classifier reaches on a set.

    Attributes:
        measures: (metric, value) pairs.
        images: how many were measured.
    """

    measures: list[tuple[str, float]]
    images: int


def judge(answers: Answers, keys: Sequence[str], truths: Truths | None) -> Judged:
    """Judge answers, by one label a row or by several.

    Args:
        answers: Answers.
        keys: of the rows.
        truths: gives the true classes of a row by its key; rows of none are left out. None: the rows' labels.
    Returns: accuracy and, of one label a row, cross-entropy.
    """
    if truths is None:
        return Judged(measures=list(measures_of(answers)), images=len(answers))
    labels = [truths(key) for key in keys]
    right = [answer in some for answer, some in zip(answers.predicted.tolist(), labels, strict=True) if some]
    return Judged(measures=[("accuracy", float(np.mean(right)))] if right else [], images=len(right))


class HeldClassifiers:
    """Reads classifiers when they are asked for, and keeps those that fit.

    Args:
        accelerator: accelerate.Accelerator.
        limit: bytes of weights that are kept.
    """

    def __init__(self, accelerator: "Accelerator", limit: int = HELD_BYTES):
        self.device, self.limit = accelerator.device, limit
        self.held: dict[str, Classifier] = {}
        self.bytes = 0

    def __call__(self, trained: TrainedClassifier) -> Classifier:
        """The classifier, in evaluation mode on the accelerator's device."""
        name = str(trained.folder)
        if name in self.held:
            return self.held[name]
        classifier = read_classifier(trained.folder, self.device)
        size = sum(each.numel() * each.element_size() for each in classifier.parameters())
        if self.bytes + size <= self.limit:
            self.held[name] = classifier
            self.bytes += size
        return classifier


def answers_of_stores(
    classifier: Classifier, stores: Sequence[tuple[TokenStore, tuple[int, ...] | None]], *, batch_size: int,
    accelerator: "Accelerator",
) -> Iterator[Answers]:  # fmt: skip
    """Classify stores one after the other, over all processes; one that comes twice in a row is classified once.

    Args:
        classifier: a Classifier in evaluation mode.
        stores: (the store, places of the classes that may be answered or None for all) each.
        batch_size: rows at a time.
        accelerator: accelerate.Accelerator.
    Yields: the Answers to all rows of each.
    """
    last, answers = None, None
    for store, classes in stores:
        if answers is None or last != (store.folder, classes):
            rows = LabelledRows(store, np.arange(len(store)), store.labels.astype(np.int64), list(store.classes))
            answers = collect_answers(
                classifier, rows, batch_size=batch_size, accelerator=accelerator, classes=classes
            )  # fmt: skip
            last = (store.folder, classes)
        yield answers
