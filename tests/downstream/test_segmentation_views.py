"""Views of windows: tokens and label maps are warped alike, from one draw."""

import numpy as np
import pytest
import torch
from einops import repeat

import tiny
import tiny_segmentation
from seitpp.downstream.segmentation.batches import WindowBatches
from seitpp.downstream.segmentation.objective import pixel_loss
from seitpp.downstream.segmentation.views import (
    ViewsConfig,
    WindowViews,
    sample_window_geometry,
    warp_ids,
    warp_masks,
)
from seitpp.downstream.segmentation.windows import IGNORE, open_segmentation
from seitpp.runtime.errors import UserError
from seitpp.tokenadapt.geometry import warp
from seitpp.tokenadapt.model import adapt_ids, load_token_adapt
from seitpp.tokens.codebook import embed
from seitpp.tokens.loader import TrainingBatches
from seitpp.training.random_streams import Draws


def draws(count, step=0):
    return Draws(5, step, torch.arange(count))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder, _ = tiny_segmentation.make_segmentation_store(tmp_path_factory.mktemp("views") / "store", stride=(8, 12))
    return open_segmentation(folder)


def batch_of(rows, count=8):
    which = np.arange(count) % len(rows)
    return rows.store.ids(which), rows.masks(which)


def by_hand(mask, matrix, size):
    """The label under the centre of each pixel of a view, by a loop; IGNORE outside."""
    height, width = mask.shape
    view = np.full(size, IGNORE, np.uint8)
    for row, column in np.ndindex(*size):
        x, y = (2 * column + 1) / size[1] - 1, (2 * row + 1) / size[0] - 1
        x, y = (float(matrix[axis] @ np.array([x, y, 1.0])) for axis in (0, 1))
        if abs(x) <= 1 and abs(y) <= 1:
            place = ((y + 1) * height / 2, (x + 1) * width / 2)
            view[row, column] = mask[min(int(place[0]), height - 1), min(int(place[1]), width - 1)]
    return view


def test_the_warp_of_a_label_map_is_that_of_its_pixels(rows):
    masks = batch_of(rows)[1]
    geometry = sample_window_geometry(ViewsConfig(), draws(8))
    warped = warp_masks(masks, geometry).numpy()
    for mask, matrix, view in zip(masks.numpy(), geometry.double().numpy(), warped, strict=True):
        assert (view == by_hand(mask, matrix, mask.shape)).mean() > 0.995  # a centre may fall between two pixels


