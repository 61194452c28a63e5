"""How a store uses its codebook."""

import json
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny
from seitpp.tokens import usage as action
from seitpp.tokens.store import TokenStore
from seitpp.tokens.usage import UsageConfig, codes_covering, count_codes, readable, usage, usage_table

COUNTS = np.array([5, 0, 20, 5, 70])


def test_codes_are_counted_over_all_shards(tmp_path):
    ids = tiny.random_ids(16, 391, (3, 5))
    store = TokenStore(tiny.make_store(tmp_path, ids, codes=391))
    expected = Counter(ids.flatten().tolist())
    seen = []
    counts = count_codes(store, seen.append)
    assert counts.dtype == np.int64
    assert counts.tolist() == [expected[code] for code in range(391)]
    assert seen == [7, 14, 16]


def test_the_numbers_are_those_of_the_definition():
    numbers = usage(COUNTS)
    shares = [0.05, 0.2, 0.05, 0.7]
    entropy = -sum(share * math.log2(share) for share in shares)
    assert numbers["tokens"] == 100
    assert numbers["codebook_size"] == 5
    assert numbers["used_codes"] == 4
    assert numbers["entropy_bits"] == pytest.approx(entropy)
    assert numbers["perplexity"] == pytest.approx(2**entropy)
    assert numbers["commonest_code"] == 4
    assert numbers["commonest_share"] == pytest.approx(0.7)
    assert numbers["codes_covering"] == {"0.5": 1, "0.9": 2, "0.99": 4, "0.999": 4, "1.0": 4}


def test_codes_that_are_used_alike_have_the_perplexity_of_their_number():
    numbers = usage([0, 3, 3, 3, 0, 3])
    assert numbers["entropy_bits"] == pytest.approx(2)
    assert numbers["perplexity"] == pytest.approx(4)


def test_one_code_alone_has_no_entropy():
    numbers = usage([0, 9])
    assert (numbers["entropy_bits"], numbers["perplexity"], numbers["used_codes"]) == (0, 1, 1)
    assert math.copysign(1, numbers["entropy_bits"]) == 1


def test_the_table_goes_from_most_to_least_used_ties_by_the_lower_id():
    table = usage_table(COUNTS)
    assert table["code"].tolist() == [4, 2, 0, 3, 1]
    assert table["count"].tolist() == [70, 20, 5, 5, 0]
    assert table["share"].tolist() == pytest.approx([0.7, 0.2, 0.05, 0.05, 0])
    assert table["coverage"].tolist() == pytest.approx([0.7, 0.9, 0.95, 1, 1])


@pytest.mark.parametrize(("coverage", "codes"), [(0.7, 1), (0.7000001, 2), (0.9, 2), (0.91, 3), (0.95, 3), (1.0, 4)])
def test_a_coverage_that_is_met_exactly_needs_no_further_code(coverage, codes):
    assert codes_covering(COUNTS, coverage) == codes
    assert codes_covering(COUNTS * 10**15, coverage) == codes


@given(st.lists(st.integers(0, 50), min_size=1, max_size=9).filter(any), st.integers(1, 1000))
def test_the_codes_cover_what_is_asked_and_one_fewer_would_not(counts, thousandths):
    codes = codes_covering(counts, thousandths / 1000)
    ordered = sorted(counts, reverse=True)
    assert 1000 * sum(ordered[:codes]) >= thousandths * sum(counts) > 1000 * sum(ordered[: codes - 1])


def test_a_store_without_rows_uses_nothing(tmp_path):
    store = TokenStore(tiny.make_store(tmp_path, torch.zeros(0, 2, 3, dtype=torch.int64)))
    counts = count_codes(store)
    assert counts.tolist() == [0] * tiny.CODES
    numbers = usage(counts)
    assert (numbers["tokens"], numbers["used_codes"], numbers["commonest_code"]) == (0, 0, None)
    assert set(numbers["codes_covering"].values()) == {0}
    assert "codes used       0 of 37" in readable(numbers, usage_table(counts))


def test_the_command_prints_a_table_or_json(tmp_path, capsys):
    ids = torch.zeros(2, 2, 3, dtype=torch.int64)
    ids[0, 0, 0] = 36
    folder = tiny.make_store(tmp_path / "store", ids)
    action.main(UsageConfig(store=str(folder)))
    text = capsys.readouterr().out
    assert "codes used       2 of 37" in text
    assert "commonest code   0 (91.67% of all tokens)" in text
    assert "1 codes cover 90.0%" in text
    assert "progress" not in text
    action.main(UsageConfig(store=str(folder), json=True))
    said = json.loads(capsys.readouterr().out)
    assert said["counts"] == [11, *[0] * 35, 1]
    assert said["used_codes"] == 2
