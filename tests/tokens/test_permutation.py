"""The keyed permutation that is the order of an epoch."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from seitpp.tokens.permutation import permute

SEEDS = st.integers(0, 2**64)


@given(st.integers(1, 3000), SEEDS, st.integers(0, 10**6))
@example(1, 0, 0)
@example(2, 0, 0)
@example(4, 0, 1)
@example(5, 0, 1)
@example(2048, 7, 3)
@example(2049, 7, 3)
def test_every_index_goes_to_a_place_of_its_own(length, seed, epoch):
    places = permute(np.arange(length), length, seed=seed, epoch=epoch)
    assert sorted(places.tolist()) == list(range(length))


@given(st.integers(1, 2**40), SEEDS, st.data())
def test_a_long_permutation_keeps_distinct_indices_distinct_and_in_range(length, seed, data):
    indices = data.draw(st.lists(st.integers(0, length - 1), min_size=1, max_size=30, unique=True))
    places = permute(np.array(indices), length, seed=seed, epoch=1)
    assert places.dtype == np.int64
    assert places.min() >= 0
    assert places.max() < length
    assert len(set(places.tolist())) == len(indices)


def test_two_to_the_forty_uses_the_whole_range():
    length = 2**40
    places = permute(np.arange(0, length, length // 1000), length, seed=0, epoch=0)
    assert places.min() < 0.01 * length
    assert places.max() > 0.99 * length
    assert abs(places.mean() / length - 0.5) < 0.05


def test_each_index_alone_goes_where_it_goes_among_others():
    together = permute(np.arange(101), 101, seed=5, epoch=2)
    alone = [int(permute(index, 101, seed=5, epoch=2)) for index in range(101)]
    assert together.tolist() == alone


def test_the_shape_of_the_indices_is_kept():
    assert permute(np.arange(6).reshape(2, 3), 11, seed=0, epoch=0).shape == (2, 3)


def test_order_is_the_same_again_and_another_for_each_epoch_and_seed():
    orders = {
        (seed, epoch): tuple(permute(np.arange(50), 50, seed=seed, epoch=epoch).tolist())
        for seed in range(8)
        for epoch in range(8)
    }
    again = tuple(permute(np.arange(50), 50, seed=3, epoch=4).tolist())
    assert again == orders[3, 4]
    assert len(set(orders.values())) == 64


def test_every_index_meets_every_place_about_equally_often():
    length, epochs = 7, 2100
    counts = np.zeros((length, length))
    for epoch in range(epochs):
        counts[np.arange(length), permute(np.arange(length), length, seed=0, epoch=epoch)] += 1
    expected = epochs / length
    assert (((counts - expected) ** 2 / expected).sum()) < 75  # chi-square of 36 degrees of freedom: 99.98 %


def test_neighbours_are_torn_apart():
    places = permute(np.arange(5000), 5000, seed=1, epoch=0)
    assert abs(np.corrcoef(places[:-1], places[1:])[0, 1]) < 0.05


@pytest.mark.parametrize("length", [0, -3, 2**40 + 1])
def test_lengths_out_of_range_are_refused(length):
    with pytest.raises(ValueError, match=rf"length must lie in .*{length}"):
        permute(np.zeros(1, np.int64), length, seed=0, epoch=0)


@pytest.mark.parametrize("index", [10, 2**40, -1])
def test_indices_out_of_range_are_refused(index):
    with pytest.raises(ValueError, match=r"\[0, 10\)"):
        permute(np.array([3, index]), 10, seed=0, epoch=0)
