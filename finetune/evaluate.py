"""Evaluators: given a model and labelled rows of a store, they yield (metric, value), over all processes together."""

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from seitpp.finetune.classifier import Classifier
from seitpp.finetune.labelled import LabelledRows
from seitpp.tokens.loader import evaluation_batches
from seitpp.tokens.views import centre

if TYPE_CHECKING:
    from accelerate import Accelerator


Evaluator = Callable[..., Iterator[tuple[str, float]]]
"""(model, LabelledRows, *, batch_size, accelerator) to (metric, value) pairs. Called on all processes; each measures a
part, all get the same numbers."""


@torch.no_grad()
def evaluate_classifier(
    classifier: Classifier, labelled: LabelledRows, *, batch_size: int, accelerator: "Accelerator"
) -> Iterator[tuple[str, float]]:
    """Accuracy and cross-entropy (nats) on labelled rows, each row once, in the training's precision.

    Memory is that of a batch and two numbers a row.

    Args:
        classifier: a Classifier in evaluation mode.
        labelled: LabelledRows.
        batch_size: rows at a time.
        accelerator: accelerate.Accelerator.
    Yields: ("accuracy", fraction), ("cross_entropy", nats); numbers that are not finite are left out.
    """
    device = accelerator.device
    right, losses = (torch.zeros(len(labelled.rows), device=device) for _ in range(2))
    for batch in evaluation_batches(
        labelled.store, batch_size, device=device, rank=accelerator.process_index,
        world_size=accelerator.num_processes, rows=labelled.rows, labels=labelled.labels,
    ):  # fmt: skip
        with accelerator.autocast():
            logits = classifier(centre(batch.ids, classifier.encoder.view)).float()
        right[batch.positions] = (logits.argmax(1) == batch.labels).float()
        losses[batch.positions] = F.cross_entropy(logits, batch.labels, reduction="none")
    if accelerator.num_processes > 1:  # a row is measured by one process: the others add zeros
        right, losses = accelerator.reduce(right), accelerator.reduce(losses)
    # nll_loss and not mean: it sums as F.cross_entropy over all logits at once would.
    cross_entropy = F.nll_loss(-losses[:, None], torch.zeros(len(losses), dtype=torch.int64, device=device))
    for metric, value in (("accuracy", right.double().mean()), ("cross_entropy", cross_entropy)):
        if math.isfinite(value):
            yield metric, float(value)
