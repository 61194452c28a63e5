"""A GPU unpacks the ids and draws the numbers that a CPU does, so a run does not depend on which it runs on."""

import math

import numpy as np
import pytest
import torch

import tiny
from seitpp.mtm.augmentation.augment import Augment
from seitpp.mtm.augmentation.eda import sample_replacements, sample_swap
from seitpp.mtm.augmentation.mixing import MixConfig, Mixing
from seitpp.mtm.augmentation.partners import sample_partners
from seitpp.mtm.masking import MaskConfig, sample_masks
from seitpp.tokenadapt.geometry import GeometryConfig, sample_crop, sample_geometry
from seitpp.tokens.codec import pack, unpack
from seitpp.tokens.loader import TrainingBatches, evaluation_batches
from seitpp.tokens.store import TokenStore
from seitpp.training.batched_draws import BatchedDraws
from seitpp.training.random_streams import Draws, philox
from small_runs import GRID, VIEW, everything

# Ids

CODEBOOKS = [2, 37, 256, 257, 391, 512, 4096, 16384, 65536, 2**18, 2**24]
GRIDS = [(1, 1), (3, 5), (7, 9), (14, 14), (32, 32), (1, 17)]


@pytest.mark.parametrize("codes", CODEBOOKS)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_packed_rows_are_the_same_ids_on_the_device(device, codes, grid):
    ids = tiny.random_ids(5, codes, grid)
    ids[0], ids[1] = 0, codes - 1
    packed = pack(ids, codes)
    there = unpack(packed.to(device), codes, grid)
    assert there.dtype == torch.int64
    assert there.cpu().tolist() == ids.tolist()
    assert pack(ids.to(device), codes).cpu().tolist() == packed.tolist()


def test_a_batch_is_the_same_on_the_device(device, world):
    store = TokenStore(world / "train")
    here, there = (TrainingBatches(store, 16, seed=3, device=where) for where in ("cpu", device))
    for step in range(8):
        batch, expected = there(step), here(step)
        for name in ("ids", "labels", "positions"):
            assert getattr(batch, name).device.type == device.type
            assert torch.equal(getattr(batch, name).cpu(), getattr(expected, name)), name


def test_every_row_is_evaluated_on_the_device(device, world):
    store = TokenStore(world / "test")
    ids = torch.cat([batch.ids.cpu() for batch in evaluation_batches(store, 7, device=device)])
    assert torch.equal(ids, store.ids(np.arange(24)))


# Chance


def draws(device, seed=(5 << 32) + 9, step=70, count=257):
    return Draws(seed, step, 3 * torch.arange(count, device=device) + (1 << 20))


def test_draws_made_in_one_pass_are_the_same_on_the_device(device):
    chance = BatchedDraws((5 << 32) + 9)
    for step in (69, 70):
        batched, plain = chance.at(step, draws(device).positions), draws("cpu", step=step)
        for part in (slice(None), slice(1, None, 2)):
            assert torch.equal(batched[part].uniform("crop", 4).cpu(), plain[part].uniform("crop", 4))
            assert torch.equal(batched[part].uniform("mask", 5, 9).cpu(), plain[part].uniform("mask", 5, 9))


def test_the_generator_gives_the_same_bits_on_the_device(device):
    words = torch.from_numpy(np.random.default_rng(0).integers(1 << 32, size=(4, 1000)))
    expected = philox(words.unbind(0), (0xA4093822, 0x299F31D0))
    found = philox(words.to(device).unbind(0), (0xA4093822, 0x299F31D0))
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.cpu(), other)


def mix(config):
    def sample(each):
        mixing = Mixing(config, mixup=config.mixup, pairing="random", view=VIEW, device=each.device)
        mixed = mixing.sample(each)
        return mixed.partners, mixed.own

    return sample


def masks(each):
    drawn = sample_masks(MaskConfig(), each, math.prod(VIEW) // 4)
    return drawn.masked, drawn.dropped


ASPECT = GRID[1] / GRID[0]
DRAWN = {
    "uniform": lambda each: (each.uniform("a", 3, 5),),
    "normal": lambda each: (each.normal("a", 8, 1, 1), each.normal("b", 8, *GRID)),
    "crop": lambda each: (sample_crop(GeometryConfig(), each, ASPECT),),
    "geometry": lambda each: (sample_geometry(GeometryConfig(affine=1.0), each, ASPECT),),
    "masks": masks,
    "neighbours": lambda each: (sample_partners("neighbour", each, "a"),),
    "reversed partners": lambda each: (sample_partners("reversed", each, "a"),),
    "random partners": lambda each: (sample_partners("random", each, "a"),),
    "synonyms": lambda each: sample_replacements(each, GRID, 0.25),
    "swaps": lambda each: (sample_swap(each, GRID, 0.25),),
    "cutmix": mix(MixConfig(cutmix=1.0)),
    "mixup": mix(MixConfig(mixup=0.8)),
    "both": mix(MixConfig(cutmix=1.0, mixup=0.8, probability=0.7)),
}
EXACT = {"uniform", "synonyms", "cutmix"}
"""Fractions that must be equal to the last bit, as ids, places and masks always must."""


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("step", [0, 70, (1 << 32) - 1])
def test_what_a_step_draws_is_the_same_on_the_device(device, name, step):
    here, there = (DRAWN[name](draws(where, step=step)) for where in ("cpu", device))
    for expected, found in zip(here, there, strict=True):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        if name in EXACT or not found.is_floating_point():
            assert torch.equal(found.cpu(), expected)
        else:
            torch.testing.assert_close(found.cpu(), expected, atol=1e-6, rtol=1e-6)


def test_the_ratio_of_a_step_is_the_same_on_the_device(device):
    for step in range(20):
        assert draws(device, step=step).per_step("mask ratio") == draws("cpu", step=step).per_step("mask ratio")


@pytest.mark.parametrize("pairing", ["neighbour", "reversed", "random"])
def test_the_views_of_a_step_are_the_same_on_the_device_but_where_two_codes_are_equally_near(device, world, pairing):
    store = TokenStore(world / "train")
    config = everything(world, partners=pairing, mix=MixConfig(cutmix=1.0, mixup=0.4, token_adapt_mixup=0.8))
    same = {"cropped": [], "adapted": []}
    for step in range(4):
        rows = np.arange(16 * step, 16 * step + 16)
        (expected, wanted), (found, targets) = (
            Augment(config, store=store, view=VIEW, device=where).mixed(
                store.ids(rows).to(where), torch.arange(16, device=where), draws(where, step=step, count=16), classes=16
            )
            for where in ("cpu", device)
        )  # fmt: skip
        torch.testing.assert_close(targets.cpu(), wanted, atol=1e-6, rtol=1e-6)
        same["cropped"].append((found.cpu() == expected)[0::2].double().mean())
        same["adapted"].append((found.cpu() == expected)[1::2].double().mean())
    assert np.mean(same["cropped"]) > 0.999
    assert np.mean(same["adapted"]) > 0.95  # a GPU convolves in TF32, and a TokenAdapt that knows nothing is never sure
