"""Fewer codes: the store remapped, and the tokenizer that makes the new ids."""

import hashlib
import json

import numpy as np
import pytest
import torch

import tiny
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import read_json, write_json
from seitpp.tokenizers import reduce_codebook as stage
from seitpp.tokenizers import tokenize
from seitpp.tokenizers.networks.reduced import ReducedTokenizer, reduced_fingerprint
from seitpp.tokenizers.networks.vq import VQTokenizer
from seitpp.tokenizers.reduce_codebook import ReduceCodebookConfig, map_to_kept, most_used
from seitpp.tokenizers.sources.images import open_image_folder, read_all
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.store import TokenStore

GRID = (3, 5)


@pytest.fixture
def ids():
    """16 rows of ids below 37, low ones more often."""
    random = np.random.default_rng(4)
    return torch.from_numpy((tiny.CODES * random.random((16, *GRID)) ** 3).astype(np.int64))


@pytest.fixture
def folder(tmp_path, ids):
    keys = [f"klasse ü/{row}.jpg" for row in range(16)]
    return tiny.make_store(tmp_path / "store", ids, labels=[-1, 2, 0, 1] * 4, keys=keys)


def reduce(folder, out, **fields):
    stage.main(ReduceCodebookConfig(store=str(folder), output_dir=str(out), **fields))
    store = TokenStore(out)
    store.verify()
    return store


def said(folder, out, **fields):
    """The line of a reduction that fails and leaves nothing behind."""
    before = sorted(out.parent.iterdir())
    with pytest.raises(UserError) as raised:
        reduce(folder, out, **fields)
    assert sorted(out.parent.iterdir()) == before
    return tiny.one_line(str(raised.value))


def nearest_by_hand(codebook, kept, lookup):
    """New id of each old one, one pair at a time."""
    codes, mapping = np.asarray(codebook, np.float64), []
    if lookup == "cosine":
        codes = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    for code in range(len(codes)):
        distances = [np.linalg.norm(codes[code] - codes[other]) for other in kept]
        mapping.append(int(np.argmin(distances)))
    return mapping


# Which codes


def test_the_codes_used_most_are_kept_in_rising_order_ties_by_the_lower_id():
    counts = np.array([3, 9, 0, 3, 7, 3])
    assert most_used(counts, 2) == [1, 4]
    assert most_used(counts, 3) == [0, 1, 4]
    assert most_used(counts, 4) == [0, 1, 3, 4]
    assert most_used(counts, 6) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("lookup", ["cosine", "euclidean"])
def test_a_dropped_code_becomes_the_nearest_that_is_kept(lookup):
    random = np.random.default_rng(0)
    codebook = torch.from_numpy(random.standard_normal((29, 4)) * random.uniform(0.3, 3, (29, 1))).float()
    kept = [0, 3, 4, 11, 28]
    mapping = map_to_kept(codebook, kept, lookup)
    assert mapping.tolist() == nearest_by_hand(codebook, kept, lookup)
    assert mapping[kept].tolist() == [0, 1, 2, 3, 4]


def test_a_kept_code_stays_itself_where_another_has_the_same_embedding():
    assert map_to_kept(torch.ones(5, 3), [1, 2, 4], "cosine")[[1, 2, 4]].tolist() == [0, 1, 2]


@pytest.mark.parametrize("coverage", [0.5, 0.9, 0.999, 1.0])
def test_a_coverage_is_reached_and_one_code_fewer_would_miss_it(tmp_path, folder, ids, coverage):
    store = reduce(folder, tmp_path / "new", coverage=coverage)
    counts = np.bincount(ids.flatten().numpy(), minlength=tiny.CODES)
    ordered = np.sort(counts)[::-1]
    kept = store.codebook_size
    assert ordered[:kept].sum() >= coverage * counts.sum() > ordered[: kept - 1].sum()


# The store


def test_391_codes_of_8192_take_9_bits_instead_of_13(tmp_path):
    random = np.random.default_rng(1)
    ids = torch.from_numpy((8192 * random.random((40, 8, 9)) ** 9).astype(np.int64))
    folder = tiny.make_store(tmp_path / "store", ids, codes=8192, rows_per_shard=17, lookup="cosine")
    store = reduce(folder, tmp_path / "new", codes=391)
    assert store.codebook_size == 391
    assert (TokenStore(folder).row_bytes, store.row_bytes) == (72 + 5 * 9, 72 + 9)
    counts = np.bincount(ids.flatten().numpy(), minlength=8192)
    kept = sorted(sorted(range(8192), key=lambda code: (-counts[code], code))[:391])
    assert read_json(tmp_path / "new" / "reduced.json")["codes"] == kept
    sample = ids.flatten().unique()[::40]
    by_hand = nearest_by_hand(TokenStore(folder).codebook.numpy()[[*kept, *sample.tolist()]], range(391), "cosine")[
        391:
    ]
    place = {code: index for index, code in enumerate(kept)}
    new = {int(old): place.get(int(old), hand) for old, hand in zip(sample, by_hand, strict=True)}
    changed = store.ids(range(40))
    for old, expected in new.items():
        assert set(changed[ids == old].tolist()) == {expected}


