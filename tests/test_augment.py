"""The augmentation of a training step: ids in, ids of views out."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

import tiny
from mtm.augment import Augment, AugmentConfig, centre
from tokenadapt.geometry import GeometryConfig, sample_crop, sample_geometry, warp
from tokenadapt.model import load_token_adapt
from tokens.store import TokenStore
from training.chance import Draws
from training.errors import UserError

GRID, VIEW = (8, 12), (6, 10)
OFF = AugmentConfig(crop=False)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    ids = tiny.striped_ids(3 * np.arange(16), GRID)  # each sample has codes of its own
    return TokenStore(tiny.make_store(tmp_path_factory.mktemp("store"), ids))


@pytest.fixture(scope="module")
def token_adapt(tmp_path_factory):
    return str(tiny.make_token_adapt(tmp_path_factory.mktemp("ta"), grid=GRID, view=VIEW))


@pytest.fixture
def ids(store):
    return store.ids(range(16))


def draws(step=0, count=16):
    return Draws(7, step, torch.arange(count))


def augment(store, config, view=VIEW):
    return Augment(config, store=store, view=view, device="cpu")


def nearest(embeddings, codebook):
    """Ids of the codes at the least distance, in numpy: (b, c, h, w) to (b, h, w)."""
    maps = np.asarray(embeddings, np.float64).transpose(0, 2, 3, 1)[..., None, :]
    return np.linalg.norm(maps - codebook.numpy().astype(np.float64), axis=-1).argmin(-1)


def embedded(ids, codebook):
    return codebook.numpy().astype(np.float64)[ids.numpy()].transpose(0, 3, 1, 2)


# What is off


def test_without_any_augmentation_ids_come_back_unchanged(store, ids):
    assert torch.equal(augment(store, OFF, GRID)(ids, draws()), ids)


def test_without_any_augmentation_views_are_cut_at_the_centre(store, ids):
    assert torch.equal(augment(store, OFF)(ids, draws()), ids[:, 1:7, 1:11])


def test_what_is_cut_from_an_uneven_margin_loses_more_at_the_end():
    grid = torch.arange(20).reshape(1, 4, 5)
    assert centre(grid, (3, 2)).tolist() == [[[1, 2], [6, 7], [11, 12]]]


# Each part


def test_crops_are_warps_of_embeddings_to_the_nearest_code(store, ids):
    config = replace(OFF, crop=True, geometry=GeometryConfig(crop_scale=(0.3, 0.6)))
    views = augment(store, config)(ids, draws())
    crop = sample_crop(config.geometry, draws(), 1.5)
    embeddings = torch.from_numpy(embedded(ids, store.codebook)).float()
    expected = nearest(warp(embeddings, crop, VIEW, mode="bicubic"), store.codebook)
    assert (views.numpy() == expected).mean() > 0.999  # two codes may be equally near


def test_color_adapt_takes_the_statistics_of_the_neighbour(store, ids):
    views = augment(store, replace(OFF, color_adapt=1.0), GRID)(ids, draws())
    maps = embedded(ids, store.codebook)
    neighbours = maps[[index ^ 1 for index in range(16)]]
    mean, deviation = maps.mean((2, 3), keepdims=True), maps.std((2, 3), keepdims=True)
    adapted = (maps - mean) / deviation * neighbours.std((2, 3), keepdims=True) + neighbours.mean((2, 3), keepdims=True)
    assert (views.numpy() == nearest(adapted, store.codebook)).mean() > 0.99
    assert not torch.equal(views, ids)


def test_noise_changes_more_ids_the_larger_it_is(store, ids):
    def changed(scale):
        config = replace(OFF, noise=1.0, noise_channel=scale, noise_element=scale)
        return float((augment(store, config, GRID)(ids, draws()) != ids).float().mean())

    shares = [changed(scale) for scale in (0.0, 0.1, 0.5, 3.0)]
    assert shares[0] == 0.0
    assert shares == sorted(shares)
    assert shares[-1] > 0.8


def test_noise_is_measured_in_deviations_of_the_codebook(tmp_path, ids):
    codebook = torch.randn(tiny.CODES, 5, generator=torch.Generator().manual_seed(0))
    views = []
    for scale in (1.0, 50.0):
        store = TokenStore(tiny.make_store(tmp_path / str(scale), ids, codebook=codebook * scale))
        views.append(augment(store, replace(OFF, noise=1.0), GRID)(ids, draws()))
    assert float((views[0] == views[1]).float().mean()) > 0.99


def test_recolouring_and_noise_come_with_their_probabilities_and_exclude_each_other(store, ids):
    config = replace(OFF, color_adapt=0.2, noise=0.3)

    def share_changed(config):
        pipeline = augment(store, config, GRID)
        changed = [(pipeline(ids, draws(step)) != ids).flatten(1).any(1) for step in range(60)]
        return float(torch.stack(changed).float().mean())

    assert share_changed(config) == pytest.approx(0.5, abs=0.05)
    assert share_changed(replace(config, color_adapt=0.0)) == pytest.approx(0.3, abs=0.05)
    for step in range(20):
        recoloured = augment(store, replace(config, noise=0.0), GRID)(ids, draws(step))
        chosen = (recoloured != ids).flatten(1).any(1)
        assert torch.equal(augment(store, config, GRID)(ids, draws(step))[chosen], recoloured[chosen])


def test_token_adapt_makes_every_second_view(store, ids, token_adapt):
    config = AugmentConfig(token_adapt=token_adapt)
    views = augment(store, config)(ids, draws())
    cropped = augment(store, replace(config, token_adapt=None))(ids, draws())
    assert torch.equal(views[0::2], cropped[0::2])
    model, _ = load_token_adapt(token_adapt)
    geometry = sample_geometry(config.geometry, draws(), 1.5)[1::2]
    embeddings = torch.from_numpy(embedded(ids[1::2], store.codebook)).float()
    logits = model(embeddings, partial(warp, geometry=geometry, size=(12, 20)))
    assert torch.equal(views[1::2], logits.argmax(1))


# Together


@pytest.fixture(scope="module")
def everything(token_adapt):
    return AugmentConfig(token_adapt=token_adapt, color_adapt=0.4, noise=0.4)


def test_views_are_ids_of_the_view_and_inputs_are_not_changed(store, ids, everything):
    before = ids.clone()
    views = augment(store, everything)(ids, draws())
    assert views.shape == (16, *VIEW)
    assert views.dtype == torch.int64
    assert 0 <= int(views.min()) <= int(views.max()) < tiny.CODES
    assert torch.equal(ids, before)


@pytest.mark.parametrize("part", [2, 4, 8])
def test_a_view_depends_on_its_position_and_not_on_the_division_of_the_batch(store, ids, everything, part):
    pipeline = augment(store, everything)
    whole = pipeline(ids, draws())
    parts = [pipeline(ids[start : start + part], draws()[start : start + part]) for start in range(0, 16, part)]
    assert float((torch.cat(parts) == whole).float().mean()) > 0.999  # sums over fewer rows may round otherwise


def test_views_change_from_step_to_step_and_repeat_for_the_same_step(store, ids, everything):
    pipeline = augment(store, everything)
    assert torch.equal(pipeline(ids, draws(3)), pipeline(ids, draws(3)))
    assert not torch.equal(pipeline(ids, draws(4)), pipeline(ids, draws(3)))


@pytest.mark.parametrize("part", [1, 3])
def test_color_adapt_refuses_a_batch_that_divides_pairs(store, ids, part):
    pipeline = augment(store, replace(OFF, color_adapt=0.5), GRID)
    with pytest.raises(UserError, match="even"):
        pipeline(ids[part : 2 * part], draws()[part : 2 * part])


# What does not fit


def test_the_token_adapt_of_another_tokenizer_is_refused(store, tmp_path):
    other = tiny.make_token_adapt(tmp_path, grid=GRID, view=VIEW, fingerprint="b" * 64)
    with pytest.raises(UserError, match=r"made by tokenizer aaaaaaaaaaaa, but TokenAdapt in .* tokenizer bbbbbbbbbbbb"):
        augment(store, AugmentConfig(token_adapt=str(other)))


@pytest.mark.parametrize("shape", [{"grid": (8, 8), "view": VIEW}, {"grid": GRID, "view": GRID}])
def test_the_token_adapt_of_another_grid_or_view_is_refused(store, tmp_path, shape):
    other = tiny.make_token_adapt(tmp_path, **shape)
    with pytest.raises(UserError, match=r"this training needs \(8, 12\) to \(6, 10\)"):
        augment(store, AugmentConfig(token_adapt=str(other)))


def test_token_adapt_refuses_an_odd_batch(store, ids, token_adapt):
    with pytest.raises(UserError, match="--batch_size 3 must be even"):
        augment(store, AugmentConfig(token_adapt=token_adapt))(ids[:3], draws()[:3])


@pytest.mark.parametrize("crop", [False, True])
def test_a_view_larger_than_the_grid_is_refused(store, crop):
    with pytest.raises(UserError, match="view"):
        augment(store, replace(OFF, crop=crop), (10, 12))


@pytest.mark.parametrize("wrong", [{"noise": -0.1}, {"color_adapt": -0.1}, {"noise": 0.6, "color_adapt": 0.6}])
def test_impossible_probabilities_are_refused(wrong):
    with pytest.raises(UserError, match=r"AugmentConfig: (noise|color_adapt) = "):
        AugmentConfig(**wrong)
