"""Which rows a pass over a training set takes."""

from typing import Literal

import numpy as np

from seitpp.finetune.labelled import LabelledRows
from seitpp.tokens.order.permutation import permute

Sampling = Literal["uniform", "class_balanced"]
"""uniform: each row once a pass; class_balanced: rows of rare classes come several times, so that every class has as
many as the commonest, and a pass is longer."""


def rows_of_a_pass(labelled: LabelledRows, sampling: Sampling, *, seed: int) -> np.ndarray:
    """Rows to draw from, (n,) int64; with class_balanced, those of rare classes are repeated.

    Where a class has not enough rows to come out even, the seed says which of them come once more.

    Args:
        labelled: LabelledRows.
        sampling: how.
        seed: of the choice.
    """
    if sampling == "uniform":
        return labelled.rows
    targets = labelled.targets
    most, parts = np.bincount(targets).max(), []
    for label in np.unique(targets):
        rows = labelled.rows[targets == label]
        order = permute(np.arange(len(rows)), len(rows), seed=seed, stream="class balance", part=(int(label),))
        parts.append(np.resize(rows[order], most))
    return np.concatenate(parts)