def test_rows_labels_keys_classes_and_shards_stay(tmp_path, folder, ids):
    old, store = TokenStore(folder), reduce(folder, tmp_path / "new", codes=11)
    record = read_json(tmp_path / "new" / "reduced.json")
    assert store.ids(range(16)).tolist() == np.array(record["map"])[ids.numpy()].tolist()
    assert store.labels.tolist() == old.labels.tolist()
    assert store.keys() == old.keys()
    assert (store.classes, store.lookup, store.grid) == (old.classes, old.lookup, old.grid)
    assert [shard["rows"] for shard in store.manifest["shards"]] == [7, 7, 2]
    assert torch.equal(store.codebook, old.codebook[record["codes"]])


def test_the_mapping_is_kept(tmp_path, folder, ids):
    reduce(folder, tmp_path / "new", codes=11)
    record = read_json(tmp_path / "new" / "reduced.json")
    codebook = TokenStore(folder).codebook
    assert record["fingerprint"] == "a" * 64
    assert record["counts"] == np.bincount(ids.flatten().numpy(), minlength=tiny.CODES).tolist()
    assert record["map"] == nearest_by_hand(codebook, record["codes"], "euclidean")
    assert len(record["codes"]) == 11


def test_the_fingerprint_is_that_of_the_old_one_and_the_kept_codes(tmp_path, folder):
    store = reduce(folder, tmp_path / "new", codes=3)
    codes = read_json(tmp_path / "new" / "reduced.json")["codes"]
    written_out = json.dumps(["a" * 64, codes])
    expected = hashlib.sha256(written_out.encode()).hexdigest()
    assert store.tokenizer == {"name": "reduced", "fingerprint": expected}
    assert expected == reduced_fingerprint("a" * 64, codes) != reduced_fingerprint("a" * 64, codes[:2])


def test_all_codes_kept_leave_the_ids_as_they_are(tmp_path, folder, ids):
    assert reduce(folder, tmp_path / "new", codes=tiny.CODES).ids(range(16)).tolist() == ids.tolist()


# The tokenizer


@pytest.fixture(scope="module")
def tokenised(images, tokenizer_folder, tmp_path_factory):
    """The tiny images as a store, in shards of 8."""
    folder = tmp_path_factory.mktemp("tokenised") / "store"
    tokenize.main(
        tokenize.TokenizeConfig(
            images=str(images), tokenizer=str(tokenizer_folder), output_dir=str(folder), rows_per_shard=8
        )
    )
    return folder


