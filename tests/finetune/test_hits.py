"""Right answers class by class: accuracy counts rows, the mean over classes counts classes."""

import pytest
import torch

from seitpp.finetune.probing.hits import Hits
from seitpp.runtime.devices import make_accelerator


def test_measures_are_those_counted_by_hand_and_batches_add_up():
    """Of class 0 three rows, of class 1 one, of class 2 none, of class 3 two; two ways to answer."""
    targets = torch.tensor([0, 0, 0, 1, 3, 3])
    answers = torch.tensor([[0, 0], [0, 1], [1, 1], [1, 0], [2, 3], [3, 3]])
    hits = Hits(4, 2, torch.device("cpu"))
    for part in (slice(0, 2), slice(2, 6)):
        hits.add(answers[part], targets[part])
    first, second = hits.measures(make_accelerator("no"))
    assert first == {"accuracy": pytest.approx(4 / 6), "mean_per_class": pytest.approx((2 / 3 + 1 + 1 / 2) / 3)}
    assert second == {"accuracy": pytest.approx(3 / 6), "mean_per_class": pytest.approx((1 / 3 + 0 + 1) / 3)}
