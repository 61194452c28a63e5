"""Label maps: they come back as they were, and any program reads them."""

import io
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from seitpp.tokens.format.masks import decode_mask, encode_mask


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([np.uint8, np.uint16]), st.integers(0, 2**32))
def test_a_mask_comes_back_with_its_size_type_and_values(height, width, dtype, seed):
    mask = np.random.default_rng(seed).integers(np.iinfo(dtype).max + 1, size=(height, width)).astype(dtype)
    back = decode_mask(encode_mask(mask))
    assert back.dtype == dtype
    assert np.array_equal(back, mask)


def test_views_and_other_byte_orders_are_written_by_value():
    mask = np.arange(24, dtype=np.uint16).reshape(4, 6) * 1000
    assert np.array_equal(decode_mask(encode_mask(mask.T)), mask.T)
    assert np.array_equal(decode_mask(encode_mask(mask.astype(">u2"))), mask)


def test_the_content_is_what_the_png_standard_says():
    mask = np.array([[1, 2, 3], [256, 65535, 0]], np.uint16)
    content = encode_mask(mask)
    assert content[:8] == bytes([137, 80, 78, 71, 13, 10, 26, 10])
    assert content[16:29] == bytes([0, 0, 0, 3, 0, 0, 0, 2, 16, 0, 0, 0, 0])  # width, height, depth, greyscale
    size = int.from_bytes(content[33:37], "big")
    lines = zlib.decompress(content[41 : 41 + size])
    assert lines == bytes([0, 0, 1, 0, 2, 0, 3, 0, 1, 0, 255, 255, 0, 0])  # a filter number, then big-endian values
    with Image.open(io.BytesIO(content)) as image:
        image.verify()


def test_a_map_of_large_regions_takes_a_small_part_of_its_pixels():
    mask = np.zeros((256, 256), np.uint8)
    mask[40:200, 30:120], mask[:, 200:] = 7, 150
    assert len(encode_mask(mask)) < mask.size / 100


@pytest.mark.parametrize(
    ("mask", "named"),
    [
        (np.zeros((2, 3), np.int64), r"\(2, 3\) of int64"),
        (np.zeros((2, 3, 1), np.uint8), r"\(2, 3, 1\) of uint8"),
        (np.zeros((0, 3), np.uint8), r"\(0, 3\)"),
    ],
)
def test_what_is_no_label_map_is_refused(mask, named):
    with pytest.raises(ValueError, match=named):
        encode_mask(mask)


def test_what_is_no_png_of_greys_is_refused():
    whole = encode_mask(np.arange(2000, dtype=np.uint16).reshape(40, 50))
    colours = io.BytesIO()
    Image.new("RGB", (2, 2)).save(colours, "PNG")
    jpeg = io.BytesIO()
    Image.new("L", (2, 2)).save(jpeg, "JPEG")
    for content in (b"", b"mask", whole[:-60], whole[:20], jpeg.getvalue()):
        with pytest.raises(ValueError, match="no whole PNG"):
            decode_mask(content)
    with pytest.raises(ValueError, match="mode RGB"):
        decode_mask(colours.getvalue())
