"""The keyed permutation that is the order of an epoch."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from seitpp.tokens.order.permutation import STREAMS, permute

SEEDS = st.integers(0, 2**64)


@given(st.integers(1, 3000), SEEDS, st.integers(0, 10**6))
@example(1, 0, 0)
@example(2, 0, 0)
@example(4, 0, 1)
@example(5, 0, 1)
@example(2048, 7, 3)
@example(2049, 7, 3)
def test_every_index_goes_to_a_place_of_its_own(length, seed, epoch):
    places = permute(np.arange(length), length, seed=seed, stream="sample order", part=(epoch,))
    assert sorted(places.tolist()) == list(range(length))


@given(st.integers(1, 2**40), SEEDS, st.data())
def test_a_long_permutation_keeps_distinct_indices_distinct_and_in_range(length, seed, data):
    indices = data.draw(st.lists(st.integers(0, length - 1), min_size=1, max_size=30, unique=True))
    places = permute(np.array(indices), length, seed=seed, stream="sample order", part=(1,))
    assert places.dtype == np.int64
    assert places.min() >= 0
    assert places.max() < length
    assert len(set(places.tolist())) == len(indices)


def test_two_to_the_forty_uses_the_whole_range():
    length = 2**40
    places = permute(np.arange(0, length, length // 1000), length, seed=0, stream="sample order", part=(0,))
    assert places.min() < 0.01 * length
    assert places.max() > 0.99 * length
    assert abs(places.mean() / length - 0.5) < 0.05


def test_each_index_alone_goes_where_it_goes_among_others():
    together = permute(np.arange(101), 101, seed=5, stream="sample order", part=(2,))
    alone = [int(permute(index, 101, seed=5, stream="sample order", part=(2,))) for index in range(101)]
    assert together.tolist() == alone


def test_the_shape_of_the_indices_is_kept():
    assert permute(np.arange(6).reshape(2, 3), 11, seed=0, stream="sample order", part=(0,)).shape == (2, 3)


def test_order_is_the_same_again_and_another_for_each_epoch_and_seed():
    orders = {
        (seed, epoch): tuple(permute(np.arange(50), 50, seed=seed, stream="sample order", part=(epoch,)).tolist())
        for seed in range(8)
        for epoch in range(8)
    }
    again = tuple(permute(np.arange(50), 50, seed=3, stream="sample order", part=(4,)).tolist())
    assert again == orders[3, 4]
    assert len(set(orders.values())) == 64


def test_every_index_meets_every_place_about_equally_often():
    length, epochs = 7, 2100
    counts = np.zeros((length, length))
    for epoch in range(epochs):
        counts[np.arange(length), permute(np.arange(length), length, seed=0, stream="sample order", part=(epoch,))] += 1
    expected = epochs / length
    assert (((counts - expected) ** 2 / expected).sum()) < 75  # chi-square of 36 degrees of freedom: 99.98 %


def test_neighbours_are_torn_apart():
    places = permute(np.arange(5000), 5000, seed=1, stream="sample order", part=(0,))
    assert abs(np.corrcoef(places[:-1], places[1:])[0, 1]) < 0.05


@pytest.mark.parametrize("length", [0, -3, 2**40 + 1])
def test_lengths_out_of_range_are_refused(length):
    with pytest.raises(ValueError, match=rf"length must lie in .*{length}"):
        permute(np.zeros(1, np.int64), length, seed=0, stream="sample order", part=(0,))


@pytest.mark.parametrize("index", [10, 2**40, -1])
def test_indices_out_of_range_are_refused(index):
    with pytest.raises(ValueError, match=r"\[0, 10\)"):
        permute(np.array([3, index]), 10, seed=0, stream="sample order", part=(0,))


KNOWN = [  # where 0, 1, … 7 go: what was measured with these orders is repeated only if they never change
    ("sample order", 0, (0,), 1000, [47, 261, 61, 612, 202, 679, 336, 277]),
    ("sample order", 7, (3,), 1281167, [447409, 929758, 1281034, 69346, 711752, 479225, 1275212, 78513]),
    ("sample order", 2**40, (1,), 50, [22, 40, 6, 29, 32, 23, 9, 25]),
    ("window order", 0, (0, 0, 0), 1000, [47, 261, 61, 612, 202, 679, 336, 277]),
    ("window order", 7, (3, 2, 5), 262144, [10087, 111898, 134132, 92491, 122348, 9889, 257258, 113751]),
    ("shard order", 0, (0,), 20, [2, 0, 8, 9, 12, 17, 18, 19]),
    ("shard order", 7, (3,), 1282, [926, 1226, 167, 171, 48, 438, 560, 793]),
    ("validation images", 0, (), 1000, [926, 470, 178, 104, 584, 208, 894, 265]),
    ("validation images", 7, (), 3461, [700, 0, 1373, 724, 527, 50, 2039, 1239]),
    ("validation rows", 0, (0,), 100, [64, 11, 60, 82, 86, 35, 51, 67]),
    ("validation rows", 7, (12,), 130, [63, 31, 17, 68, 87, 79, 59, 104]),
    ("subset", 0, (), 1000, [696, 190, 897, 80, 45, 674, 737, 11]),
    ("subset", 7, (), 3461, [411, 3364, 2627, 1171, 1770, 3022, 277, 1283]),
    ("class balance", 0, (0,), 100, [61, 99, 24, 26, 58, 65, 64, 95]),
    ("class balance", 7, (12,), 1300, [1278, 1180, 966, 473, 396, 408, 663, 582]),
    ("task order", 0, (), 100, [51, 83, 97, 65, 4, 63, 17, 88]),
    ("task order", 7, (), 1000, [341, 810, 62, 506, 403, 485, 998, 33]),
    ("few labels", 0, (0,), 100, [85, 35, 53, 4, 62, 23, 45, 72]),
    ("few labels", 7, (12,), 1300, [411, 1152, 526, 1103, 882, 700, 952, 91]),
    ("benchmark split", 0, (0,), 60, [16, 0, 17, 31, 58, 2, 51, 25]),
    ("benchmark split", 0, (101,), 800, [329, 206, 293, 612, 479, 284, 733, 29]),
    ("explored rows", 0, (0,), 1000, [115, 821, 878, 532, 759, 419, 84, 461]),
    ("explored rows", 7, (1,), 50000, [31370, 4671, 5222, 12665, 46022, 17923, 24724, 25823]),
]


@pytest.mark.parametrize(("stream", "seed", "part", "length", "expected"), KNOWN)
def test_the_orders_of_every_stream_stay_what_they_were(stream, seed, part, length, expected):
    assert permute(range(8), length, seed=seed, stream=stream, part=part).tolist() == expected


def test_every_stream_has_a_known_answer():
    assert {stream for stream, *_ in KNOWN} == set(STREAMS)


@pytest.mark.parametrize("seed", [0, 3, 2**33])
def test_a_subset_is_chosen_unlike_the_order_of_any_epoch(seed):
    def order(stream, *part):
        return tuple(permute(range(500), 500, seed=seed, stream=stream, part=part).tolist())

    others = {order("sample order", epoch) for epoch in range(20)} | {order("validation images")}
    others |= {order("shard order", epoch) for epoch in range(20)}
    assert order("subset") not in others


def test_a_stream_that_nobody_registered_is_refused():
    with pytest.raises(ValueError, match=r"no stream 'subsets'.*sample order.*subset"):
        permute([0], 1, seed=0, stream="subsets")
