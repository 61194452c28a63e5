"""Geometry: one affine map a sample, and one warp for pixels and small maps alike.

A map from output to source in normalised coordinates says, for the centre of each output pixel, where it reads.
Warping a map that holds its own coordinates therefore gives the matrix product: most tests use that closed form.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from seitpp.runtime.errors import UserError
from seitpp.tokenadapt.geometry import IDENTITY, GeometryConfig, around_view, sample_crop, sample_geometry, warp
from seitpp.tokens.views import centre, centre_pixels, put
from seitpp.training.random_streams import Draws


def only(aspect=1.0, **parts):
    """A config of nothing but `parts`; the crop is the whole source of this aspect."""
    nothing = replace(IDENTITY, rotation=0.0, translation=0.0, shear=0.0, crop_ratio=(aspect, aspect))
    return replace(nothing, **parts)


def draws(count, *, step=0, seed=2):
    return Draws(seed, step, torch.arange(count))


def centres(size):
    """Normalised coordinates of the pixel centres along one axis."""
    return (2.0 * np.arange(size) + 1.0) / size - 1.0


def coordinate_map(size):
    """(1, 2, h, w): channel 0 holds x, channel 1 holds y of each pixel's centre."""
    height, width = size
    x, y = np.meshgrid(centres(width), centres(height))
    return torch.from_numpy(np.stack([x, y])[None])


def where_read(matrix, size):
    """(2, h, w): where each output pixel reads, by the matrix product."""
    height, width = size
    x, y = np.meshgrid(centres(width), centres(height))
    points = np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    return (np.asarray(matrix, np.float64) @ points)[:2].reshape(2, height, width)


def in_pixels(matrices, aspect):
    """The linear parts as maps of lengths: x measured in units of the height."""
    scale = np.diag([aspect, 1.0])
    return scale @ matrices[:, :2, :2].numpy().astype(np.float64) @ np.linalg.inv(scale)


def noise_map(*shape):
    return torch.from_numpy(np.random.default_rng(0).standard_normal(shape)).float()


# Warp


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
def test_identity_is_identity(mode):
    maps = noise_map(2, 3, 5, 7)
    warped = warp(maps, torch.eye(3).repeat(2, 1, 1), (5, 7), mode=mode)
    assert warped.numpy() == pytest.approx(maps.numpy(), abs=1e-5)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_a_quarter_turn_moves_every_pixel_by_hand(mode):
    maps = noise_map(1, 2, 4, 4)
    quarter = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])  # reads at x = -y', y = x'
    turned = warp(maps, quarter, (4, 4), mode=mode)
    for row in range(4):
        for column in range(4):
            expected = maps[0, :, column, 3 - row]
            assert turned[0, :, row, column].tolist() == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize("size", [(6, 10), (12, 20), (3, 5), (7, 4)])
def test_a_warp_reads_where_the_matrix_says_at_every_size(size):
    matrix = torch.tensor([[0.5, 0.2, 0.1], [-0.1, 0.4, -0.2], [0.0, 0.0, 1.0]], dtype=torch.float64)
    warped = warp(coordinate_map((6, 10)), matrix[None], size)
    assert warped.shape == (1, 2, *size)
    assert warped[0].numpy() == pytest.approx(where_read(matrix, size), abs=1e-6)


def test_pixels_and_a_smaller_map_are_warped_alike():
    geometry = sample_geometry(GeometryConfig(crop_scale=(0.2, 0.5)), draws(20), aspect=1.5).double()
    for matrix in geometry:
        small = warp(coordinate_map((8, 12)), matrix[None], (8, 12))
        large = warp(coordinate_map((32, 48)), matrix[None], (32, 48))
        shrunk = torch.nn.functional.avg_pool2d(large, 4)
        read = where_read(matrix, (8, 12))
        inside = np.abs(read).max(0) < 0.8  # near the border both take border values, of different pixels
        assert small[0].numpy()[:, inside] == pytest.approx(shrunk[0].numpy()[:, inside], abs=1e-6)


