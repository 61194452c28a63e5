"""A slice of the fuzz of tests/fuzz.py, which runs thousands of cases: the same damage, read by the same commands."""

import pytest

from fuzz import run_case
from fuzz_targets import TARGETS

CASES = {
    "store": 15, "mended store": 6, "unverified store": 8, "windows": 6, "unfinished store": 4,
    "subset": 5, "remote": 8, "models": 5, "tokenizers": 5,
    "checkpoints": 20, "run": 2, "report": 1, "labels": 10, "recipes": 2, "exchange": 2, "images": 2,
}  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_a_damaged_file_says_it_ends_in_a_result_or_in_one_line(name, tmp_path):
    TARGETS[name].make(tmp_path)
    outcomes = [run_case(name, number, whole=tmp_path) for number in range(CASES[name])]
    assert [f"{done}: {wrong}" for done, wrong, _ in outcomes if wrong] == []
