"""Rows that have several labels at once: their targets, and how well a classifier finds them."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from seitpp.tokens.loader import evaluation_batches
from seitpp.tokens.store import TokenStore
from seitpp.tokens.views import centre

if TYPE_CHECKING:
    from accelerate import Accelerator

    from seitpp.finetune.classifier import Classifier
    from seitpp.finetune.labelled import LabelledRows

_BLOCK = 1 << 16


class MultiHot:
    """The labels of a store whose rows may have several, read when they are asked for.

        targets = MultiHot(store, classes)[rows]        # (b, classes) int64: 1 for each class that a row has

    Args:
        store: a TokenStore, with the column `labels` where there is no table.
        classes: how many.
        lists: labels of each of its rows from a table, None where nobody annotated it; None: the store's own.
    """

    def __init__(self, store: TokenStore, classes: int, lists: Sequence[np.ndarray | None] | None = None) -> None:
        self.store, self.classes, self.lists = store, classes, lists

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Targets of some rows; those that nobody annotated have none."""
        lists = self.lists_at(rows)
        targets = np.zeros((len(lists), self.classes), np.int64)
        for target, numbers in zip(targets, lists, strict=True):
            target[[] if numbers is None else numbers] = 1
        return targets

    def lists_at(self, rows: np.ndarray) -> Sequence[np.ndarray | None]:
        """The labels of some rows; None for those that nobody annotated."""
        return self.store.label_lists_at(rows) if self.lists is None else [self.lists[row] for row in rows]

    def annotated(self) -> np.ndarray:
        """Rows that somebody annotated, be it with no class at all, (n,) int64."""
        blocks = range(0, len(self.store), _BLOCK)
        known = [self.lists_at(np.arange(start, min(start + _BLOCK, len(self.store)))) for start in blocks]
        return np.flatnonzero([each is not None for block in known for each in block])

    def identity(self) -> bytes:
        """What tells a table's labels from others; the store's own are told by its fingerprint."""
        if self.lists is None:
            return b"several"
        return "\n".join("-" if each is None else ",".join(map(str, each.tolist())) for each in self.lists).encode()


@torch.no_grad()
def evaluate_multi_label(
    classifier: "Classifier", labelled: "LabelledRows", *, batch_size: int, accelerator: "Accelerator"
) -> Iterator[tuple[str, float]]:
    """Mean average precision over classes, and binary cross-entropy (nats), on rows with several labels.

    A class without a single row is left out. Memory is that of a batch and of two numbers a row and class.

    Args:
        classifier: a Classifier in evaluation mode.
        labelled: LabelledRows whose labels are a MultiHot.
        batch_size: rows at a time.
        accelerator: accelerate.Accelerator.
    Yields: ("mean_average_precision", fraction), ("binary_cross_entropy", nats).
    """
    from sklearn.metrics import average_precision_score

    device, shape = accelerator.device, (len(labelled.rows), len(labelled.classes))
    logits, targets = torch.zeros(shape, device=device), torch.zeros(shape, device=device)
    for batch in evaluation_batches(
        labelled.store, batch_size, device=device, rank=accelerator.process_index,
        world_size=accelerator.num_processes, rows=labelled.rows, labels=labelled.labels,
    ):  # fmt: skip
        with accelerator.autocast():
            logits[batch.positions] = classifier(centre(batch.ids, classifier.encoder.view)).float()
        targets[batch.positions] = batch.labels.float()
    if accelerator.num_processes > 1:  # a row is measured by one process: the others add zeros
        logits, targets = accelerator.reduce(logits), accelerator.reduce(targets)
    found = targets.any(dim=0)
    if found.any():
        scores, truth = logits[:, found].cpu().numpy(), targets[:, found].cpu().numpy()
        each = [average_precision_score(truth[:, column], scores[:, column]) for column in range(scores.shape[1])]
        yield "mean_average_precision", float(np.mean(each))
    yield "binary_cross_entropy", float(F.binary_cross_entropy_with_logits(logits, targets))
