"""CutMix and Mixup on token maps, and the labels of mixtures."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import beta, binom
from timm.data.mixup import mixup_target
from timm.loss import SoftTargetCrossEntropy

from seitpp.mtm.augmentation.mixing import Mix, MixConfig, Mixing, at_quantile, beta_quantiles, cutmix_boxes
from seitpp.runtime.errors import UserError
from seitpp.training.random_streams import Draws

VIEW = (6, 9)


def draws(step=0, count=16):
    return Draws(7, step, torch.arange(count))


def sample(config, step=0, count=16, pairing="neighbour"):
    return Mixing(config, mixup=config.mixup, pairing=pairing, view=VIEW, device="cpu").sample(draws(step, count))


# One mixture


def test_each_place_is_its_share_of_itself_and_the_rest_of_its_partner():
    random = np.random.default_rng(0)
    maps, own = random.standard_normal((4, 3, 6, 10)), random.random((4, 3, 5))
    partners = [2, 0, 3, 0]
    mixed = Mix(torch.tensor(partners), torch.from_numpy(own)).maps(torch.from_numpy(maps))
    for sample, channel, y, x in np.ndindex(maps.shape):  # maps of 2 x 2 places a token
        share = own[sample, y // 2, x // 2]
        expected = share * maps[sample, channel, y, x] + (1 - share) * maps[partners[sample], channel, y, x]
        assert mixed[sample, channel, y, x].item() == pytest.approx(expected)


def test_a_sample_that_keeps_all_of_itself_keeps_its_bits():
    maps = torch.randn(4, 3, *VIEW, generator=torch.Generator().manual_seed(0))
    mixed = Mix(torch.tensor([1, 0, 3, 2]), torch.ones(4, *VIEW)).maps(maps)
    assert torch.equal(mixed, maps)


def test_ids_are_taken_whole():
    ids = torch.arange(8).reshape(2, 2, 2)
    own = torch.tensor([[[1.0, 0.0], [1.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]])
    assert Mix(torch.tensor([1, 0]), own).ids(ids).tolist() == [[[0, 5], [2, 3]], [[4, 5], [6, 7]]]


def test_a_label_weighs_what_share_of_the_tokens_is_its_own():
    own = torch.ones(3, 2, 4)
    own[0, 0, :3], own[1] = 0.0, 0.25
    targets = Mix(torch.tensor([2, 0, 1]), own).targets(torch.tensor([3, 0, 1]), 4)
    assert targets.tolist() == [[0, 0.375, 0, 0.625], [0.25, 0, 0, 0.75], [0, 1, 0, 0]]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kept", [0.0, 0.3, 1.0])
def test_targets_and_smoothing_give_timms_loss(smoothing, kept):
    generator = torch.Generator().manual_seed(3)
    logits, labels = torch.randn(6, 5, generator=generator), torch.tensor([0, 4, 2, 2, 1, 0])
    targets = Mix(torch.arange(6).flip(0), torch.full((6, *VIEW), kept)).targets(labels, 5)
    expected = SoftTargetCrossEntropy()(logits, mixup_target(labels, 5, lam=kept, smoothing=smoothing))
    assert F.cross_entropy(logits, targets, label_smoothing=smoothing).item() == pytest.approx(expected.item())


# What is drawn


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0, 3.0])
def test_one_uniform_draw_makes_one_of_a_beta_distribution(alpha):
    share = torch.linspace(0, 1, 1001)[:-1]
    kept = at_quantile(beta_quantiles(alpha, "cpu"), share)
    assert (kept >= 0).all()
    assert (kept <= 1).all()
    assert kept.numpy() == pytest.approx(beta.ppf(share.double().numpy(), alpha, alpha), abs=1e-3)
    assert at_quantile(beta_quantiles(alpha, "cpu"), torch.tensor([1 - 2**-24])).item() == pytest.approx(1, abs=1e-2)


def test_boxes_are_rectangles_about_their_centre_cut_off_at_the_border():
    random = np.random.default_rng(1)
    kept, down, right = random.random((3, 200)).astype(np.float32)
    kept[:2] = 0.0, 1.0
    boxes = cutmix_boxes(*map(torch.from_numpy, (kept, down, right)), VIEW)
    for box, *drawn in zip(boxes.tolist(), kept, down, right, strict=True):
        rows, columns = (
            [
                start <= place < start + length
                for length in [int(np.sqrt(np.float32(1) - drawn[0]) * np.float32(side))]
                for start in [int(centre * np.float32(side)) - length // 2]
                for place in range(side)
            ]
            for side, centre in zip(VIEW, drawn[1:], strict=True)
        )
        assert box == [[row and column for column in columns] for row in rows]
    assert boxes[0].any()
    assert not boxes[1].any()


def test_cutmix_takes_rectangles_and_mixup_the_same_share_everywhere():
    cut = sample(MixConfig(cutmix=1.0)).own
    assert ((cut == 0) | (cut == 1)).all()
    assert 0.3 < float(cut.mean()) < 0.95
    mixed = sample(MixConfig(mixup=0.8)).own
    assert (mixed == mixed[:, :1, :1]).all()
    assert len(mixed[:, 0, 0].unique()) == 16


def test_samples_are_mixed_with_their_probability_and_cut_with_theirs():
    config = MixConfig(cutmix=1.0, mixup=5.0, probability=0.6, cutmix_share=0.3)
    own = sample(config, count=20_000).own.flatten(1)
    mixed_up = int(((own[:, 0] > 0) & (own[:, 0] < 1)).sum())
    cut = int((own == 0).any(1).sum())
    low, high = binom.interval(1 - 1e-6, 20_000, 0.6 * 0.7)
    assert low <= mixed_up <= high
    low, high = binom.interval(1 - 1e-6, 20_000, 0.6 * 0.3 * 35 / 36)  # a box of less than one of 6 rows is empty
    assert low <= cut <= high


def test_where_only_one_is_on_the_share_of_cutmix_does_not_count():
    assert (sample(MixConfig(cutmix=1.0, cutmix_share=0.0)).own == 0).any()
    own = sample(MixConfig(mixup=1.0, cutmix_share=1.0)).own
    assert (own < 1).all()


def test_with_neither_everyone_stays_whole():
    assert (sample(MixConfig()).own == 1).all()


def test_mixtures_depend_on_positions_alone():
    config = MixConfig(cutmix=1.0, mixup=0.8)
    mixing = Mixing(config, mixup=0.8, pairing="neighbour", view=VIEW, device="cpu")
    whole = mixing.sample(draws())
    parts = [mixing.sample(draws()[start : start + 4]) for start in range(0, 16, 4)]
    assert torch.equal(torch.cat([part.own for part in parts]), whole.own)
    assert [4 * index + place for index, part in enumerate(parts) for place in part.partners.tolist()] == (
        whole.partners.tolist()
    )
    assert not torch.equal(mixing.sample(draws(1)).own, whole.own)


def test_the_weight_of_a_label_is_the_exact_share_of_its_tokens():
    mix = sample(MixConfig(cutmix=1.0), count=64)
    targets = mix.targets(torch.arange(64), 64)
    kept = (mix.own == 1).sum((1, 2))
    assert torch.equal(targets.diagonal(), kept / math.prod(VIEW))
    assert torch.equal(targets[torch.arange(64), mix.partners], 1 - targets.diagonal())


# Configuration


def test_the_half_of_token_adapt_may_have_a_mixup_of_its_own():
    assert MixConfig(mixup=0.3).adapted_mixup == 0.3
    assert MixConfig(mixup=0.3, token_adapt_mixup=0.8).adapted_mixup == 0.8
    assert MixConfig(mixup=0.3, token_adapt_mixup=0.0).adapted_mixup == 0.0


@pytest.mark.parametrize(
    "wrong",
    [{"cutmix": -1.0}, {"mixup": -0.1}, {"token_adapt_mixup": -0.1}, {"probability": 1.1}, {"cutmix_share": -1}],
)
def test_what_cannot_be_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(UserError, match=f"MixConfig: {name} = "):
        replace(MixConfig(), **wrong)
