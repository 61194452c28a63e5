"""Losses of a classifier against slow sums, and which rows a pass takes."""

import math

import numpy as np
import pytest
import torch

from seitpp.finetune.labelled import LabelledRows
from seitpp.finetune.objective import loss_of
from seitpp.finetune.sampling import rows_of_a_pass

LOGITS = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]])


def soft(shares, smoothing):
    """Targets that a fraction of is spread over all classes."""
    return [[(1 - smoothing) * share + smoothing / len(row) for share in row] for row in shares]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize(
    ("targets", "shares"),
    [
        (torch.tensor([2, 1]), [[0, 0, 1], [0, 1, 0]]),
        (torch.tensor([[0.25, 0.0, 0.75], [1.0, 0.0, 0.0]]), [[0.25, 0, 0.75], [1, 0, 0]]),
    ],
)
def test_losses_are_these_sums(targets, shares, smoothing):
    wanted = soft(shares, smoothing)
    entropy = binary = 0.0
    for row, target in zip(LOGITS.tolist(), wanted, strict=True):
        total = sum(math.exp(each) for each in row)
        entropy -= sum(share * math.log(math.exp(each) / total) for each, share in zip(row, target, strict=True)) / 2
        for each, share in zip(row, target, strict=True):
            chance = 1 / (1 + math.exp(-each))
            binary -= (share * math.log(chance) + (1 - share) * math.log(1 - chance)) / 6
    assert loss_of("cross_entropy", LOGITS, targets, smoothing=smoothing).item() == pytest.approx(entropy, rel=1e-5)
    assert loss_of("binary", LOGITS, targets, smoothing=smoothing).item() == pytest.approx(binary, rel=1e-5)


def rows_of(labels):
    labels = np.array(labels)
    return LabelledRows(None, np.flatnonzero(labels >= 0), labels, ["a", "b", "c", "d"])


def test_a_balanced_pass_has_every_class_as_often_as_the_commonest_and_all_rows_of_each():
    labelled = rows_of([0, 1, 1, 1, 1, 1, -1, 3, 3])  # of class 2 there is none
    rows = rows_of_a_pass(labelled, "class_balanced", seed=5)
    assert np.bincount(labelled.labels[rows]).tolist() == [5, 5, 0, 5]
    assert set(rows.tolist()) == {0, 1, 2, 3, 4, 5, 7, 8}
    assert sorted(np.bincount(rows, minlength=9)[[7, 8]].tolist()) == [2, 3]
    assert np.array_equal(rows, rows_of_a_pass(labelled, "class_balanced", seed=5))


def test_a_uniform_pass_has_each_labelled_row_once():
    assert rows_of_a_pass(rows_of([0, -1, 1, 1]), "uniform", seed=0).tolist() == [0, 2, 3]
