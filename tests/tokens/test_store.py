"""The token store: what is written comes back, what is broken is found and named."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

import tiny
from seitpp.runtime.errors import UserError
from seitpp.tokens.codec import pack
from seitpp.tokens.files import LocalFiles, StoreFiles
from seitpp.tokens.remote import RemoteFiles
from seitpp.tokens.store import TokenStore, sha256_of, write_shard

GRID = (3, 5)
CODES = 391


@pytest.fixture
def ids():
    ids = tiny.random_ids(16, CODES, GRID)
    ids[0, 0, :4] = torch.tensor([0, 255, 256, 390])
    return ids


@pytest.fixture
def folder(tmp_path, ids):
    """16 rows in shards of 7, 7 and 2."""
    return tiny.make_store(tmp_path / "store", ids, codes=CODES)


def shard_of(folder, number=1):
    return folder / f"shard-{number:05d}.arrow"


def change_manifest(folder, change):
    manifest = json.loads((folder / "store.json").read_text())
    change(manifest)
    (folder / "store.json").write_text(json.dumps(manifest))


def rewrite_shard(folder, packed, labels):
    """Replace shard 1 by one with other content and tell store.json the new checksum."""
    written = write_shard(shard_of(folder), packed, labels, [f"{row}.png" for row in range(len(packed))])
    change_manifest(folder, lambda manifest: manifest["shards"].__setitem__(1, written))


# Round trip


def test_store_round_trips_ids_below_at_and_above_255(folder, ids):
    store = TokenStore(folder)
    assert len(store) == 16
    assert len(store.manifest["shards"]) == 3
    assert store.ids(range(16)).tolist() == ids.tolist()


def test_rows_come_in_the_order_asked_for_across_shards(folder, ids):
    wanted = [15, 0, 7, 6, 7, 14]
    assert TokenStore(folder).ids(wanted).tolist() == ids[wanted].tolist()


@pytest.mark.parametrize("rows_per_shard", [1, 5, 16, 100])
def test_the_division_into_shards_does_not_matter(tmp_path, ids, rows_per_shard):
    store = TokenStore(tiny.make_store(tmp_path, ids, codes=CODES, rows_per_shard=rows_per_shard))
    assert store.ids([9, 2]).tolist() == ids[[9, 2]].tolist()
    assert store.labels.tolist() == [row % 3 for row in range(16)]


def test_what_is_read_is_a_copy(folder, ids):
    store = TokenStore(folder)
    store.packed([3])[:] = 0
    assert store.ids([3]).tolist() == ids[[3]].tolist()


def test_unknown_labels_are_minus_one(tmp_path, ids):
    labels = [-1, 2, 0, -1] * 4
    store = TokenStore(tiny.make_store(tmp_path, ids, codes=CODES, labels=labels))
    store.verify()
    assert store.labels.tolist() == labels
    assert store.labels.dtype == np.int32


def test_keys_classes_tokenizer_codebook_and_its_lookup_come_back(tmp_path, ids):
    keys = [f"klasse/ü {row}.png" for row in range(16)]
    codebook = torch.arange(CODES * 5.0).reshape(CODES, 5)
    store = TokenStore(
        tiny.make_store(tmp_path, ids, codes=CODES, keys=keys, fingerprint="f" * 64, lookup="cosine", codebook=codebook)
    )
    assert store.keys() == keys
    assert store.classes == ["ant", "bee", "cow"]
    assert store.tokenizer == {"name": "vq", "fingerprint": "f" * 64}
    assert store.grid == GRID
    assert store.codebook_size == CODES
    assert store.manifest["bits"] == 9
    assert store.lookup == "cosine"
    assert torch.equal(store.codebook, codebook)


def test_a_shard_without_rows_is_no_harm(tmp_path, ids):
    folder = tiny.make_store(tmp_path, ids[:7], codes=CODES)
    empty = write_shard(folder / "shard-00001.arrow", np.zeros((0, 1), np.uint8), np.zeros(0), [])
    change_manifest(folder, lambda manifest: manifest["shards"].append(empty))
    store = TokenStore(folder)
    store.verify()
    assert store.ids(range(7)).tolist() == ids[:7].tolist()


def test_pandas_reads_a_shard(folder, ids):
    frame = pd.read_feather(shard_of(folder))
    assert list(frame.columns) == ["tokens", "label", "key"]
    assert frame.label.tolist() == [row % 3 for row in range(7, 14)]
    assert frame.key.tolist() == [f"{row:04d}.png" for row in range(7, 14)]
    assert [list(tokens) for tokens in frame.tokens] == pack(ids[7:14], CODES).tolist()


def test_a_tokenizer_of_another_fingerprint_is_refused(folder):
    store = TokenStore(folder)
    store.check_tokenizer("a" * 64, "the model")
    with pytest.raises(UserError, match=r"store was made by tokenizer aaaaaaaaaaaa, but the model .* bbbbbbbbbbbb"):
        store.check_tokenizer("b" * 64, "the model")


def test_the_codebook_is_read_once_and_serves_training_after_inference(folder):
    store = TokenStore(folder)
    with torch.inference_mode():
        first = store.codebook
    (folder / "codebook.safetensors").unlink()
    assert store.codebook is first
    (store.codebook * torch.ones(1, requires_grad=True)).sum().backward()


# How files are reached


def public(kind):
    return {name for name in dir(kind) if not name.startswith("_")}


def test_both_kinds_of_files_answer_all_that_a_store_asks():
    asked = public(StoreFiles)
    assert public(LocalFiles) - {"window"} == asked <= public(RemoteFiles)


def test_every_method_of_local_files_can_be_called(folder):
    files = LocalFiles(folder)
    entries = files.manifest()["shards"]
    answers = {
        name: getattr(files, name)(
            *{"manifest": [], "read": ["store.json"], "path": entries[:1], "keeps": entries[:1]}.get(name, [entries])
        )
        for name in public(LocalFiles) - {"window"}
    }
    assert answers.pop("manifest")["classes"] == ["ant", "bee", "cow"]
    assert json.loads(answers.pop("read"))["shards"] == entries
    assert answers.pop("path") == folder / "shard-00000.arrow"
    assert answers.pop("keeps") is True
    assert set(answers.values()) == {None}


def test_closed_shards_are_opened_again(folder, ids):
    store = TokenStore(folder)
    before = store.ids(range(16))
    store.close_shards()
    assert torch.equal(store.ids(range(16)), before)


# Broken stores


def test_a_store_as_written_is_verified(folder):
    TokenStore(folder).verify()


@pytest.mark.parametrize("what", ["tokens", "label", "key"])
def test_verify_finds_a_flipped_bit_in_any_column(folder, ids, what):
    needle = {
        "tokens": pack(ids[7:8], CODES).numpy().tobytes(),
        "label": np.array([1, 2, 0, 1, 2, 0, 1], np.int32).tobytes(),
        "key": b"0007.png0008.png",
    }[what]
    content = bytearray(shard_of(folder).read_bytes())
    content[content.index(needle)] ^= 4
    shard_of(folder).write_bytes(content)
    with pytest.raises(UserError, match=r"shard-00001\.arrow: the checksum differs") as raised:
        TokenStore(folder).verify()
    tiny.one_line(str(raised.value))


@pytest.mark.parametrize("left", [0, 1, 100, -200, -1])
def test_a_shard_that_is_cut_off_is_named(folder, left):
    content = shard_of(folder).read_bytes()
    shard_of(folder).write_bytes(content[:left])
    with pytest.raises(UserError, match=r"shard-00001\.arrow is cut off or broken") as raised:
        TokenStore(folder).verify()
    tiny.one_line(str(raised.value))


def test_a_missing_shard_is_named(folder):
    shard_of(folder).unlink()
    with pytest.raises(UserError, match=r"shard-00001\.arrow is missing"):
        TokenStore(folder)


def test_a_wrong_number_of_rows_is_named(folder):
    change_manifest(folder, lambda manifest: manifest["shards"][1].update(rows=6))
    with pytest.raises(UserError, match=r"shard-00001\.arrow has 7 rows, store\.json says 6"):
        TokenStore(folder).verify()


def test_rows_of_another_width_are_named(folder):
    rewrite_shard(folder, np.zeros((7, 19), np.uint8), np.zeros(7))
    with pytest.raises(UserError, match=r"shard-00001.*19 bytes"):
        TokenStore(folder).ids([8])


def test_verify_finds_an_id_that_is_no_code(folder):
    ids = torch.zeros(7, *GRID, dtype=torch.int64)
    ids[4, 2, 1] = CODES  # nine bits hold it, the codebook does not
    rewrite_shard(folder, pack(ids, 512).numpy(), np.zeros(7))
    with pytest.raises(UserError, match=r"shard-00001\.arrow: id 391 with a codebook of 391"):
        TokenStore(folder).verify()


@pytest.mark.parametrize("label", [3, 1000, -2])
def test_verify_finds_a_label_that_is_no_class(folder, label):
    rewrite_shard(folder, np.zeros((7, 17), np.uint8), [0, 1, label, -1, 2, 0, 0])
    with pytest.raises(UserError, match=rf"shard-00001\.arrow: label {label} with 3 classes"):
        TokenStore(folder).verify()


def test_a_folder_without_a_manifest_is_no_store(tmp_path):
    with pytest.raises(UserError, match=r"is not a token store \(no store\.json\)"):
        TokenStore(tmp_path)


def test_a_store_of_another_version_is_refused(folder):
    change_manifest(folder, lambda manifest: manifest.update(version=99))
    with pytest.raises(UserError, match="version 99, this seitpp reads version 1 and 2"):
        TokenStore(folder)


def test_a_store_of_an_unknown_coding_is_refused(folder):
    change_manifest(folder, lambda manifest: manifest.update(coding="huffman"))
    with pytest.raises(UserError, match=r"'huffman'.*'planes'"):
        TokenStore(folder)


def test_entries_of_the_manifest_that_nobody_knows_are_left_alone(folder, ids):
    change_manifest(folder, lambda manifest: manifest.update(colour="blue"))
    store = TokenStore(folder)
    store.verify()
    assert torch.equal(store.ids(range(16)), ids)


@pytest.mark.parametrize("field", ["coding", "columns", "codebook", "classes"])
def test_a_manifest_that_lacks_a_field_is_named(folder, field):
    change_manifest(folder, lambda manifest: manifest.pop(field))
    with pytest.raises(UserError, match=rf"store\.json: it lacks '{field}'"):
        TokenStore(folder)


@pytest.mark.parametrize("broken", ["gone", "cut off", "a flipped bit"])
def test_verify_finds_a_broken_codebook(folder, broken):
    file = folder / "codebook.safetensors"
    content = bytearray(file.read_bytes())
    file.unlink()
    if broken == "cut off":
        file.write_bytes(content[:-9])
    if broken == "a flipped bit":
        content[-1] ^= 1
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"codebook\.safetensors"):
        TokenStore(folder).verify()


# Writing


def test_a_manifest_holds_the_checksum_of_each_shard(folder):
    shards = json.loads((folder / "store.json").read_text())["shards"]
    assert [shard["rows"] for shard in shards] == [7, 7, 2]
    assert [shard["sha256"] for shard in shards] == [sha256_of(shard_of(folder, number)) for number in range(3)]


def test_nothing_but_the_store_is_left_in_the_folder(folder):
    names = sorted(path.name for path in folder.iterdir())
    shards = [f"shard-{number:05d}.arrow" for number in range(3)]
    assert names == ["codebook.safetensors", *shards, "store.json"]


def test_the_same_rows_have_the_same_fingerprint_and_others_another(tmp_path, ids):
    def fingerprint(name, ids=ids, **others):
        return TokenStore(tiny.make_store(tmp_path / name, ids, codes=CODES, **others)).fingerprint

    changed = ids.clone()
    changed[-1, 0, 0] = (changed[-1, 0, 0] + 1) % CODES
    variants = {
        "ids": {"ids": changed}, "order": {"ids": ids.flip(0)}, "labels": {"labels": [0] * len(ids)},
        "names": {"classes": ("ant", "bee", "dog")}, "tokenizer": {"fingerprint": "b" * 64},
    }  # fmt: skip
    found = [fingerprint("first"), *(fingerprint(name, **others) for name, others in variants.items())]
    assert fingerprint("again") == found[0]
    assert len(set(found)) == len(found)


def test_the_same_rows_give_the_same_bytes(tmp_path, ids):
    first, second = (tiny.make_store(tmp_path / name, ids, codes=CODES) for name in ("a", "b"))
    assert [shard_of(first, n).read_bytes() for n in range(3)] == [shard_of(second, n).read_bytes() for n in range(3)]
