"""Rows of ids entropy-coded: any ids come back, no bytes break anything, and tables are worth what they cost."""

import json
import math
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from seitpp.tokens.coding import rans
from seitpp.tokens.coding.coder import RowCoder
from seitpp.tokens.coding.fit import choose_tables, fit_shape, fit_tables, shapes_for
from seitpp.tokens.coding.tables import MOST_FREQUENCIES, TOTAL, CodingTables
from seitpp.tokens.coding.tables_file import read_tables

VECTORS = json.loads((tiny.TESTS / "tokens" / "coding_vectors.json").read_text())
NAMES = ("left", "up", "place")


def make_tables(seed=0, *, codes=37, grid=(4, 6), clusters=(3, 2, 2), spread=30):
    """Random tables, (seed: of the clusters and logits)."""
    random = np.random.default_rng(seed)
    lengths = (codes + 1, codes + 1, grid[0] * grid[1])
    return CodingTables(
        **{
            name: random.integers(count, size=length).astype(np.uint8)
            for name, count, length in zip(NAMES, clusters, lengths, strict=True)
        },
        **{
            f"{name}_logits": random.integers(-spread, spread + 1, (count, codes)).astype(np.int8)
            for name, count in zip(NAMES, clusters, strict=True)
        },
        width=grid[1],
    )


def coded(ids, tables):
    content, offsets = rans.encode(ids, tables)
    return [content[start:stop].tobytes() for start, stop in pairwise(offsets)]


def decoded(rows, tables, decode=None):
    content = np.frombuffer(b"".join(rows), np.uint8)
    ends = np.cumsum([0, *map(len, rows)])
    return (decode or RowCoder(tables).decode)(content, ends[:-1], ends[1:])


def both_decoded(rows, tables):
    """What the kernel gives, which NumPy gives as well."""
    ids, even = decoded(rows, tables, RowCoder(tables, compiled=True).decode)
    plain_ids, plain_even = decoded(rows, tables, RowCoder(tables, compiled=False).decode)
    assert np.array_equal(ids, plain_ids)
    assert np.array_equal(even, plain_even)
    return ids, even


# Test vectors: what a reader in another language is held to


@pytest.fixture(scope="module")
def known():
    return CodingTables(
        **{name: np.array(VECTORS[name], np.uint8) for name in NAMES},
        **{f"{name}_logits": np.array(VECTORS[f"{name}_logits"], np.int8) for name in NAMES},
        width=VECTORS["grid"][1],
    )


def test_frequencies_are_those_of_the_test_vectors(known):
    for context, frequencies in VECTORS["frequencies"].items():
        assert known.frequencies[int(context)].tolist() == frequencies
    assert known.order.tolist() == VECTORS["order"]


def test_rows_are_those_of_the_test_vectors(known):
    ids = np.array([row["ids"] for row in VECTORS["rows"]])
    rows = [bytes.fromhex(row["bytes"]) for row in VECTORS["rows"]]
    assert coded(ids, known) == rows
    found, even = both_decoded(rows, known)
    assert np.array_equal(found, ids)
    assert even.all()


def test_damaged_rows_of_the_test_vectors_are_noticed(known):
    _, even = both_decoded([bytes.fromhex(row) for row in VECTORS["damaged"]], known)
    assert not even.any()


