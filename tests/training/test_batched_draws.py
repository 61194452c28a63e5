"""Draws of a step in one pass: the bits of plain draws, whatever was asked for before."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seitpp.training import batched_draws
from seitpp.training.batched_draws import BatchedDraws
from seitpp.training.random_streams import Draws

PARTS = (slice(None), slice(0, None, 2), slice(1, None, 2), slice(1, 3))
asked = st.tuples(st.sampled_from("abc"), st.integers(1, 9), st.sampled_from(PARTS), st.booleans())


@given(st.lists(st.lists(asked, max_size=6), min_size=1, max_size=4), st.integers(0, 2**40))
def test_they_are_plain_draws_bit_for_bit_whatever_steps_ask_for(steps, seed):
    chance = BatchedDraws(seed)
    for step, requests in enumerate(steps):
        places = torch.arange(6) + 100 * step
        batched, plain = chance.at(step, places), Draws(seed, step, places)
        for name, count, part, normal in requests:
            found, expected = (
                (each.normal if normal else each.uniform)(name, count, 2) for each in (batched[part], plain[part])
            )
            assert torch.equal(found, expected)
            assert len(batched[part]) == len(plain[part])


def test_parts_of_parts_are_plain_draws_too():
    places = torch.arange(9)
    batched, plain = BatchedDraws(3).at(2, places), Draws(3, 2, places)
    assert torch.equal(batched[1::2][0::2].uniform("a", 3), plain[1::2][0::2].uniform("a", 3))
    assert batched.per_step("ratio") == plain.per_step("ratio")


@pytest.fixture
def passes(monkeypatch):
    """The number of blocks of each pass of the generator that follows."""
    made = []

    def counted(seed, step, positions, counters, generator):
        made.append(len(counters[0]))
        return bits_at(seed, step, positions, counters, generator)

    bits_at = batched_draws.bits_at
    monkeypatch.setattr(batched_draws, "bits_at", counted)
    return made


def ask(draws):
    draws[0::2].uniform("crop", 4)
    draws[1::2].uniform("crop", 4)
    draws[1::2].uniform("affine", 11)
    draws.uniform("mask", 20)
    draws.uniform("mask", 20)


def test_from_the_second_step_on_there_is_one_pass(passes):
    chance = BatchedDraws(0)
    ask(chance.at(0, torch.arange(4)))
    assert passes == [1, 3, 5]
    ask(chance.at(1, torch.arange(4)))
    ask(chance.at(2, torch.arange(4)))
    assert passes == [1, 3, 5, 9, 9]


def test_what_a_step_no_longer_asks_for_is_not_made_for_the_next(passes):
    chance = BatchedDraws(0)
    ask(chance.at(0, torch.arange(4)))
    chance.at(1, torch.arange(4)).uniform("mask", 20)
    chance.at(2, torch.arange(4)).uniform("mask", 20)
    assert passes[3:] == [9, 5]


def test_who_asks_for_more_gets_it_in_another_pass(passes):
    chance = BatchedDraws(0)
    for step in range(3):
        draws = chance.at(step, torch.arange(4))
        draws.uniform("mask", 4)
        draws.uniform("mask", 8)
    assert passes == [1, 2, 2, 2]


@pytest.mark.slow
def test_a_compiled_pass_makes_the_same_bits():
    plain, compiled = BatchedDraws(2**40 + 7), BatchedDraws(2**40 + 7, compiled=True)
    for step in range(2):  # the second makes all of the first's names in the compiled pass
        places = torch.arange(5) + 2**33
        one, other = plain.at(step, places), compiled.at(step, places)
        for name in ("crop", "affine"):
            assert torch.equal(one.uniform(name, 7), other.uniform(name, 7))
    torch._dynamo.reset()
