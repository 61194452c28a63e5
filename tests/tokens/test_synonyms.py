"""Synonyms: the nearest codes of each code, and the published JSON of them."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny
from published import recording
from seitpp.runtime.errors import UserError
from seitpp.tokens import synonyms as action
from seitpp.tokens.synonyms import SynonymsConfig, nearest_codes, read_synonyms, write_synonyms


def by_hand(codebook, lookup, count):
    """The nearest codes of each code, one pair at a time."""
    codes, nearest = np.asarray(codebook, np.float64), []
    for code, embedding in enumerate(codes):
        distance = {}
        for other, candidate in enumerate(codes):
            if lookup == "cosine":
                cosine = embedding @ candidate / (np.linalg.norm(embedding) * np.linalg.norm(candidate))
                distance[other] = -cosine
            else:
                distance[other] = np.linalg.norm(embedding - candidate)
        distance.pop(code)
        nearest.append(sorted(distance, key=distance.get)[:count])
    return nearest


@pytest.mark.parametrize("lookup", ["cosine", "euclidean"])
@pytest.mark.parametrize("block", [1, 29 * 4, 1 << 24])
def test_synonyms_are_the_nearest_codes_by_the_stores_lookup_whatever_the_block(lookup, block):
    random = np.random.default_rng(0)
    codebook = torch.from_numpy(random.standard_normal((29, 3)) * random.uniform(0.2, 5, (29, 1)))
    assert nearest_codes(codebook, lookup, 5, block=block).tolist() == by_hand(codebook, lookup, 5)


def test_length_matters_only_where_the_lookup_is_euclidean():
    codebook = torch.tensor([[1.0, 0.0], [9.0, 1.0], [0.5, 0.5]])
    assert nearest_codes(codebook, "cosine", 1).tolist() == [[1], [0], [1]]
    assert nearest_codes(codebook, "euclidean", 1).tolist() == [[2], [0], [0]]


@given(st.integers(1, 12), st.integers(1, 15), st.sampled_from(["cosine", "euclidean"]))
def test_a_code_is_no_synonym_of_its_own_even_where_another_is_the_same(codes, count, lookup):
    nearest = nearest_codes(torch.ones(codes, 2), lookup, count)
    assert nearest.shape == (codes, min(count, codes - 1))
    for code, row in enumerate(nearest.tolist()):
        assert sorted(set(row)) == sorted(row)
        assert code not in row
        assert all(0 <= other < codes for other in row)


def test_the_parity_codebook_has_the_synonyms_of_a_loop():
    codebook = recording("codebook")["codebook"]
    assert nearest_codes(codebook, "cosine", 5)[:40].tolist() == by_hand(codebook, "cosine", 5)[:40]


# The file


def test_the_file_is_the_published_json_and_comes_back(tmp_path):
    nearest = torch.tensor([[2, 1], [0, 2], [1, 0]])
    write_synonyms(tmp_path / "synonyms.json", nearest)
    assert json.loads((tmp_path / "synonyms.json").read_text()) == {"0": [2, 1], "1": [0, 2], "2": [1, 0]}
    assert read_synonyms(tmp_path / "synonyms.json", 3) == nearest.tolist()


def test_lists_may_differ_in_length_and_hold_the_code_itself(tmp_path):
    (tmp_path / "s.json").write_text('{"1": [1, 0], "0": [0, 1, 2], "2": [0]}')
    assert read_synonyms(tmp_path / "s.json", 3) == [[0, 1, 2], [1, 0], [0]]


@pytest.mark.parametrize(
    ("text", "matters"),
    [
        ("{", "is not a synonym dictionary"),
        ("[[1], [0]]", "is not a synonym dictionary"),
        ('{"0": [1]}', "code 1 has no list of synonyms"),
        ('{"0": [1], "1": []}', "code 1 has no list of synonyms"),
        ('{"0": [1], "1": 0}', "code 1 has no list of synonyms"),
        ('{"0": [1], "1": [0], "2": [0]}', "'2' is no code below 2"),
        ('{"0": [1], "1": [0], "bee": [0]}', "'bee' is no code below 2"),
        ('{"0": [1], "1": [2]}', "code 1 has the synonym 2, expected a code below 2"),
        ('{"0": [1], "1": [-1]}', "code 1 has the synonym -1"),
        ('{"0": [1], "1": ["0"]}', "code 1 has the synonym '0'"),
        ('{"0": [true], "1": [0]}', "code 0 has the synonym True"),
        (None, "is not a synonym dictionary"),
    ],
)
def test_a_dictionary_that_does_not_fit_is_named_with_its_code(tmp_path, text, matters):
    if text is not None:
        (tmp_path / "s.json").write_text(text)
    with pytest.raises(UserError, match=matters) as raised:
        read_synonyms(tmp_path / "s.json", 2)
    assert "s.json" in tiny.one_line(str(raised.value))


# The command


def test_a_stores_synonyms_lie_in_its_folder(tmp_path, capsys):
    codebook = torch.from_numpy(np.random.default_rng(1).standard_normal((tiny.CODES, 4))).float()
    folder = tiny.make_store(tmp_path / "store", tiny.random_ids(3, tiny.CODES, tiny.GRID), codebook=codebook)
    action.main(SynonymsConfig(store=str(folder)))
    assert read_synonyms(folder / "synonyms.json", tiny.CODES) == by_hand(codebook, "euclidean", 5)
    assert "5 synonyms of each of 37 codes" in tiny.one_line(capsys.readouterr().out)
    action.main(SynonymsConfig(store=str(folder), count=2, out=str(tmp_path / "mine.json")))
    assert read_synonyms(tmp_path / "mine.json", tiny.CODES) == by_hand(codebook, "euclidean", 2)


def test_no_synonyms_at_all_are_refused():
    with pytest.raises(UserError, match="count = 0"):
        SynonymsConfig(store="x", count=0)


def test_a_file_that_is_no_dictionary_of_ours_is_not_replaced(tmp_path):
    store = tiny.make_store(tmp_path / "store", tiny.random_ids(3, tiny.CODES, tiny.GRID))
    file = tmp_path / "mine.json"
    for content in ('{"mine": 1}', '{"0": [1, 2]}', ""):
        file.write_text(content)
        with pytest.raises(UserError, match=r"mine.json is there already and is not a synonym dictionary of seitpp"):
            action.main(SynonymsConfig(store=str(store), out=str(file)))
        assert file.read_text() == content
    for count in (2, 3):
        action.main(SynonymsConfig(store=str(store), out=str(tmp_path / "own.json"), count=count))
    assert len(read_synonyms(tmp_path / "own.json", tiny.CODES)[0]) == 3
