"""Evaluators: given a model and labelled rows of a store, they yield (metric, value), over all processes together."""

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from seitpp.finetune.answers import collect_answers
from seitpp.finetune.classifier import Classifier
from seitpp.finetune.labelled import LabelledRows
from seitpp.finetune.metrics import mean_per_class

if TYPE_CHECKING:
    from accelerate import Accelerator


Evaluator = Callable[..., Iterator[tuple[str, float]]]
"""(model, LabelledRows, *, batch_size, accelerator) to (metric, value) pairs. Called on all processes; each measures a
part, all get the same numbers."""


def evaluate_classifier(
    classifier: Classifier, labelled: LabelledRows, *, batch_size: int, accelerator: "Accelerator"
) -> Iterator[tuple[str, float]]:
    """Accuracy and cross-entropy (nats) on labelled rows, each row once, in the training's precision.

    Memory is that of a batch and a few numbers a row.

    Args:
        classifier: a Classifier in evaluation mode.
        labelled: LabelledRows.
        batch_size: rows at a time.
        accelerator: accelerate.Accelerator.
    Yields: ("accuracy", fraction), ("cross_entropy", nats); numbers that are not finite are left out.
    """
    yield from _measures(collect_answers(classifier, labelled, batch_size=batch_size, accelerator=accelerator))


def evaluate_classes(
    classifier: Classifier, labelled: LabelledRows, *, batch_size: int, accelerator: "Accelerator"
) -> Iterator[tuple[str, float]]:
    """What `evaluate_classifier` yields, and ("mean_per_class", fraction)."""
    answers = collect_answers(classifier, labelled, batch_size=batch_size, accelerator=accelerator)
    yield from _measures(answers)
    yield "mean_per_class", mean_per_class(answers)


def _measures(answers):
    losses = torch.from_numpy(answers.loss)
    # nll_loss and not mean: it sums as F.cross_entropy over all logits at once would.
    cross_entropy = F.nll_loss(-losses[:, None], torch.zeros(len(losses), dtype=torch.int64))
    for metric, value in (("accuracy", answers.right.mean()), ("cross_entropy", cross_entropy)):
        if math.isfinite(value):
            yield metric, float(value)
