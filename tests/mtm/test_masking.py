"""Masks: exact counts, dropped patches among the masked, and the papers' ratio."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import truncnorm

from seitpp.mtm.masking import MaskConfig, make_masks, places, sample_mask_ratio, sample_masks
from seitpp.runtime.errors import UserError
from seitpp.training.random_streams import Draws


def draws_of(step, positions=range(6), seed=1):
    return Draws(seed, step, torch.tensor(list(positions), dtype=torch.int64))


@st.composite
def noise_and_counts(draw):
    samples, patches = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    values = st.sampled_from([0.0, 0.25, 0.5, 0.75])  # many ties
    noise = draw(st.lists(values, min_size=samples * patches, max_size=samples * patches))
    masked = draw(st.integers(0, patches))
    return torch.tensor(noise).reshape(samples, patches), masked, draw(st.integers(0, masked))


# Which patches


@given(noise_and_counts())
def test_every_sample_hides_and_drops_the_same_number_of_patches(example):
    noise, masked, dropped = example
    masks = make_masks(noise, masked_count=masked, dropped_count=dropped)
    assert masks.masked.sum(dim=1).tolist() == [masked] * len(noise)
    assert masks.dropped.sum(dim=1).tolist() == [dropped] * len(noise)
    assert (masks.masked_count, masks.dropped_count) == (masked, dropped)


@given(noise_and_counts())
def test_dropped_patches_are_a_subset_of_masked(example):
    noise, masked, dropped = example
    masks = make_masks(noise, masked_count=masked, dropped_count=dropped)
    assert not (masks.dropped & ~masks.masked).any()


@given(noise_and_counts())
def test_the_patches_of_least_noise_are_hidden_and_ties_go_by_place(example):
    noise, masked, dropped = example
    masks = make_masks(noise, masked_count=masked, dropped_count=dropped)
    for row, values in enumerate(noise.tolist()):
        order = sorted(range(len(values)), key=lambda place: (values[place], place))
        assert masks.masked[row].tolist() == [place in order[:masked] for place in range(len(values))]
        assert masks.dropped[row].tolist() == [place in order[:dropped] for place in range(len(values))]


def test_ties_in_the_noise_do_not_change_the_count():
    masks = make_masks(torch.zeros(2, 5), masked_count=3, dropped_count=1)
    assert masks.masked.tolist() == [[True, True, True, False, False]] * 2
    assert masks.dropped.tolist() == [[True, False, False, False, False]] * 2


@pytest.mark.parametrize(("masked", "dropped"), [(2, 3), (6, 0), (3, -1)])
def test_impossible_counts_are_refused(masked, dropped):
    with pytest.raises(ValueError, match=f"dropped {dropped} <= masked {masked} <= 5"):
        make_masks(torch.zeros(1, 5), masked_count=masked, dropped_count=dropped)


def test_places_are_those_of_the_true_entries_in_order():
    mask = torch.tensor([[True, False, True, False, True], [False, True, True, True, False]])
    assert places(mask, 3).tolist() == [[0, 2, 4], [1, 2, 3]]
    assert places(mask, 3).dtype == torch.int64


@pytest.mark.parametrize(("mask", "count"), [([[False] * 4], 0), ([[True] * 4], 4)])
def test_places_of_nothing_and_of_everything(mask, count):
    assert places(torch.tensor(mask), count).tolist() == [list(range(count))]


# How many


@pytest.mark.parametrize(
    ("share", "ratio"), [(0.05, 0.418), (0.25, 0.489), (0.50, 0.584), (0.75, 0.704), (0.95, 0.881)]
)
def test_quantiles_of_the_ratio_are_those_of_the_published_code(share, ratio):
    assert sample_mask_ratio(MaskConfig(), share) == pytest.approx(ratio, abs=0.003)


def test_mean_and_deviation_of_the_ratio_are_those_of_the_published_code():
    ratios = np.array([sample_mask_ratio(MaskConfig(), (number + 0.5) / 4000) for number in range(4000)])
    assert ratios.mean() == pytest.approx(0.608, abs=0.002)
    assert ratios.std() == pytest.approx(0.143, abs=0.002)


@pytest.mark.parametrize("shape", [(0.4, 1.0, 0.45, 0.25), (0.1, 0.3, 0.5, 0.1), (0.0, 1.0, 0.5, 10.0)])
def test_the_ratio_is_a_normal_truncated_to_its_bounds(shape):
    low, high, mean, std = shape
    config = MaskConfig(mask_ratio_min=low, mask_ratio_max=high, mask_ratio_mean=mean, mask_ratio_std=std)
    shares = np.linspace(0.0, 0.999, 37)
    expected = truncnorm.ppf(shares, (low - mean) / std, (high - mean) / std, loc=mean, scale=std)
    assert [sample_mask_ratio(config, share) for share in shares] == pytest.approx(expected.tolist(), abs=1e-3)


@pytest.mark.parametrize("uniform", [0.0, 1e-30, 0.5, 1.0 - 2**-24])
def test_the_ratio_never_leaves_its_bounds(uniform):
    for config in (MaskConfig(), MaskConfig(mask_ratio_mean=-9.0), MaskConfig(mask_ratio_mean=9.0)):
        assert config.mask_ratio_min <= sample_mask_ratio(config, uniform) <= config.mask_ratio_max


def test_the_papers_drop_79_of_196_patches():
    assert sample_masks(MaskConfig(), draws_of(0), 196).dropped_count == 79


def test_the_ratio_changes_with_the_step_and_is_the_same_for_all_ranks():
    counts = [sample_masks(MaskConfig(), draws_of(step), 40).masked_count for step in range(30)]
    elsewhere = [sample_masks(MaskConfig(), draws_of(step, range(50, 53)), 40).masked_count for step in range(30)]
    assert counts == elsewhere
    assert len(set(counts)) > 8
    assert min(counts) >= 16


def test_each_sample_has_its_own_mask_wherever_it_is_computed():
    whole = sample_masks(MaskConfig(mask_ratio_max=0.5), draws_of(2), 40)
    part = sample_masks(MaskConfig(mask_ratio_max=0.5), draws_of(2, [4, 1]), 40)
    assert torch.equal(whole.masked[[4, 1]], part.masked)
    assert torch.equal(whole.dropped[[4, 1]], part.dropped)
    assert len({tuple(row) for row in whole.masked.tolist()}) == 6


def test_every_patch_is_hidden_as_often_as_any_other():
    config = MaskConfig(mask_ratio_min=0.5, mask_ratio_max=0.5)
    counts = sum(sample_masks(config, draws_of(step, range(64)), 10).masked.sum(0) for step in range(20))
    assert counts.numpy() / 1280 == pytest.approx(np.full(10, 0.5), abs=0.06)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mask_ratio_min": -0.1},
        {"mask_ratio_min": 0.7, "mask_ratio_max": 0.6},
        {"mask_ratio_max": 1.1},
        {"mask_ratio_max": 0.0},
        {"mask_ratio_std": 0.0},
    ],
)
def test_impossible_ratios_are_refused(wrong):
    with pytest.raises(UserError, match=rf"MaskConfig: {next(iter(wrong))} = "):
        MaskConfig(**wrong)


@pytest.mark.parametrize(
    ("ratio", "patches", "expected"),
    [(0.6, 6, (4, 3)), (0.5, 6, (3, 3)), (0.41, 196, (81, 79)), (1.0, 5, (5, 2)), (0.4, 0, (0, 0))],
)
def test_counts_are_rounded_up(ratio, patches, expected):
    assert MaskConfig(mask_ratio_min=0.4).counts(ratio, patches) == expected