def test_tokens_and_label_maps_show_the_same_place():
    """Label maps whose pixels name their token: the token of a view is that under its centre, as the map says."""
    height, width, side = 4, 6, 5
    names = torch.arange(height * width).reshape(1, height, width).repeat(16, 1, 1)
    masks = repeat(names, "b h w -> b (h p) (w q)", p=side, q=side).to(torch.uint8)
    geometry = sample_window_geometry(ViewsConfig(), draws(16))
    ids, views = warp_ids(names, geometry, (height, width)), warp_masks(masks, geometry)
    centres = views[:, side // 2 :: side, side // 2 :: side]
    inside = centres != IGNORE
    assert 0.5 < inside.float().mean() < 1.0
    assert (ids[inside] == centres[inside]).float().mean() > 0.98


def test_a_flip_alone_is_exact_for_tokens_and_label_maps(rows):
    ids, masks = batch_of(rows)
    views = WindowViews(ViewsConfig(scale=(1.0, 1.0), flip=1.0), store=rows.store, device="cpu")
    flipped, flipped_masks = views(ids, masks, draws(8))
    assert torch.equal(flipped, ids.flip(-1))
    assert torch.equal(flipped_masks, masks.flip(-1))


def test_without_scale_and_flip_windows_stay_as_they_are(rows):
    ids, masks = batch_of(rows)
    views = WindowViews(ViewsConfig(scale=(1.0, 1.0), flip=0.0), store=rows.store, device="cpu")
    same, same_masks = views(ids, masks, draws(8))
    assert torch.equal(same, ids)
    assert torch.equal(same_masks, masks)


def test_scales_flips_and_places_are_spread_as_the_configuration_says():
    geometry = sample_window_geometry(ViewsConfig(scale=(0.5, 2.0), flip=0.3), draws(4000))
    scale = 1 / geometry[:, 1, 1]
    assert torch.equal(geometry[:, 0, 0].abs(), geometry[:, 1, 1])
    assert (geometry[:, 0, 0] < 0).float().mean() == pytest.approx(0.3, abs=0.03)
    for low, high in ((0.5, 0.8), (0.8, 1.4), (1.4, 2.0)):
        share = ((scale >= low) & (scale < high)).float().mean()
        assert share == pytest.approx((high - low) / 1.5, abs=0.03)
    enlarged = geometry[scale > 1]
    assert (enlarged[:, :2, 2].abs() + enlarged[:, 1, 1, None]).max() <= 1 + 1e-6  # a view lies inside of its window
    smaller = geometry[scale < 1]
    corners = (1 - smaller[:, :2, 2].abs()) / smaller[:, 1, 1, None]  # and a small window inside of its view
    assert corners.abs().max() <= 1 + 1e-6


def test_half_of_the_samples_pass_tokenadapt_and_all_label_maps_the_same_warp(rows, tmp_path):
    folder = tiny.make_token_adapt(tmp_path / "adapt")
    config = ViewsConfig(token_adapt=str(folder))
    ids, masks = batch_of(rows)
    views, view_masks = WindowViews(config, store=rows.store, device="cpu")(ids, masks, draws(8))
    geometry = sample_window_geometry(config, draws(8))
    assert torch.equal(view_masks, warp_masks(masks, geometry))
    assert torch.equal(views[0::2], warp_ids(ids[0::2], geometry[0::2], tiny.GRID))
    model, _ = load_token_adapt(folder)
    odd = adapt_ids(
        model, embed(ids[1::2], rows.store.codebook), lambda maps: warp(maps, geometry[1::2], model.map_size)
    )
    assert torch.equal(views[1::2], odd)
    assert not torch.equal(views[1::2], warp_ids(ids[1::2], geometry[1::2], tiny.GRID))


def test_colours_change_tokens_and_never_label_maps(rows):
    ids, masks = batch_of(rows)
    views = WindowViews(
        ViewsConfig(scale=(1.0, 1.0), flip=0.0, color_adapt=0.5, noise=0.5), store=rows.store, device="cpu"
    )
    changed, same = views(ids, masks, draws(8))
    assert not torch.equal(changed, ids)
    assert torch.equal(same, masks)


def test_views_are_a_function_of_the_place_in_the_global_batch(rows):
    ids, masks = batch_of(rows)
    views = WindowViews(ViewsConfig(color_adapt=0.5), store=rows.store, device="cpu")
    whole = views(ids, masks, draws(8))
    half = views(ids[4:], masks[4:], draws(8)[slice(4, 8)])
    assert all(torch.equal(one[4:], other) for one, other in zip(whole, half, strict=True))


def test_tokenadapt_for_another_grid_and_an_odd_batch_are_refused(rows, tmp_path):
    smaller = tiny.make_token_adapt(tmp_path / "smaller", view=(4, 4))
    with pytest.raises(UserError, match=r"takes \(4, 6\) tokens to \(4, 4\); windows need \(4, 6\) to \(4, 6\)"):
        WindowViews(ViewsConfig(token_adapt=str(smaller)), store=rows.store, device="cpu")
    ids, masks = batch_of(rows, 3)
    with pytest.raises(UserError, match="--batch_size 3 must be even"):
        WindowViews(ViewsConfig(color_adapt=1.0), store=rows.store, device="cpu")(ids, masks, draws(3))


@pytest.mark.parametrize("wrong", [{"scale": (2.0, 0.5)}, {"scale": (0.0, 1.0)}, {"flip": 1.5}, {"noise": -1.0}])
def test_impossible_views_are_refused_by_name(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        ViewsConfig(**wrong)


def test_the_loss_is_the_mean_over_labelled_pixels_by_hand():
    logits = torch.tensor([[[[2.0, 0.0]], [[0.0, 1.0]]]])
    masks = torch.tensor([[[0, IGNORE]]], dtype=torch.uint8)
    expected = np.log(1 + np.exp(-2.0))
    assert float(pixel_loss(logits, masks)) == pytest.approx(expected, abs=1e-6)
    both = torch.tensor([[[0, 1]]], dtype=torch.uint8)
    other = np.log(1 + np.exp(-1.0))
    weighted = pixel_loss(logits, both, torch.tensor([3.0, 1.0]))
    assert float(weighted) == pytest.approx((3 * expected + other) / 4, abs=1e-6)


def test_a_batch_without_any_label_teaches_nothing():
    logits = torch.randn(2, 3, 2, 2, requires_grad=True)
    loss = pixel_loss(logits, torch.full((2, 4, 4), IGNORE, dtype=torch.uint8))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert float(logits.grad.abs().sum()) == 0.0


def test_batches_that_are_read_ahead_are_those_of_their_steps(rows):
    def make(store, **more):
        return TrainingBatches(store, 3, seed=2, accum_iter=2, **more)

    batches, plain = WindowBatches(rows, make, accum_iter=2), make(rows.store)
    for step, micro in [(0, 0), (0, 1), (1, 0), (1, 1), (5, 1), (0, 0)]:
        batch, expected = batches(step, micro), plain(step, micro)
        assert torch.equal(batch.ids, expected.ids)
        assert torch.equal(batch.positions, expected.positions)
        chosen, _ = plain.order.at(step, micro)
        assert torch.equal(batch.masks, rows.masks(chosen))