def test_outside_the_source_the_border_is_repeated():
    aside = torch.tensor([[[1.0, 0.0, 10.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]])
    maps = noise_map(1, 2, 3, 5)
    assert warp(maps, aside, (3, 5)).numpy() == pytest.approx(maps[..., -1:].expand(-1, -1, -1, 5).numpy(), abs=1e-6)


def test_each_sample_is_warped_by_its_own_matrix():
    maps = noise_map(3, 2, 4, 6)
    geometry = sample_geometry(GeometryConfig(flip=0.5, affine=1.0), draws(3))
    together = warp(maps, geometry, (4, 6))
    alone = torch.cat([warp(maps[i : i + 1], geometry[i : i + 1], (4, 6)) for i in range(3)])
    assert torch.equal(together, alone)


@pytest.mark.parametrize(("grid", "view"), [((4, 6), (4, 6)), ((8, 10), (4, 6)), ((7, 10), (4, 5))])
def test_a_geometry_around_a_view_shows_the_same_at_the_centre_of_the_grid(grid, view):
    maps = torch.randn(3, 2, 9, 11)
    geometry = sample_geometry(GeometryConfig(affine=1.0), draws(3), 11 / 9)
    around = around_view(geometry, grid, view)
    shown, whole = warp(maps, geometry, view), warp(maps, around, grid)
    assert centre(whole, view).numpy() == pytest.approx(shown.numpy(), abs=1e-5)
    assert torch.equal(around, geometry) == (grid == view)


def test_the_pixels_of_a_view_are_those_of_its_tokens():
    ids = torch.arange(7 * 5).reshape(1, 7, 5)
    pixels = ids.repeat_interleave(4, dim=1).repeat_interleave(3, dim=2)[:, None]
    for view in ((7, 5), (4, 2), (3, 5), (1, 4)):
        shown = centre_pixels(pixels, (7, 5), view)
        assert torch.equal(shown[:, 0, ::4, ::3], centre(ids, view))
        assert shown.shape[2:] == (4 * view[0], 3 * view[1])


def test_what_was_cut_out_at_the_centre_can_be_put_back():
    whole, other = torch.arange(2 * 5 * 4).reshape(2, 5, 4), torch.full((2, 2, 3), -1)
    assert torch.equal(put(whole, centre(whole, (2, 3))), whole)
    again = put(whole, other)
    assert torch.equal(centre(again, (2, 3)), other)
    assert int((again != whole).sum()) == 2 * 2 * 3


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
def test_places_are_as_exact_in_low_precision(mode):
    """A map of its own columns' numbers: what comes back says where it was read."""
    columns = torch.arange(64.0).expand(6, 1, 4, 64)  # whole numbers below 256 are exact in bfloat16
    geometry = sample_geometry(GeometryConfig(affine=1.0), Draws(0, 0, torch.arange(6)), 16.0)
    exact = warp(columns, geometry, (4, 64), mode=mode)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(warp(columns, geometry, (4, 64), mode=mode), exact)
    low = warp(columns.bfloat16(), geometry, (4, 64), mode=mode)
    assert low.dtype == torch.bfloat16
    assert torch.equal(low, exact.bfloat16())


def test_a_warp_keeps_its_inputs_and_the_type():
    maps, geometry = noise_map(2, 3, 4, 6), sample_geometry(GeometryConfig(), draws(2))
    before = maps.clone(), geometry.clone()
    assert warp(maps, geometry, (5, 3)).dtype == torch.float32
    assert warp(maps.double(), geometry, (5, 3)).dtype == torch.float64
    assert torch.equal(maps, before[0])
    assert torch.equal(geometry, before[1])


# What is drawn


@pytest.mark.parametrize("aspect", [1.0, 1.5, 0.4])
def test_without_any_part_the_geometry_is_the_identity(aspect):
    for config in (IDENTITY, only(aspect)):
        geometry = sample_geometry(config, draws(5), aspect)
        assert geometry.numpy() == pytest.approx(np.tile(np.eye(3), (5, 1, 1)), abs=1e-6)


def test_a_flip_mirrors_the_columns():
    geometry = sample_geometry(only(1.5, flip=1.0), draws(2), 1.5)
    maps = noise_map(2, 3, 4, 6)
    assert warp(maps, geometry, (4, 6)).numpy() == pytest.approx(maps.flip(3).numpy(), abs=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_flips_come_with_their_probability(share):
    geometry = sample_geometry(only(flip=share), draws(2000))
    assert float((geometry[:, 0, 0] < 0).float().mean()) == pytest.approx(share, abs=0.03)


def test_crop_of_the_whole_grid_is_the_identity():
    crop = sample_crop(IDENTITY, draws(4), aspect=1.0)
    maps = noise_map(4, 2, 5, 5)
    assert warp(maps, crop, (5, 5)).numpy() == pytest.approx(maps.numpy(), abs=1e-5)


@pytest.mark.parametrize("aspect", [1.0, 1.5, 0.5])
def test_crops_lie_inside_and_have_the_area_and_the_ratio_asked_for(aspect):
    config = GeometryConfig(crop_scale=(0.1, 0.3), crop_ratio=(3 / 4, 4 / 3))
    crop = sample_crop(config, draws(3000), aspect).double().numpy()
    width, height, x, y = crop[:, 0, 0], crop[:, 1, 1], crop[:, 0, 2], crop[:, 1, 2]
    assert np.abs(x).max() <= 1 - width.min() + 1e-6
    assert (np.abs(x) + width).max() <= 1 + 1e-6
    assert (np.abs(y) + height).max() <= 1 + 1e-6
    fits = (width < 0.999) & (height < 0.999)  # a side that would not fit is cut, and the area with it
    area, ratio = (width * height)[fits], (aspect * width / height)[fits]
    assert area.min() == pytest.approx(0.1, abs=0.002)
    assert area.max() == pytest.approx(0.3, abs=0.002)
    assert area.mean() == pytest.approx(0.2, abs=0.01)
    assert ratio.min() == pytest.approx(3 / 4, abs=0.01)
    assert ratio.max() == pytest.approx(4 / 3, abs=0.01)
    assert np.log(ratio).mean() == pytest.approx(0.0, abs=0.03)
    assert (crop[:, 0, 1] == 0).all()
    assert (crop[:, 1, 0] == 0).all()


def test_crops_lie_everywhere():
    crop = sample_crop(GeometryConfig(crop_scale=(0.25, 0.25), crop_ratio=(1.0, 1.0)), draws(2000)).numpy()
    for axis in (0, 1):
        assert crop[:, axis, 2].min() == pytest.approx(-0.5, abs=0.01)
        assert crop[:, axis, 2].max() == pytest.approx(0.5, abs=0.01)
        assert crop[:, axis, 2].mean() == pytest.approx(0.0, abs=0.03)


@pytest.mark.parametrize("aspect", [1.0, 1.5, 0.4])
def test_rotations_keep_lengths_on_any_aspect_and_go_both_ways(aspect):
    geometry = sample_geometry(only(aspect, affine=1.0, rotation=30.0), draws(2000), aspect)
    linear = in_pixels(geometry, aspect)
    assert linear @ linear.transpose(0, 2, 1) == pytest.approx(np.tile(np.eye(2), (2000, 1, 1)), abs=1e-5)
    angles = np.degrees(np.arctan2(linear[:, 1, 0], linear[:, 0, 0]))
    assert angles.min() == pytest.approx(-30, abs=0.7)
    assert angles.max() == pytest.approx(30, abs=0.7)
    assert (angles == 0).mean() == pytest.approx(0.5, abs=0.05)  # each part comes with probability 1/2


@pytest.mark.parametrize("aspect", [1.0, 1.5])
def test_shear_has_both_signs_along_both_axes_and_keeps_the_area(aspect):
    geometry = sample_geometry(only(aspect, affine=1.0, shear=15.0), draws(2000), aspect)
    linear = in_pixels(geometry, aspect)
    assert np.linalg.det(linear) == pytest.approx(np.ones(2000), abs=1e-5)
    limit = math.tan(math.radians(15))
    for sheared in (linear[:, 0, 1], linear[:, 1, 0]):
        assert sheared.min() == pytest.approx(-limit, abs=0.02)
        assert sheared.max() == pytest.approx(limit, abs=0.02)
        assert (sheared == 0).mean() == pytest.approx(0.5, abs=0.05)


def test_translations_are_shares_of_the_side_to_both_signs():
    geometry = sample_geometry(only(1.5, affine=1.0, translation=0.2), draws(2000), 1.5)
    for axis in (0, 1):
        shift = geometry[:, axis, 2].numpy() / 2  # the side is 2 long in normalised coordinates
        assert shift.min() == pytest.approx(-0.2, abs=0.01)
        assert shift.max() == pytest.approx(0.2, abs=0.01)


def test_affine_maps_come_with_their_probability():
    config = only(affine=0.4, rotation=30.0)
    geometry = sample_geometry(config, draws(3000))
    assert float((geometry[:, 0, 1] != 0).float().mean()) == pytest.approx(0.4 / 2, abs=0.03)


def test_a_geometry_is_flip_after_affine_after_crop():
    config = GeometryConfig(affine=1.0, flip=0.5)
    flip = sample_geometry(only(1.5, flip=0.5), draws(50), 1.5)
    crop = sample_crop(config, draws(50), 1.5)
    affine = sample_geometry(replace(config, flip=0.0, crop_scale=(1.0, 1.0), crop_ratio=(1.5, 1.5)), draws(50), 1.5)
    expected = flip.double() @ affine.double() @ crop.double()
    assert sample_geometry(config, draws(50), 1.5).numpy() == pytest.approx(expected.numpy(), abs=1e-5)


def test_every_sample_draws_its_own_geometry_wherever_it_is_computed():
    config = GeometryConfig(affine=1.0)
    whole = sample_geometry(config, draws(8), 1.5)
    assert len({tuple(matrix.flatten().tolist()) for matrix in whole}) == 8
    assert torch.equal(sample_geometry(config, draws(8)[3::2], 1.5), whole[3::2])
    assert not torch.equal(sample_geometry(config, draws(8, step=1), 1.5), whole)


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop_scale": (0.0, 1.0)},
        {"crop_scale": (0.5, 0.2)},
        {"crop_scale": (0.5, 1.5)},
        {"crop_ratio": (0.0, 1.0)},
        {"crop_ratio": (2.0, 1.0)},
        {"flip": 1.5},
        {"affine": -0.1},
    ],
    ids=str,
)
def test_impossible_geometries_are_refused(wrong):
    with pytest.raises(UserError, match=rf"GeometryConfig: {next(iter(wrong))} = "):
        GeometryConfig(**wrong)
