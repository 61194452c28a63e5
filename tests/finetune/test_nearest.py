"""Nearest neighbours: who they are, and what they vote for."""

import numpy as np
import pytest
import torch

from seitpp.finetune.labelled import LabelledRows
from seitpp.finetune.probing.feature_set import FeatureSet
from seitpp.finetune.probing.nearest import most_similar, nearest_neighbours
from seitpp.runtime.devices import make_accelerator


def feature_set(features, labels):
    """A FeatureSet over no store; rows of label -1 do not count."""
    labels = np.asarray(labels)
    classes = [f"class {label}" for label in range(labels.max() + 1)]
    return FeatureSet(
        np.asarray(features, np.float32), LabelledRows(None, np.flatnonzero(labels >= 0), labels, classes)
    )


def accuracy_of(train, test, k, **how):
    return nearest_neighbours(train, test, [k], accelerator=make_accelerator("no"), **how)[k]


def test_the_most_similar_are_those_of_a_full_sort_however_the_bank_is_divided():
    random = torch.Generator().manual_seed(0)
    queries, bank = torch.randn(5, 3, generator=random), torch.randn(23, 3, generator=random)
    order = (queries @ bank.T).argsort(dim=1, descending=True)
    for size in (1, 4, 23):
        values, rows = most_similar(queries, bank.split(size), 6)
        assert torch.equal(rows, order[:, :6])
        assert torch.allclose(values, (queries @ bank.T).gather(1, rows))


def test_neighbours_vote_by_their_cosine():
    train = feature_set([[1.0, 0.0], [10.0, 1.0], [0.0, 3.0], [-1.0, 5.0], [1.0, 1.02]], [0, 0, 1, 1, -1])
    test = feature_set([[2.0, 0.1], [0.0, 1.0], [1.0, 1.02]], [0, 1, 1])
    # k = 1: rows 1 (0), 2 (1), and row 1 at 0.77 against row 2 at 0.71 (0): two of three are right
    assert accuracy_of(train, test, 1) == pytest.approx(2 / 3)
    # The third one's neighbours at T = 1 weigh e^0.77 (0), e^0.71 (1), e^0.70 (0), e^0.56 (1): still 0
    assert accuracy_of(train, test, 3, temperature=1.0) == pytest.approx(2 / 3)
    assert accuracy_of(train, test, 4, temperature=1.0) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("temperature", "right"), [(0.07, 1.0), (10.0, 0.0)])
def test_similar_neighbours_outweigh_many_others_the_more_the_colder(temperature, right):
    train = feature_set([[1.0, 0.0], [0.3, 1.0], [0.3, -1.0]], [1, 0, 0])
    test = feature_set([[1.0, 0.0]], [1])
    assert accuracy_of(train, test, 3, temperature=temperature) == right  # cosines 1, 0.29 and 0.29


def test_votes_are_those_of_a_loop_for_every_k_in_blocks_of_any_size():
    random = np.random.default_rng(0)
    train = feature_set(random.standard_normal((40, 4)), random.integers(-1, 4, size=40))
    test = feature_set(random.standard_normal((17, 4)), random.integers(-1, 4, size=17))
    ks, expected = (1, 5, 20), {}
    bank = train.features[train.labelled.rows]
    bank = bank / np.linalg.norm(bank, axis=1, keepdims=True)
    for k in ks:
        right = 0
        for row in test.labelled.rows:
            cosines = bank @ test.features[row] / np.linalg.norm(test.features[row])
            votes = np.zeros(4)
            for place in np.argsort(-cosines)[:k]:
                votes[train.labelled.targets[place]] += np.exp(cosines[place] / 0.07)
            right += votes.argmax() == test.labelled.labels[row]
        expected[k] = right / len(test)
    for blocks in ((1024, 65536), (3, 7)):
        found = nearest_neighbours(train, test, ks, accelerator=make_accelerator("no"), blocks=blocks)
        assert found == pytest.approx(expected)


def test_of_fewer_rows_than_k_all_vote():
    train, test = feature_set([[1.0, 0.0], [0.0, 1.0]], [0, 1]), feature_set([[1.0, 0.2]], [0])
    assert accuracy_of(train, test, 200) == 1.0
