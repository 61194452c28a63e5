"""ColorAdapt and Emb-Noise."""

import numpy as np
import pytest
import torch
from scipy.stats import binom

import published
from seitpp.coloradapt.color_adapt import color_adapt
from seitpp.coloradapt.noise import add_noise
from seitpp.mtm.augmentation.partners import sample_partners
from seitpp.training.random_streams import Draws


def maps(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape) * 3 + 1)


def color_adapt_slowly(embeddings, partners):
    result = embeddings.copy()
    for sample, partner in enumerate(partners):
        if partner == sample:
            continue
        for channel in range(embeddings.shape[1]):
            own, other = embeddings[sample, channel], embeddings[partner, channel]
            normal = (own - own.mean()) / own.std(ddof=1)
            result[sample, channel] = normal * other.std(ddof=1) + other.mean()
    return result


# ColorAdapt


def test_a_map_takes_the_mean_and_deviation_of_its_partner():
    embeddings = maps(5, 3, 2, 4)
    partners = torch.tensor([1, 0, 2, 0, 3])
    adapted = color_adapt(embeddings, partners)
    assert adapted.numpy() == pytest.approx(color_adapt_slowly(embeddings.numpy(), partners.tolist()), abs=1e-10)


def test_a_sample_that_is_its_own_partner_keeps_its_bits():
    embeddings = maps(3, 4, 2, 5).float()
    adapted = color_adapt(embeddings, torch.tensor([0, 2, 2]))
    assert torch.equal(adapted[[0, 2]], embeddings[[0, 2]])
    assert not torch.equal(adapted[1], embeddings[1])


def test_a_constant_channel_becomes_the_partners_mean_and_stays_finite():
    embeddings = maps(2, 3, 2, 4)
    embeddings[0, 1] = 7.0
    adapted = color_adapt(embeddings, torch.tensor([1, 0]))
    assert adapted.isfinite().all()
    assert adapted[0, 1].numpy() == pytest.approx(np.full((2, 4), float(embeddings[1, 1].mean())))
    assert adapted[1, 1].numpy() == pytest.approx(np.full((2, 4), 7.0))  # the partner has no deviation to give


def test_color_adapt_keeps_its_inputs_shape_and_type():
    embeddings, partners = maps(2, 3, 2, 4).float(), torch.tensor([1, 0])
    before = embeddings.clone()
    adapted = color_adapt(embeddings, partners)
    assert (adapted.shape, adapted.dtype) == (embeddings.shape, torch.float32)
    assert torch.equal(embeddings, before)
    assert partners.tolist() == [1, 0]


def test_parity_of_color_adapt():
    recorded = published.recording("codebook")
    embeddings = recorded["embedding"]
    partners = torch.arange(len(embeddings)).flip(0)  # the published code pairs i with B - 1 - i
    assert published.largest_difference(color_adapt(embeddings, partners), recorded["coloradapt"]) < 1e-4


# Partners


def draws(first=0, last=6, step=0):
    return Draws(5, step, torch.arange(first, last))


def test_neighbours_are_partners_however_the_batch_is_divided():
    whole = sample_partners("neighbour", draws(0, 12), "partner").tolist()
    assert whole == [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10]
    parts = [sample_partners("neighbour", draws(first, first + 4), "partner") + first for first in (0, 4, 8)]
    assert torch.cat(parts).tolist() == whole


def test_reversed_partners_are_those_of_the_published_code():
    assert sample_partners("reversed", draws(), "partner").tolist() == [5, 4, 3, 2, 1, 0]


def test_reversed_and_random_partners_stay_within_the_batch_of_a_process():
    for pairing in ("reversed", "random"):
        assert sorted(sample_partners(pairing, draws(6, 12), "partner").tolist()) == [0, 1, 2, 3, 4, 5]


def test_random_partners_form_one_circle_through_the_batch():
    for step in range(20):
        partners = sample_partners("random", draws(0, 7, step), "partner").tolist()
        seen = [0]
        while partners[seen[-1]] != 0:
            seen.append(partners[seen[-1]])
        assert sorted(seen) == list(range(7))


def test_every_other_sample_is_as_likely_a_random_partner():
    partners = torch.stack([sample_partners("random", draws(0, 4, step), "partner") for step in range(3000)])
    low, high = binom.interval(1 - 1e-6, 3000, 1 / 3)
    for place in range(4):
        counts = partners[:, place].bincount(minlength=4).tolist()
        assert counts.pop(place) == 0
        assert all(low <= count <= high for count in counts)


def test_random_partners_are_others_for_another_name_and_another_step():
    batch, later = draws(0, 64), draws(0, 64, step=1)
    partners = sample_partners("random", batch, "partner")
    assert torch.equal(sample_partners("random", batch, "partner"), partners)
    assert not torch.equal(sample_partners("random", batch, "mix"), partners)
    assert not torch.equal(sample_partners("random", later, "partner"), partners)


def test_who_has_none_to_pair_with_in_an_odd_batch_is_its_own_partner():
    assert sample_partners("neighbour", draws(0, 5), "partner").tolist() == [1, 0, 3, 2, 4]
    assert sample_partners("reversed", draws(0, 5), "partner").tolist() == [4, 3, 2, 1, 0]


# Emb-Noise


def test_noise_of_channels_and_of_elements_adds_up():
    embeddings, channel, element = maps(3, 2, 2, 4), maps(3, 2, 1, 1, seed=1), maps(3, 2, 2, 4, seed=2)
    chosen = torch.tensor([True, False, True])
    noisy = add_noise(embeddings, chosen, channel, element, channel_scale=0.5, element_scale=2.0)
    for sample, place in np.ndindex(3, 2):
        expected = embeddings[sample, place].numpy()
        if chosen[sample]:
            expected = expected + 0.5 * float(channel[sample, place]) + 2.0 * element[sample, place].numpy()
        assert noisy[sample, place].numpy() == pytest.approx(expected)


def test_samples_that_are_not_chosen_keep_their_bits_and_inputs_are_not_changed():
    embeddings = maps(2, 3, 2, 4).float()
    before = embeddings.clone()
    noisy = add_noise(embeddings, torch.tensor([False, True]), maps(2, 3, 1, 1), maps(2, 3, 2, 4))
    assert noisy.dtype == torch.float32
    assert torch.equal(noisy[0], embeddings[0])
    assert torch.equal(embeddings, before)
    assert not torch.equal(noisy[1], embeddings[1])