@pytest.fixture(scope="module")
def reduced(tokenised, tokenizer_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reduced") / "store"
    reduce(tokenised, folder, coverage=0.9, tokenizer=str(tokenizer_folder))
    return folder


def test_a_reduced_store_is_what_the_reduced_tokenizer_makes_anew_byte_for_byte(reduced, images, tmp_path):
    config = tokenize.TokenizeConfig(
        images=str(images), tokenizer=str(reduced / "tokenizer"), output_dir=str(tmp_path / "anew"), rows_per_shard=8
    )
    tokenize.main(config)
    anew, store = TokenStore(tmp_path / "anew"), TokenStore(reduced)
    assert 1 < store.codebook_size < tiny.CODES
    assert len({tuple(row) for row in store.packed(range(len(store))).tolist()}) > 5
    assert anew.tokenizer == store.tokenizer
    assert anew.manifest["shards"] == store.manifest["shards"]
    for shard in store.manifest["shards"]:
        assert (reduced / shard["file"]).read_bytes() == (tmp_path / "anew" / shard["file"]).read_bytes()
    assert anew.manifest["preprocessing"] == store.manifest["preprocessing"]
    assert torch.equal(anew.codebook, store.codebook)


def test_store_and_tokenizer_agree_whether_or_not_the_tokenizer_was_given(tokenised, reduced, tmp_path):
    alone = reduce(tokenised, tmp_path / "alone", coverage=0.9)
    assert alone.tokenizer["fingerprint"] == load_tokenizer(reduced / "tokenizer").fingerprint
    assert not (tmp_path / "alone" / "tokenizer").exists()


def test_the_reduced_tokenizer_maps_the_ids_of_the_other_and_decodes_kept_codes(reduced, tokenizer_folder, images):
    base, tokenizer = load_tokenizer(tokenizer_folder), load_tokenizer(reduced / "tokenizer")
    assert isinstance(tokenizer, ReducedTokenizer)
    record = read_json(reduced / "reduced.json")
    pixels = read_all(open_image_folder(images), range(6), tiny.IMAGE_SIZE)
    ids = tokenizer.encode(pixels)
    assert ids.tolist() == np.array(record["map"])[base.encode(pixels).numpy()].tolist()
    old = np.array(record["codes"])[ids.numpy()]
    assert torch.equal(tokenizer.decode(ids), base.decode(torch.from_numpy(old)))
    assert torch.equal(tokenizer.codebook, base.codebook[record["codes"]])
    assert tokenizer.codebook_size == len(record["codes"])
    for name in ("grid", "image_size", "lookup", "preprocessing"):
        assert getattr(tokenizer, name) == getattr(base, name), name


def test_a_saved_reduced_tokenizer_is_the_same_without_the_folder_it_came_from(reduced, tmp_path):
    tokenizer = load_tokenizer(reduced / "tokenizer")
    tokenizer.save(tmp_path / "copy")
    again = load_tokenizer(tmp_path / "copy")
    assert again.fingerprint == tokenizer.fingerprint
    assert isinstance(again.base, VQTokenizer)
    assert torch.equal(again.map, tokenizer.map)
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_a_reduced_tokenizer_can_be_reduced_again(reduced, tmp_path):
    store = reduce(reduced, tmp_path / "twice", codes=3, tokenizer=str(reduced / "tokenizer"))
    twice = load_tokenizer(tmp_path / "twice" / "tokenizer")
    assert twice.fingerprint == store.tokenizer["fingerprint"]
    assert twice.codebook.shape[0] == 3


def test_the_codes_are_moved_with_the_tokenizer_and_are_no_weights(reduced):
    tokenizer = load_tokenizer(reduced / "tokenizer")
    assert set(dict(tokenizer.named_buffers())) >= {"codes", "map"}
    assert all(name.startswith("base.") for name in tokenizer.state_dict())


# What is wrong


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.pop("map"),
        lambda record: record["codes"].reverse(),
        lambda record: record["codes"].append(10**6),
        lambda record: record["codes"].clear(),
        lambda record: record["map"].pop(),
        lambda record: record["map"].__setitem__(record["codes"][0], 1),
        lambda record: record.update(codes="many"),
    ],
    ids=["no map", "falling", "unknown code", "no code", "short map", "moved code", "text"],
)
def test_a_mapping_that_does_not_fit_is_refused(reduced, tmp_path, change):
    load_tokenizer(reduced / "tokenizer").save(tmp_path / "copy")
    record = read_json(tmp_path / "copy" / "reduced.json")
    change(record)
    write_json(tmp_path / "copy" / "reduced.json", record)
    with pytest.raises(UserError, match=r"reduced\.json") as raised:
        load_tokenizer(tmp_path / "copy")
    tiny.one_line(str(raised.value))


@pytest.mark.parametrize(
    ("fields", "matters"),
    [
        ({}, "give one of the two"),
        ({"codes": 3, "coverage": 0.5}, "give one of the two"),
        ({"codes": 0}, "codes = 0 must be at least 1"),
        ({"coverage": 0.0}, r"coverage = 0\.0 must lie in \(0, 1\]"),
        ({"coverage": 1.5}, "coverage"),
    ],
)
def test_impossible_values_are_refused_by_name(fields, matters):
    with pytest.raises(UserError, match=matters):
        ReduceCodebookConfig(store="a", output_dir="b", **fields)


def test_more_codes_than_there_are_are_refused(tmp_path, folder):
    assert "has 37 codes: --codes 38 is more than that" in said(folder, tmp_path / "new", codes=38)


def test_another_stores_tokenizer_is_refused(tmp_path, folder, tokenizer_folder):
    line = said(folder, tmp_path / "new", codes=5, tokenizer=str(tokenizer_folder))
    assert "their ids mean different things" in line


def test_a_folder_that_is_there_is_not_touched(tmp_path, folder):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mine.txt").write_text("mine")
    assert "is there already" in said(folder, tmp_path / "new", codes=5)


def test_a_store_without_rows_has_nothing_to_count(tmp_path):
    folder = tiny.make_store(tmp_path / "empty", torch.zeros(0, *GRID, dtype=torch.int64))
    assert "has no rows" in said(folder, tmp_path / "new", coverage=0.9)


def test_a_broken_shard_leaves_no_half_store(tmp_path, folder):
    content = bytearray((folder / "shard-00002.arrow").read_bytes())
    content[-8:] = bytes(8)
    (folder / "shard-00002.arrow").write_bytes(content)
    assert "shard-00002.arrow is cut off or broken" in said(folder, tmp_path / "new", codes=5)