# The coder


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    codes=st.sampled_from([1, 2, 3, 37, 255, 256, 257, 512, 4099, 65536]),
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    rows=st.integers(0, 7),
    clusters=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2)),
    spread=st.sampled_from([0, 3, 120]),
)
def test_any_ids_come_back_whatever_the_tables_are(seed, codes, grid, rows, clusters, spread):
    tables = make_tables(seed, codes=codes, grid=grid, clusters=clusters, spread=spread)
    ids = np.random.default_rng(seed).integers(codes, size=(rows, grid[0] * grid[1]))
    found, even = both_decoded(coded(ids, tables), tables)
    assert np.array_equal(found, ids)
    assert even.all()


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.binary(max_size=40), max_size=5), seed=st.integers(0, 10**6))
def test_any_bytes_give_ids_below_k_and_nothing_outside_of_a_row_is_read(rows, seed):
    tables = make_tables(seed, grid=(2, 5))
    ids, even = both_decoded(rows, tables)
    assert ids.max(initial=0) < 37
    for place, row in enumerate(rows):  # the same without neighbours to read from
        alone, alone_even = decoded([row], tables)
        assert np.array_equal(alone[0], ids[place])
        assert alone_even[0] == even[place]


def test_a_flipped_bit_is_nearly_always_noticed_by_the_row_itself():
    tables = make_tables()
    random = np.random.default_rng(1)
    rows = coded(random.integers(37, size=(200, 24)), tables)
    flipped = [bytearray(row) for row in rows]
    for row in flipped:
        row[random.integers(len(row))] ^= 1 << random.integers(8)
    _, even = both_decoded([bytes(row) for row in flipped], tables)
    assert even.mean() < 0.1  # checksums notice the others


def test_a_row_takes_the_bits_of_its_tokens_and_at_most_three_bytes():
    tables = make_tables(grid=(8, 8))
    ids = np.random.default_rng(2).integers(37, size=(50, 64))
    for row, each in zip(coded(ids, tables), ids, strict=True):
        assert 0 <= len(row) - tables.bits(each[None]) / 8 <= 3


def test_rows_outside_of_the_bytes_are_refused_by_the_kernel():
    coder = RowCoder(make_tables(), compiled=True)
    for start, stop in ((-1, 2), (0, 11), (5, 4)):
        with pytest.raises(ValueError, match="outside"):
            coder.decode(np.zeros(10, np.uint8), np.array([start]), np.array([stop]))


@pytest.mark.parametrize("ids", [np.full((1, 24), 37), np.full((1, 24), -1), np.zeros((1, 23), int)])
def test_ids_that_tables_do_not_know_are_refused(ids):
    with pytest.raises(ValueError, match="24 ids below 37"):
        rans.encode(ids, make_tables())


# Tables


