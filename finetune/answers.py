"""What a classifier answers to labelled rows: a few numbers a row, of which all metrics are made."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seitpp.finetune.classifier import Classifier
from seitpp.finetune.labelled import LabelledRows
from seitpp.runtime.progress import Progress
from seitpp.tokens.loader import evaluation_batches
from seitpp.tokens.views import centre

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers to n rows with one label each, in the order of the rows, on the CPU.

    Attributes:
        targets: the true class, (n,) int64.
        predicted: the most likely class, (n,) int64.
        confidence: its probability, (n,) float64.
        rank: how many classes are more likely than the true one, (n,) int64; 0: the answer is right.
        loss: cross-entropy in nats, (n,) float32.
        classes: how many there are.
    """

    targets: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    rank: np.ndarray
    loss: np.ndarray
    classes: int

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def right(self) -> np.ndarray:
        """Whether the most likely class is the true one, (n,) bool."""
        return self.rank == 0


@torch.no_grad()
def collect_answers(
    classifier: Classifier, labelled: LabelledRows, *, batch_size: int, accelerator: "Accelerator",
    classes: Sequence[int] | None = None, progress: Progress | None = None,
) -> Answers:  # fmt: skip
    """Have all processes classify labelled rows together, each row once, in the accelerator's precision.

    Memory is that of a batch and five numbers a row.

    Args:
        classifier: a Classifier in evaluation mode.
        labelled: LabelledRows.
        batch_size: rows at a time.
        accelerator: accelerate.Accelerator.
        classes: places of the classes that may be answered, the rows' own among them; None: all.
        progress: shows how many rows are done, all processes taken to be equally fast.
    Returns: the same Answers on every process.
    """
    batches = evaluation_batches(
        labelled.store, batch_size, device=accelerator.device, rank=accelerator.process_index,
        world_size=accelerator.num_processes, rows=labelled.rows, labels=labelled.labels,
    )  # fmt: skip
    views = ((centre(batch.ids, classifier.encoder.view), batch.labels, batch.positions) for batch in batches)
    return answers_to(classifier, views, labelled.targets, accelerator=accelerator, progress=progress, classes=classes)


@torch.no_grad()
def answers_to(
    classifier: Classifier, views: Iterable[tuple[Tensor, Tensor, Tensor]], targets: np.ndarray, *,
    accelerator: "Accelerator", progress: Progress | None = None, classes: Sequence[int] | None = None,
) -> Answers:  # fmt: skip
    """Have all processes classify views together, each its own part of them.

    Args:
        classifier: a Classifier in evaluation mode.
        views: (what it reads, labels (b,) int64, places in `targets` (b,) int64) of each batch of this process.
        targets: the true class of all, (n,) int64.
        accelerator: accelerate.Accelerator.
        progress: shows how many are done.
        classes: places of the classes that may be answered; None: all.
    Returns: the same Answers on every process.
    """
    device, count = accelerator.device, len(targets)
    predicted, rank = (torch.zeros(count, dtype=torch.int64, device=device) for _ in range(2))
    confidence, loss = (torch.zeros(count, device=device) for _ in range(2))
    mask = None if classes is None else mask_of(classes, classifier.described["classes"]).to(device)
    for inputs, labels, positions in views:
        with accelerator.autocast():
            logits = classifier(inputs).float()
        if mask is not None:
            logits = logits + mask
        predicted[positions] = best = logits.argmax(1)
        confidence[positions] = logits.softmax(1).gather(1, best[:, None])[:, 0]
        rank[positions] = _ranks(logits, labels, best)
        loss[positions] = F.cross_entropy(logits, labels, reduction="none")
        if progress is not None:
            progress.update(min(count, int(positions[-1]) + 1))
    parts = (predicted, rank, confidence, loss)
    if accelerator.num_processes > 1:  # a row is classified by one process: the others add zeros
        parts = [accelerator.reduce(part) for part in parts]
    predicted, rank, confidence, loss = (part.cpu().numpy() for part in parts)
    return Answers(
        targets=targets, predicted=predicted, confidence=confidence.astype(np.float64), rank=rank, loss=loss,
        classes=classifier.described["classes"],
    )  # fmt: skip


def mask_of(classes: Sequence[int], count: int) -> Tensor:
    """What is added to logits so that no class but some is answered: 0 at their places, minus infinity elsewhere.

    Args:
        classes: places of the classes.
        count: how many classes there are.
    Returns: (count,) float32.
    """
    mask = torch.full((count,), -torch.inf)
    mask[list(classes)] = 0
    return mask


def _ranks(logits: Tensor, labels: Tensor, best: Tensor) -> Tensor:
    """How many classes are more likely than the true one; at least one where it is not the answer, as in a tie."""
    more = (logits > logits.gather(1, labels[:, None])).sum(1)
    return torch.where(best == labels, 0, more.clamp(min=1))
