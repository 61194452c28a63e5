"""Codec: ids to bytes and back, at every width of a token."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seitpp.tokens.codec import bits_per_token, pack, packed_bytes, unpack

SIZES = [2, 255, 256, 257, 391, 512, 65536, 65537, 2**17, 2**18, 2**24 - 1, 2**24]


def pack_slowly(ids, codes):
    """One row, token by token: a plane of low bytes, then a plane of bits for each further bit, lowest first."""
    extra = max(0, math.ceil(math.log2(codes)) - 8)
    packed = [token % 256 for token in ids]
    for bit in range(8, 8 + extra):
        plane = [0] * ((len(ids) + 7) // 8)
        for place, token in enumerate(ids):
            plane[place // 8] += ((token >> bit) & 1) << (place % 8)
        packed += plane
    return packed


@st.composite
def grids_of_ids(draw):
    codes = draw(st.sampled_from(SIZES))
    rows, height, width = draw(st.integers(1, 3)), draw(st.integers(1, 7)), draw(st.integers(1, 9))
    count = rows * height * width
    ids = draw(st.lists(st.integers(0, codes - 1), min_size=count, max_size=count))
    return codes, torch.tensor(ids).reshape(rows, height, width)


@given(grids_of_ids())
def test_packed_ids_come_back_on_any_grid(example):
    codes, ids = example
    back = unpack(pack(ids, codes), codes, tuple(ids.shape[1:]))
    assert back.dtype == torch.int64
    assert back.tolist() == ids.tolist()


@given(grids_of_ids())
def test_packing_is_that_of_the_slow_loop(example):
    codes, ids = example
    assert pack(ids, codes).tolist() == [pack_slowly(row.flatten().tolist(), codes) for row in ids]


@pytest.mark.parametrize("codes", SIZES)
def test_the_first_and_the_last_code_come_back(codes):
    ids = torch.tensor([[[0, codes - 1, codes // 2]]])
    assert unpack(pack(ids, codes), codes, (1, 3)).tolist() == ids.tolist()


def test_a_row_of_nine_bit_tokens_has_the_bytes_written_here():
    ids = torch.tensor([[[0, 255, 256, 390, 7], [300, 1, 2, 259, 128]]])
    low_bytes = [0, 255, 0, 134, 7, 44, 1, 2, 3, 128]
    high_bits = [0b00101100, 0b00000001]  # tokens 2, 3 and 5, then token 8
    assert pack(ids, 391).tolist() == [low_bytes + high_bits]


def test_a_sixteen_bit_token_is_a_low_byte_and_eight_planes():
    assert pack(torch.tensor([[[0xA53C]]]), 65536).tolist() == [[0x3C, 1, 0, 1, 0, 0, 1, 0, 1]]


@pytest.mark.parametrize(
    ("tokens", "codes", "size"),
    [
        (1024, 391, 1152),
        (1024, 256, 1024),
        (1024, 257, 1152),
        (1024, 65536, 2048),
        (64, 512, 72),
        (15, 2, 15),
        (15, 512, 17),
        (15, 65536, 31),
        (1, 391, 2),
        (256, 2**18, 576),
        (256, 2**24, 768),
    ],
)
def test_size_of_a_row(tokens, codes, size):
    assert packed_bytes(tokens, codes) == size
    assert pack(torch.zeros(2, 1, tokens, dtype=torch.int64), codes).shape == (2, size)


@pytest.mark.parametrize(
    ("codes", "bits"),
    [
        *[(1, 8), (2, 8), (256, 8), (257, 9), (391, 9), (512, 9), (513, 10), (32769, 16), (65536, 16)],
        *[(65537, 17), (2**18, 18), (2**18 + 1, 19), (2**24 - 1, 24), (2**24, 24)],
    ],
)
def test_bits_of_a_token(codes, bits):
    assert bits_per_token(codes) == bits


@pytest.mark.parametrize("codes", [0, -1, 2**24 + 1])
def test_codebooks_that_three_bytes_cannot_hold_are_refused(codes):
    with pytest.raises(ValueError, match=f"16777216.*got {codes}"):
        bits_per_token(codes)


@pytest.mark.parametrize(
    ("codes", "wrong"), [*((codes, codes) for codes in SIZES), (2, -1), (391, -1), (391, 2**32), (391, 2**40 + 1)]
)
def test_ids_outside_the_codebook_are_refused(codes, wrong):
    with pytest.raises(ValueError, match=rf"\[0, {codes}\)"):
        pack(torch.tensor([[[0, wrong]]]), codes)


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64])
def test_any_integer_type_packs_to_the_same_bytes(dtype):
    ids = torch.tensor([[[3, 390, 256]]])
    assert pack(ids.to(dtype), 391).tolist() == [pack_slowly([3, 390, 256], 391)]


@pytest.mark.parametrize("width", [16, 18])
def test_rows_of_another_width_are_refused(width):
    with pytest.raises(ValueError, match="rows of 17 bytes expected"):
        unpack(torch.zeros(2, width, dtype=torch.uint8), 391, (3, 5))


def test_no_rows_at_all_pack_and_unpack():
    packed = pack(torch.zeros(0, 3, 5, dtype=torch.int64), 391)
    assert packed.shape == (0, 17)
    assert unpack(packed, 391, (3, 5)).shape == (0, 3, 5)