def test_frequencies_follow_the_formula_and_add_up():
    tables = make_tables(codes=5, grid=(1, 2), clusters=(2, 2, 1))
    logits = tables.left_logits[1].astype(int) + tables.up_logits[0] + tables.place_logits[0]
    weights = [round(2 ** (30 - step / 8)) for step in range(8)]
    weights = [weights[below % 8] >> below // 8 for below in (max(logits) - logits).tolist()]
    expected = [1 + weight * (TOTAL - 5) // sum(weights) for weight in weights]
    expected[int(np.argmax(weights))] += TOTAL - sum(expected)
    assert tables.frequencies[1 * 2 + 0].tolist() == expected
    assert (tables.frequencies.sum(axis=1) == TOTAL).all()
    assert tables.frequencies.min() >= 1


def test_contexts_are_of_the_tokens_to_the_left_and_above_and_of_the_place():
    tables = make_tables(codes=7, grid=(3, 4))
    ids = np.random.default_rng(0).integers(7, size=(2, 12))
    contexts = tables.contexts_of(ids)
    for row in range(2):
        for token in range(12):
            left = ids[row, token - 1] if token % 4 else 7
            up = ids[row, token - 4] if token >= 4 else 7
            expected = (int(tables.left[left]) * 2 + tables.up[up]) * 2 + tables.place[token]
            assert contexts[row, token] == expected


def test_tables_come_back_from_their_file():
    tables = make_tables()
    again = read_tables(tables.to_bytes(), 37, (4, 6))
    for name in (*NAMES, *(f"{name}_logits" for name in NAMES)):
        assert np.array_equal(getattr(again, name), getattr(tables, name))
    assert again.to_bytes() == tables.to_bytes()


@pytest.mark.parametrize(("codes", "grid"), [(36, (4, 6)), (37, (4, 5)), (38, (5, 6))])
def test_tables_of_another_store_are_refused(codes, grid):
    with pytest.raises(ValueError, match="that the store's codes and grid need"):
        read_tables(make_tables().to_bytes(), codes, grid)


def test_tables_too_large_for_a_decoder_are_refused():
    with pytest.raises(ValueError, match="more than a decoder holds"):
        make_tables(codes=1 + MOST_FREQUENCIES // 64**2, clusters=(64, 64, 1))


@settings(max_examples=80, deadline=None)
@given(place=st.integers(0, 10**6), value=st.integers(0, 255), cut=st.booleans())
def test_a_broken_file_of_tables_is_refused_or_read_and_never_more(place, value, cut):
    content = bytearray(make_tables().to_bytes())
    place %= len(content)
    content[place] = value
    with suppress(ValueError):
        read_tables(bytes(content[:place] if cut else content), 37, (4, 6))


# Fitting


def lines_of(rows, codes=12, grid=(6, 6)):
    """Rows whose tokens mostly repeat the one to the left: a context tells them, their frequencies don't."""
    random = np.random.default_rng(5)
    ids = random.integers(codes, size=(rows, *grid))
    for column in range(1, grid[1]):
        ids[:, :, column] = np.where(random.random((rows, grid[0])) < 0.9, ids[:, :, column - 1], ids[:, :, column])
    return ids.reshape(rows, 36)


def test_tables_learn_what_a_neighbour_tells():
    ids, unseen = np.split(lines_of(250), [200])
    plain = fit_shape(ids, 12, 6, (1, 1, 1))
    told = fit_tables(ids, 12, 6, rows=200)
    entropy = (6 * math.log2(12) + 30 * (0.9 * -math.log2(0.9 + 0.1 / 12) + 0.1 * -math.log2(0.1 / 12))) / 36
    assert plain.bits(unseen) / unseen.size == pytest.approx(math.log2(12), abs=0.02)
    assert told.bits(unseen) / unseen.size == pytest.approx(entropy, rel=0.15)


def test_few_rows_get_small_tables_and_many_get_large_ones():
    ids = lines_of(300)
    assert fit_tables(ids[:10], 12, 6, rows=10).contexts < fit_tables(ids, 12, 6, rows=10**6).contexts


def test_rows_that_coding_would_make_larger_stay_packed():
    noise = np.random.default_rng(0).integers(256, size=(40, 24))
    assert choose_tables(noise, 256, 6, rows=40) is None
    assert choose_tables(lines_of(300), 12, 6, rows=300) is not None
    assert choose_tables(lines_of(0), 12, 6, rows=0) is None


def test_the_same_rows_give_the_same_tables():
    assert fit_tables(lines_of(50), 12, 6, rows=50).to_bytes() == fit_tables(lines_of(50), 12, 6, rows=50).to_bytes()


@pytest.mark.parametrize("codes", [1, 512, 8192])
def test_tables_of_any_codebook_fit_a_decoder(codes):
    assert next(iter(shapes_for(codes))) == (1, 1, 1)
    ids = np.random.default_rng(0).integers(codes, size=(6, 4))
    tables = fit_shape(ids, codes, 2, list(shapes_for(codes))[-1])
    found, even = both_decoded(coded(ids, tables), tables)
    assert np.array_equal(found, ids)
    assert even.all()


def test_the_coder_takes_grids_of_ids():
    tables, ids = make_tables(), tiny.random_ids(5, 37, (4, 6))
    rows = RowCoder(tables).encode(ids)
    assert len(rows) == 5
    found, _ = RowCoder(tables).decode(rows.content, rows.offsets[:-1], rows.offsets[1:])
    assert torch.equal(torch.from_numpy(found.astype(np.int64)).reshape(5, 4, 6), ids)
