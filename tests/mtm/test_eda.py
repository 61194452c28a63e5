"""Token-EDA: ids edited by synonyms and by swaps of squares."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

import tiny
from seitpp.mtm.augmentation.eda import (
    EdaConfig,
    Synonyms,
    TokenEda,
    open_synonyms,
    replace_by_synonyms,
    sample_replacements,
    sample_swap,
    take_places,
)
from seitpp.runtime.errors import UserError
from seitpp.tokens.store import TokenStore
from seitpp.tokens.synonyms import write_synonyms
from seitpp.training.random_streams import Draws

GRID = (8, 12)


def draws(step=0, count=16, seed=7):
    return Draws(seed, step, torch.arange(count))


def within_chance(count, trials, probability):
    """Whether a count is one that a binomial variable takes all but once in a million times."""
    low, high = binom.interval(1 - 1e-6, trials, probability)
    return low <= count <= high


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return TokenStore(tiny.make_store(tmp_path_factory.mktemp("store"), tiny.random_ids(16, tiny.CODES, GRID)))


# Synonyms


def test_a_replaced_token_becomes_the_synonym_at_its_place_of_the_list():
    synonyms = Synonyms(torch.tensor([[1, 2, 3], [0, 2, 2], [3, 3, 3], [0, 1, 2]]), torch.tensor([3, 2, 1, 3]))
    ids = torch.tensor([[[0, 1, 2], [3, 0, 1]]])
    replaced = torch.tensor([[[True, True, True], [True, True, False]]])
    which = torch.tensor([[[0.0, 0.99, 0.99], [0.34, 0.67, 0.5]]])
    assert replace_by_synonyms(ids, replaced, which, synonyms).tolist() == [[[1, 2, 3], [1, 3, 1]]]
    assert ids.tolist() == [[[0, 1, 2], [3, 0, 1]]]


def test_the_stores_synonyms_are_the_nearest_codes(store):
    synonyms = open_synonyms(EdaConfig(synonym_count=3), store, "cpu")
    codebook = store.codebook.double().numpy()
    for code in range(tiny.CODES):
        order = np.linalg.norm(codebook - codebook[code], axis=1).argsort()
        assert synonyms.table[code].tolist() == order[1:4].tolist()
    assert synonyms.counts.tolist() == [3] * tiny.CODES


def test_a_file_may_have_lists_of_any_length_and_only_the_first_synonyms_count(store, tmp_path):
    rows = [[(code + step) % tiny.CODES for step in range(1, 2 + code % 4)] for code in range(tiny.CODES)]
    write_synonyms(tmp_path / "synonyms.json", rows)
    config = EdaConfig(synonym_file=str(tmp_path / "synonyms.json"), synonym_count=3, synonyms=1.0, replaced=1.0)
    eda = TokenEda(config, store=store, device="cpu")
    ids = store.ids(range(16))
    seen = [set() for _ in rows]
    for step in range(20):
        for before, after in zip(ids.flatten().tolist(), eda(ids, draws(step)).flatten().tolist(), strict=True):
            seen[before].add(after)
    assert seen == [set(row[:3]) for row in rows]


def test_synonyms_of_another_codebook_are_refused(store, tmp_path):
    write_synonyms(tmp_path / "synonyms.json", [[1], [0]])
    with pytest.raises(UserError, match="code 2 has no list of synonyms"):
        TokenEda(EdaConfig(synonyms=0.5, synonym_file=str(tmp_path / "synonyms.json")), store=store, device="cpu")


def test_a_codebook_of_one_code_has_no_synonyms_but_those_of_a_file(tmp_path):
    store = TokenStore(tiny.make_store(tmp_path / "store", tiny.random_ids(3, 1, (2, 3)), codes=1))
    with pytest.raises(UserError, match=r"a codebook of one code has no synonyms: set --augment\.eda\.synonyms 0"):
        TokenEda(EdaConfig(synonyms=0.5), store=store, device="cpu")
    write_synonyms(tmp_path / "synonyms.json", [[0]])
    config = EdaConfig(synonyms=1.0, replaced=1.0, synonym_file=str(tmp_path / "synonyms.json"))
    ids = store.ids(range(3))
    assert torch.equal(TokenEda(config, store=store, device="cpu")(ids, draws(count=3)), ids)


def test_without_synonyms_none_are_looked_for(store):
    eda = TokenEda(EdaConfig(swap=1.0, synonym_file="nowhere.json"), store=store, device="cpu")
    assert eda.synonyms is None


def test_each_token_is_replaced_with_its_probability_and_all_synonyms_are_as_likely(store):
    synonyms = open_synonyms(EdaConfig(), store, "cpu")
    ids, rank = store.ids(range(16)), np.zeros(5, int)
    for step in range(10):
        replaced, which = sample_replacements(draws(step), GRID, 0.25)
        edited = replace_by_synonyms(ids, replaced, which, synonyms)
        assert torch.equal(edited != ids, replaced)
        lists = synonyms.table[ids[replaced]]
        rank += (lists == edited[replaced][:, None]).sum(0).numpy()
    assert within_chance(rank.sum(), 10 * ids.numel(), 0.25)
    assert all(within_chance(count, rank.sum(), 0.2) for count in rank)


# Swaps


@given(
    height=st.integers(1, 13), width=st.integers(2, 13), scale=st.sampled_from([0.05, 0.25, 1 / 3]),
    seed=st.integers(0, 2**40), by=st.booleans(),
)  # fmt: skip
def test_a_swap_exchanges_two_squares_that_do_not_overlap(height, width, scale, seed, by):
    grid = (height, width) if by else (width, height)
    ids = torch.arange(6 * height * width).reshape(6, *grid)  # no id twice
    swapped = take_places(ids, sample_swap(draws(count=6, seed=seed), grid, scale)).numpy()
    for before, after in zip(ids.numpy(), swapped, strict=True):
        assert sorted(after.flatten()) == sorted(before.flatten())
        moved = np.argwhere(after != before).tolist()
        side = round((len(moved) / 2) ** 0.5)
        assert len(moved) == 2 * side**2
        assert 1 <= side <= max(1, int(scale * min(grid)))
        top, left = moved[0]  # the first corner of one square; its place in `before` is that of the other
        other_top, other_left = np.argwhere(before == after[top, left])[0]
        first, second = (
            {(y + row, x + column) for row in range(side) for column in range(side)}
            for y, x in ((top, left), (other_top, other_left))
        )
        assert not first & second
        assert first | second == set(map(tuple, moved))
        for row in range(side):
            for column in range(side):
                one, other = (top + row, left + column), (other_top + row, other_left + column)
                assert (after[one], after[other]) == (before[other], before[one])


@given(ids=st.lists(st.integers(0, 3), min_size=24, max_size=24), seed=st.integers(0, 2**40))
def test_a_swap_keeps_how_often_each_id_occurs_and_undoes_itself(ids, seed):
    ids = torch.tensor(ids).reshape(1, 4, 6)
    places = sample_swap(draws(count=1, seed=seed), (4, 6), 1 / 3)
    swapped = take_places(ids, places)
    assert torch.equal(swapped.flatten().bincount(minlength=4), ids.flatten().bincount(minlength=4))
    assert torch.equal(take_places(swapped, places), ids)


def test_a_grid_of_one_token_has_nothing_to_swap(tmp_path):
    store = TokenStore(tiny.make_store(tmp_path / "store", tiny.random_ids(3, tiny.CODES, (1, 1))))
    with pytest.raises(UserError, match=r"a grid of one token has nothing to swap: set --augment\.eda\.swap 0"):
        TokenEda(EdaConfig(swap=0.5), store=store, device="cpu")
    ids = store.ids(range(3))
    assert TokenEda(EdaConfig(synonyms=1.0), store=store, device="cpu")(ids, draws(count=3)).shape == (3, 1, 1)


def test_all_sides_and_all_places_of_a_swap_come_as_often():
    grid = (4, 5)
    places = sample_swap(draws(count=20_000), grid, 1 / 3).reshape(-1, *grid).numpy()  # squares of one token
    moved = places != np.arange(20).reshape(grid)
    assert (moved.sum((1, 2)) == 2).all()
    assert all(within_chance(count, 20_000, 0.1) for count in moved.sum(0).flatten())
    sides = (sample_swap(draws(count=6_000), (12, 16), 0.25) != torch.arange(192)).sum(1)
    assert all(within_chance((sides == 2 * side**2).sum().item(), 6_000, 1 / 3) for side in (1, 2, 3))


# Both


def test_samples_are_edited_with_their_probabilities_by_one_of_the_two(store):
    config = EdaConfig(synonyms=0.3, swap=0.2, replaced=1.0)
    eda = TokenEda(config, store=store, device="cpu")
    ids = torch.arange(16 * 96).reshape(16, *GRID) % tiny.CODES
    by_synonyms = by_swap = 0
    for step in range(100):
        edited = eda(ids, draws(step))
        changed = (edited != ids).flatten(1)
        by_synonyms += int(changed.all(1).sum())
        by_swap += int((changed.any(1) & ~changed.all(1)).sum())
    assert within_chance(by_synonyms, 1600, 0.3)
    assert within_chance(by_swap, 1600, 0.2)


def test_edits_depend_on_the_position_of_a_sample_and_not_on_its_batch(store):
    eda = TokenEda(EdaConfig(synonyms=0.5, swap=0.5), store=store, device="cpu")
    ids = store.ids(range(16))
    before = ids.clone()
    whole = eda(ids, draws())
    parts = [eda(ids[start : start + 3], draws()[start : start + 3]) for start in range(0, 16, 3)]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(ids, before)
    assert not torch.equal(eda(ids, draws(1)), whole)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"synonyms": -0.1}, "synonyms"),
        ({"synonyms": 0.6, "swap": 0.5}, "swap"),
        ({"replaced": 1.1}, "replaced"),
        ({"synonym_count": 0}, "synonym_count"),
        ({"swap_scale": 0.34}, "swap_scale"),
        ({"swap_scale": 0.0}, "swap_scale"),
    ],
)
def test_what_cannot_be_is_refused(wrong, named):
    with pytest.raises(UserError, match=f"EdaConfig: {named} = "):
        replace(EdaConfig(), **wrong)
