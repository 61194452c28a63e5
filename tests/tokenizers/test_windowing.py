"""Windows of one size cover an image of any size, and what they hold is what the resized image has there."""

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.networks.vit_vqgan import TransformerConfig, ViTVQGAN, ViTVQGANConfig
from seitpp.tokenizers.segmentation.tiles import tiling_of
from seitpp.tokenizers.segmentation.windowing import Windowing, resize_mask, windows_of
from seitpp.tokenizers.tokenizer import load_tokenizer


def windowing(size=(8, 12), stride=None, short_side=None):
    return Windowing(size=size, stride=stride or size, short_side=short_side)


@pytest.mark.parametrize(
    ("height", "width", "stride", "places"),
    [
        (8, 12, None, [(0, 0)]),
        (8, 13, None, [(0, 0), (0, 1)]),
        (17, 24, None, [(0, 0), (0, 12), (8, 0), (8, 12), (9, 0), (9, 12)]),
        (5, 7, None, [(0, 0)]),
        (5, 30, None, [(0, 0), (0, 12), (0, 18)]),
        (8, 24, (4, 6), [(0, 0), (0, 6), (0, 12)]),
        (11, 12, (2, 5), [(0, 0), (2, 0), (3, 0)]),
    ],
)
def test_the_last_window_of_a_line_ends_at_the_edge(height, width, stride, places):
    assert windowing(stride=stride).places(height, width) == places


@pytest.mark.parametrize("stride", [(8, 12), (3, 5), (1, 12)])
def test_each_pixel_lies_in_a_window(stride):
    made = windowing(stride=stride)
    for height, width in ((8, 12), (9, 40), (31, 13), (3, 50), (20, 4)):
        covered = np.zeros((height, width), int)
        for top, left in made.places(height, width):
            covered[top : top + 8, left : left + 12] += 1
        assert covered.min() == 1


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(100, 150, (16, 24)), (61, 20, (49, 16)), (16, 16, (16, 16)), (7, 8, (16, 18))]
)
def test_the_short_side_is_resized_and_the_aspect_kept(height, width, expected):
    assert windowing(short_side=16).resized(height, width) == expected
    assert windowing(short_side=None).resized(height, width) == (height, width)


def test_a_window_that_reaches_over_an_image_goes_on_with_its_edge_and_ignores_it():
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    mask = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    ((place, pixels, labels),) = windows_of(image, mask, windowing(size=(3, 5)), ignore=255)
    assert place == (0, 0)
    assert labels.tolist() == [[0, 1, 2, 255, 255], [2, 1, 0, 255, 255], [255] * 5]
    lines, columns = [0, 1, 1], [0, 1, 2, 2, 2]
    assert pixels.tolist() == [[image[line, column].tolist() for column in columns] for line in lines]


@pytest.mark.parametrize(
    ("old", "new"), [((7, 11), (16, 25)), ((61, 97), (16, 25)), ((9, 9), (9, 9)), ((50, 33), (7, 90))]
)
def test_label_maps_are_resized_as_pillow_resizes_to_the_nearest(old, new):
    mask = np.random.default_rng(1).integers(7, size=old, dtype=np.uint8)
    expected = np.asarray(Image.fromarray(mask).resize(new[::-1], Image.Resampling.NEAREST))
    assert np.array_equal(resize_mask(mask, new), expected)
    assert np.array_equal(resize_mask(mask.astype(np.uint16) + 300, new), expected.astype(np.uint16) + 300)


@pytest.mark.parametrize("fields", [{"stride": (0, 12)}, {"stride": (9, 12)}, {"size": (0, 3)}, {"short_side": 0}])
def test_windows_that_would_leave_gaps_are_refused(fields):
    with pytest.raises(UserError, match=f"Windowing: {next(iter(fields))} ="):
        windowing(**fields)


# Tiles


@pytest.fixture(scope="module")
def fixed():
    """A ViT-VQGAN of 16 x 24 pixels alone, to 4 x 6 tokens."""
    torch.manual_seed(3)
    shape = TransformerConfig(width=32, depth=1, heads=1, mlp=32)
    config = ViTVQGANConfig(
        image_size=(16, 24), patch_size=4, encoder=shape, decoder=shape, codebook_size=37, codebook_dim=5
    )
    return ViTVQGAN(config).eval().requires_grad_(False)


def test_a_tokenizer_of_fixed_size_encodes_each_tile_by_itself(fixed):
    tiling = tiling_of(fixed, (32, 72))
    assert (tiling.tile, tiling.tiles, tiling.grid) == ((16, 24), (2, 3), (8, 18))
    pixels = torch.rand(2, 3, 32, 72, generator=torch.Generator().manual_seed(1))
    ids = tiling.encode(pixels)
    assert ids.shape == (2, 8, 18)
    images = tiling.decode(ids)
    for line in range(2):
        for column in range(3):
            tile = (..., slice(16 * line, 16 * line + 16), slice(24 * column, 24 * column + 24))
            own = ids[:, 4 * line : 4 * line + 4, 6 * column : 6 * column + 6]
            assert torch.equal(own, fixed.encode(pixels[tile]))
            assert torch.allclose(images[tile], fixed.decode(own), atol=1e-6)


def test_a_convolutional_tokenizer_takes_a_window_whole_or_in_tiles(tokenizer_folder):
    tokenizer = load_tokenizer(tokenizer_folder)
    pixels = torch.rand(1, 3, 32, 72, generator=torch.Generator().manual_seed(1))
    whole, tiles = tiling_of(tokenizer, (32, 72)), tiling_of(tokenizer, (32, 72), tiles=True)
    assert (whole.tile, whole.grid, tiles.tile, tiles.grid) == ((32, 72), (8, 18), (16, 24), (8, 18))
    assert torch.equal(whole.encode(pixels), tokenizer.encode(pixels))
    assert not torch.equal(whole.encode(pixels), tiles.encode(pixels))  # at the borders of tiles, at least
    assert tiling_of(tokenizer, (20, 28)).grid == (5, 7)


def test_windows_that_a_tokenizer_has_no_tiles_for_are_refused_in_one_line(fixed, tokenizer_folder):
    cases = [
        (fixed, (32, 50), None, "no multiple of 16 x 24, the tokenizer's own size"),
        (fixed, (32, 48), False, "images of 16 x 24 pixels alone"),
        (load_tokenizer(tokenizer_folder), (30, 48), None, "no multiple of 4 x 4, pixels of a token"),
    ]
    for tokenizer, window, tiles, words in cases:
        with pytest.raises(UserError, match=words) as raised:
            tiling_of(tokenizer, window, tiles=tiles)
        tiny.one_line(str(raised.value))
