"""Ids of very many codes, split into small numbers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seitpp.runtime.errors import UserError
from seitpp.tokens.code_factors import CodeFactors, factors_of, whole_ids


@st.composite
def splits(draw):
    """(factors of any K up to 2^24 and any bits that fit it, some of its ids with the first and the last)."""
    codes = draw(st.one_of(st.sampled_from([2, 3, 2**17, 2**18, 2**24 - 1, 2**24]), st.integers(2, 2**24)))
    whole = (codes - 1).bit_length()
    cuts = sorted(draw(st.sets(st.integers(1, whole - 1), max_size=3))) if whole > 1 else []
    bits = [stop - start for start, stop in zip([0, *cuts], [*cuts, whole], strict=True)]
    ids = draw(st.lists(st.integers(0, codes - 1), min_size=4, max_size=4))
    return factors_of(codes, draw(st.sampled_from([bits, None]))), torch.tensor([0, codes - 1, *ids]).reshape(2, 3)


@given(splits())
def test_numbers_give_the_ids_back_and_lie_below_their_sizes(example):
    factors, ids = example
    numbers = factors.of(ids)
    assert all(
        0 <= int(each.min()) <= int(each.max()) < size for each, size in zip(numbers, factors.sizes, strict=True)
    )
    assert torch.equal(factors.ids(numbers), ids)
    assert math.prod(factors.sizes) >= factors.codebook_size > math.prod(factors.sizes[:-1]) * (factors.sizes[-1] - 1)


@given(splits())
def test_rows_are_those_of_one_table_that_has_the_numbers_one_after_the_other(example):
    factors, ids = example
    rows = factors.rows(ids)
    assert rows.shape == (2, 3, len(factors.sizes))
    for place, (number, size) in enumerate(zip(factors.of(ids), factors.sizes, strict=True)):
        assert torch.equal(rows[..., place] - sum(factors.sizes[:place]), number)
        assert int(rows[..., place].max()) < sum(factors.sizes[:place]) + size


@pytest.mark.parametrize(
    ("codes", "bits", "sizes"),
    [
        (65536, None, (65536,)),
        (65537, None, (32, 2049)),
        (2**17, None, (32, 4096)),
        (2**18, None, (64, 4096)),
        (2**24, None, (256, 65536)),
        (2**18, (9, 9), (512, 512)),
        (2**18, (18,), (2**18,)),
        (391, (3, 3, 3), (8, 8, 7)),
    ],
)
def test_a_third_of_the_bits_and_the_rest_or_as_it_is_told(codes, bits, sizes):
    assert factors_of(codes, bits) == CodeFactors(codes, sizes)


def test_the_low_bits_come_first():
    assert [int(number) for number in factors_of(2**18).of(torch.tensor(5 + 64 * 1000))] == [5, 1000]


def test_the_likeliest_id_is_that_of_the_likeliest_numbers_and_never_beyond_the_last():
    factors = factors_of(11, (2, 2))
    logits = torch.zeros(2, 7)
    logits[0, [1, 4 + 2]] = 1.0
    logits[1, [3, 4 + 2]] = 1.0  # 3 + 4 * 2 = 11 is no code
    assert factors.likeliest(logits).tolist() == [9, 10]
    assert factors.likeliest(logits.T, dim=0).tolist() == [9, 10]


@pytest.mark.parametrize("bits", [(6, 11), (18, 1), (6, 6, 7)])
def test_bits_of_another_codebook_are_refused(bits):
    with pytest.raises(UserError, match=rf"code_factors = .* are {sum(bits)} bits, but ids of 262,144 codes have 18"):
        factors_of(2**18, bits)


def test_published_models_have_one_number():
    assert [whole_ids(codes) for codes in (None, 391, 65536, 2**18)] == [None, None, None, (18,)]
    with pytest.raises(UserError, match="this model splits its ids into 2 numbers"):
        factors_of(2**18).require_whole("this model")
