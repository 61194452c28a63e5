"""Part of the labels of a training set, class by class: what is left to learn from where labels are dear."""

import numpy as np

from seitpp.finetune.labelled import LabelledRows, rows_by_class
from seitpp.tokens.order.permutation import permute


def label_fraction(labelled: LabelledRows, fraction: float, *, seed: int) -> LabelledRows:
    """A fraction of every class's rows, at least one; of a seed, a smaller part lies within a larger one."""
    return _part(labelled, lambda count: max(1, round(fraction * count)), seed)


def labels_per_class(labelled: LabelledRows, count: int, *, seed: int) -> LabelledRows:
    """So many rows of every class, or all that it has; likewise."""
    return _part(labelled, lambda _: count, seed)


def _part(labelled, wanted, seed):
    chosen = []
    for label, rows in rows_by_class(labelled):
        order = permute(np.arange(len(rows)), len(rows), seed=seed, stream="few labels", part=(label,))
        chosen.append(rows[order[: wanted(len(rows))]])
    return labelled.part(np.sort(np.concatenate(chosen)))
