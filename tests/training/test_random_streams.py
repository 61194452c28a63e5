"""Chance: draws are a function of seed, step, position and name, and of nothing else."""

import zlib

import numpy as np
import pytest
import torch

from seitpp.training.random_streams import Draws, philox, seed_dropout

MASK = 0xFFFFFFFF


def philox_slowly(counter, key):
    """Philox4x32-10 in Python's unbounded integers, from the paper's table."""
    c, k = list(counter), list(key)
    for _ in range(10):
        low0, high0 = (0xD2511F53 * c[0]) & MASK, (0xD2511F53 * c[0]) >> 32
        low1, high1 = (0xCD9E8D57 * c[2]) & MASK, (0xCD9E8D57 * c[2]) >> 32
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
    return c


def positions(*values):
    return torch.tensor(values, dtype=torch.int64)


def some_draws(*, seed=11, step=3, places=range(6)):
    return Draws(seed, step, torch.tensor(list(places), dtype=torch.int64))


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_gives_its_authors_known_answers(counter, key, answer):
    words = philox([torch.tensor(int(word, 16)) for word in counter.split()], [int(word, 16) for word in key.split()])
    assert " ".join(f"{int(word):08x}" for word in words) == answer


def test_uniform_draws_are_philox_of_block_position_step_and_name():
    seed, step = (5 << 32) + 9, 70
    drawn = Draws(seed, step, positions(4, 1)).uniform("flip", 2, 3)
    for row, position in enumerate((4, 1)):
        words = [philox_slowly((block, position, step, zlib.crc32(b"flip")), (9, 5)) for block in range(2)]
        expected = [(word >> 8) / 2**24 for word in words[0] + words[1]][:6]
        assert drawn[row].flatten().tolist() == expected


def test_a_sample_draws_the_same_wherever_it_is_computed():
    whole = some_draws(places=range(8))
    part = Draws(11, 3, positions(5, 2))
    assert torch.equal(whole.normal("noise", 2, 3)[[5, 2]], part.normal("noise", 2, 3))


def test_slices_of_draws_draw_slices():
    draws = some_draws()
    assert torch.equal(draws[1::2].uniform("crop", 4), draws.uniform("crop", 4)[1::2])
    assert torch.equal(draws[positions(4, 0)].uniform("crop", 4), draws.uniform("crop", 4)[[4, 0]])
    assert len(draws[1::2]) == 3


def test_drawing_changes_nothing_for_what_is_drawn_after():
    draws = some_draws()
    first = draws.uniform("a", 3)
    draws.uniform("b", 5)
    torch.rand(7)
    assert torch.equal(draws.uniform("a", 3), first)


@pytest.mark.parametrize("other", [{"seed": 12}, {"seed": 11 + 2**32}, {"step": 4}, {"places": range(6, 12)}], ids=str)
def test_another_seed_step_or_position_draws_other_numbers(other):
    assert (some_draws().uniform("a", 9) == some_draws(**other).uniform("a", 9)).float().mean() < 0.01


def test_another_name_draws_other_numbers():
    draws = some_draws()
    assert (draws.uniform("a", 9) == draws.uniform("b", 9)).float().mean() < 0.01


def test_uniform_draws_have_the_moments_of_the_uniform_distribution():
    drawn = some_draws(places=range(2000)).uniform("a", 50)
    assert drawn.dtype == torch.float32
    assert float(drawn.min()) >= 0.0
    assert float(drawn.max()) < 1.0
    assert float(drawn.mean()) == pytest.approx(1 / 2, abs=0.005)
    assert float(drawn.var()) == pytest.approx(1 / 12, abs=0.002)


def test_normal_draws_have_the_moments_of_the_normal_distribution():
    drawn = some_draws(places=range(2000)).normal("a", 5, 10).double()
    assert drawn.shape == (2000, 5, 10)
    moments = [float(drawn.pow(power).mean()) for power in (1, 2, 3, 4)]
    assert moments == pytest.approx([0.0, 1.0, 0.0, 3.0], abs=0.08)


@pytest.mark.parametrize("axis", ["neighbouring positions", "neighbouring elements", "neighbouring steps", "names"])
def test_draws_are_uncorrelated(axis):
    here, there = some_draws(places=range(3000)), some_draws(places=range(3000), step=4)
    drawn = here.normal("a", 8)
    pairs = {
        "neighbouring positions": (drawn[1:], drawn[:-1]),
        "neighbouring elements": (drawn[:, 1:], drawn[:, :-1]),
        "neighbouring steps": (drawn, there.normal("a", 8)),
        "names": (drawn, here.normal("b", 8)),
    }
    first, second = (each.flatten().numpy() for each in pairs[axis])
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.025


def test_the_draw_of_a_step_is_the_same_on_every_rank():
    ranks = [some_draws(places=range(start, start + 4)).per_step("mask ratio") for start in (0, 4, 96)]
    assert ranks[0] == ranks[1] == ranks[2]
    assert 0.0 <= ranks[0] < 1.0


def test_the_draw_of_a_step_depends_on_step_seed_and_name():
    drawn = {some_draws(seed=seed, step=step).per_step(name) for seed in range(5) for step in range(5) for name in "ab"}
    assert len(drawn) == 50


def test_the_draw_of_a_step_is_uniform_over_steps():
    drawn = np.array([some_draws(step=step).per_step("ratio") for step in range(800)])
    assert drawn.mean() == pytest.approx(0.5, abs=0.04)
    assert np.histogram(drawn, bins=4, range=(0, 1))[0].min() > 150


def test_dropout_is_a_function_of_seed_step_and_rank():
    def first_number(*key):
        seed_dropout(*key)
        return float(torch.rand(1))

    keys = [(seed, step, rank) for seed in (0, 2**33) for step in (0, 1, 7) for rank in (0, 1)]
    numbers = [first_number(*key) for key in keys]
    assert len(set(numbers)) == len(keys)
    assert [first_number(*key) for key in keys] == numbers
