"""Evaluators: given a model and labelled rows of a store, they yield (metric, value), over all processes together."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from seitpp.finetune.answers import Answers, collect_answers
from seitpp.finetune.classifier import Classifier
from seitpp.finetune.labelled import LabelledRows

if TYPE_CHECKING:
    from accelerate import Accelerator


Evaluator = Callable[..., Iterator[tuple[str, float]]]
"""(model, LabelledRows, *, batch_size, accelerator) to (metric, value) pairs. Called on all processes; each measures a
part, all get the same numbers."""


def evaluate_classifier(
    classifier: Classifier, labelled: LabelledRows, *, batch_size: int, accelerator: "Accelerator",
    classes: Sequence[int] | None = None,
) -> Iterator[tuple[str, float]]:  # fmt: skip
    """Accuracy and cross-entropy (nats) on labelled rows, each row once, in the training's precision.

    Memory is that of a batch and a few numbers a row.

    Args:
        classifier: a Classifier in evaluation mode.
        labelled: LabelledRows.
        batch_size: rows at a time.
        accelerator: accelerate.Accelerator.
        classes: places of the classes that may be answered, as ImageNet-A's 200 of 1,000; None: all.
    Yields: see `measures_of`.
    """
    yield from measures_of(
        collect_answers(classifier, labelled, batch_size=batch_size, accelerator=accelerator, classes=classes)
    )


def measures_of(answers: Answers) -> Iterator[tuple[str, float]]:
    """What a training and every benchmark report of answers.

    Yields: ("accuracy", fraction), ("cross_entropy", nats); numbers that are not finite are left out.
    """
    losses = torch.from_numpy(answers.loss)
    # nll_loss and not mean: it sums as F.cross_entropy over all logits at once would.
    cross_entropy = F.nll_loss(-losses[:, None], torch.zeros(len(losses), dtype=torch.int64))
    for metric, value in (("accuracy", answers.right.mean()), ("cross_entropy", cross_entropy)):
        if math.isfinite(value):
            yield metric, float(value)
