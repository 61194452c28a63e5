"""Coded stores: what a packed store gives, from fewer bytes, whatever reads it; and damage is noticed."""

import json
import shutil
import signal
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch

import tiny
from seitpp.mtm.pretrain import pretrain
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.reduce_codebook import ReduceCodebookConfig
from seitpp.tokenizers.reduce_codebook import main as reduce_codebook
from seitpp.tokenizers.store_export import ExportConfig
from seitpp.tokenizers.store_export import main as export
from seitpp.tokenizers.store_import import ImportConfig
from seitpp.tokenizers.store_import import main as import_store
from seitpp.tokens.code_store import CodeStoreConfig
from seitpp.tokens.code_store import main as code
from seitpp.tokens.dataset import TokenDataset
from seitpp.tokens.format.targets import Targets
from seitpp.tokens.loader import TokenLoader, TrainingBatches
from seitpp.tokens.store import TokenStore, open_store
from seitpp.tokens.subset import SubsetConfig
from seitpp.tokens.subset import main as make_subset
from tiny_pretraining import entropies, make_config

GRID, CODES, ROWS = (9, 8), 391, 60
FILES = ("store.json", "codebook.safetensors", "coding.safetensors", "shard-00000.arrow", "shard-00002.arrow")


def smooth_ids(rows=ROWS, grid=GRID, codes=CODES):
    """Ids that coding makes smaller: few different ones a row."""
    random = np.random.default_rng(0)
    few = random.integers(5, size=(rows, 1, 1)) + random.integers(2, size=(rows, *grid))
    return torch.from_numpy(few * 61 % codes)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """60 rows in shards of 25, 25 and 10, with several labels a row and masks."""
    lists = [list(range(row % 3)) for row in range(ROWS)]
    masks = [None if row % 4 else np.full((2, 3), row, np.uint8) for row in range(ROWS)]
    folder = tmp_path_factory.mktemp("packed") / "store"
    targets = Targets.of(labels=lists, masks=masks)
    return tiny.make_store(folder, smooth_ids(), codes=CODES, rows_per_shard=25, targets=targets)


@pytest.fixture(scope="module")
def made(packed):
    folder = packed.parent / "coded"
    code(CodeStoreConfig(store=str(packed), output_dir=str(folder)))
    return folder


@pytest.fixture
def coded(made, tmp_path):
    """A copy of the coded store, to be spoiled."""
    return shutil.copytree(made, tmp_path / "coded")


def change_manifest(folder, change):
    manifest = json.loads((folder / "store.json").read_text())
    change(manifest)
    (folder / "store.json").write_text(json.dumps(manifest))


def bytes_of(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


# What is read


def test_rows_of_a_coded_store_are_those_of_the_packed_one(packed, made):
    one, other = TokenStore(packed), TokenStore(made)
    rows = np.random.default_rng(1).integers(ROWS, size=200)
    assert torch.equal(other.ids(rows), one.ids(rows))
    assert np.array_equal(other.packed(rows), one.packed(rows))
    assert other.labels.tolist() == one.labels.tolist()
    assert other.keys() == one.keys()
    assert other.columns == one.columns
    for mine, theirs in zip(other.label_lists_at(rows), one.label_lists_at(rows), strict=True):
        assert mine.tolist() == theirs.tolist()
    for mine, theirs in zip(other.masks_at(rows), one.masks_at(rows), strict=True):
        assert np.array_equal(mine, theirs)
    assert other.ids([]).shape == (0, *GRID)


def test_it_is_smaller_and_its_bytes_are_counted_whole(packed, made):
    store = TokenStore(made)
    size = store.size
    assert size.total < TokenStore(packed).size.total
    assert size.tables == (made / "coding.safetensors").stat().st_size > 0
    shards = [pa.ipc.open_file(str(path)).read_all() for path in sorted(made.glob("*.arrow"))]
    lengths = [len(row.as_py()) for table in shards for row in table.column("tokens")]
    assert size.tokens == sum(lengths) + 4 * ROWS
    assert store.content(range(ROWS))["tokens"].tolist() == [length + 4 for length in lengths]
    counted = sum((made / name).stat().st_size for name in ("store.json", "codebook.safetensors", "coding.safetensors"))
    assert size.total == counted + sum(path.stat().st_size for path in made.glob("*.arrow"))


def test_training_batches_are_the_same_bit_for_bit(packed, made):
    one, other = (TrainingBatches(TokenStore(folder), 7, seed=3) for folder in (packed, made))
    for step in range(12):
        mine, theirs = one(step), other(step)
        assert mine.ids.dtype == theirs.ids.dtype == torch.int64
        assert torch.equal(mine.ids, theirs.ids)
        assert torch.equal(mine.labels, theirs.labels)
        assert torch.equal(mine.positions, theirs.positions)


def test_pretraining_on_it_has_the_losses_of_the_packed_store(tmp_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("even")
    store = tiny.make_store(folder / "packed", smooth_ids(24, tiny.GRID, tiny.CODES), rows_per_shard=7)
    code(CodeStoreConfig(store=str(store), output_dir=str(folder / "coded")))
    assert TokenStore(folder / "coded").manifest["coding"] == "rans"
    losses = []
    for name in ("packed", "coded"):
        config = make_config(tmp_path, tmp_path / name, store=str(folder / name), batch_size=3, steps=3)
        pretrain(config)
        losses.append(entropies(tmp_path / name))
    assert losses[0] == losses[1]
    assert len(losses[0]) == 3


def test_datasets_loaders_and_subsets_read_it(made, packed, tmp_path):
    assert torch.equal(TokenDataset(made)[-1][0], TokenStore(packed).ids([ROWS - 1])[0])
    batches = list(TokenLoader(TokenStore(made), 16, shuffle=False))
    assert torch.equal(torch.cat([batch.ids for batch in batches]), TokenStore(packed).ids(range(ROWS)))
    make_subset(SubsetConfig(store=str(made), output_dir=str(tmp_path / "part"), classes=("cow", "bee"), count=20))
    part = TokenStore(tmp_path / "part")
    assert torch.equal(part.ids(range(20)), TokenStore(packed).ids(part.chosen))
    part.verify()
    (tmp_path / "again").mkdir()
    code(CodeStoreConfig(store=str(tmp_path / "part"), output_dir=str(tmp_path / "again")))
    again = TokenStore(tmp_path / "again")
    assert again.chosen is None
    assert torch.equal(again.ids(range(20)), part.ids(range(20)))
    assert again.labels.tolist() == part.labels.tolist()


@pytest.mark.parametrize("kind", ["parquet", "seit"])
def test_what_is_exported_from_it_is_imported_again(made, packed, tmp_path, kind):
    export(ExportConfig(store=str(made), format=kind, out=str(tmp_path / "out"), name="rows"))
    other = tmp_path / "out-of-packed"
    export(ExportConfig(store=str(packed), format=kind, out=str(other), name="rows"))
    if kind == "parquet":
        import_store(ImportConfig(source=kind, data=str(tmp_path / "out"), output_dir=str(tmp_path / "back")))
        assert torch.equal(TokenStore(tmp_path / "back").ids(range(ROWS)), TokenStore(packed).ids(range(ROWS)))
    for path in other.iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_a_smaller_codebook_of_it_is_that_of_the_packed_store(made, packed, tmp_path):
    for store, name in ((made, "one"), (packed, "other")):
        reduce_codebook(ReduceCodebookConfig(store=str(store), codes=4, output_dir=str(tmp_path / name)))
    one, other = TokenStore(tmp_path / "one"), TokenStore(tmp_path / "other")
    assert one.fingerprint == other.fingerprint


def test_it_is_read_from_a_url(made, packed, tmp_path):
    import fsspec

    from seitpp.tokens.remote import CacheConfig

    memory = fsspec.filesystem("memory")
    memory.put(f"{made}/", "/coded-store/", recursive=True)
    try:
        store = open_store("memory://coded-store", CacheConfig(folder=str(tmp_path / "cache")))
        assert torch.equal(store.ids(range(ROWS)), TokenStore(packed).ids(range(ROWS)))
        store.verify()
    finally:
        memory.rm("/coded-store", recursive=True)


def test_without_numba_the_ids_are_the_same(made, packed, monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    from seitpp.tokens.coding import kernel

    kernel._compiled.cache_clear()
    store = TokenStore(made)
    assert torch.equal(store.ids(range(ROWS)), TokenStore(packed).ids(range(ROWS)))
    assert not store.coder.compiled
    kernel._compiled.cache_clear()


# Making it


def test_a_store_coded_twice_is_the_same_bytes(made, packed, tmp_path):
    code(CodeStoreConfig(store=str(packed), output_dir=str(tmp_path / "again")))
    assert bytes_of(tmp_path / "again") == bytes_of(made)
    before = {path.name: path.stat().st_mtime_ns for path in made.glob("*.arrow")}
    code(CodeStoreConfig(store=str(packed), output_dir=str(made)))  # nothing is left to do
    assert {path.name: path.stat().st_mtime_ns for path in made.glob("*.arrow")} == before


def test_a_job_that_was_killed_goes_on_to_the_same_store(made, packed, tmp_path):
    """SIGKILL once the first shard lies there, but not what the manifest will say of it."""
    (tmp_path / "out").mkdir()
    for name in ("coding.json", "coding.safetensors"):
        shutil.copy(made / name, tmp_path / "out")
    words = (
        "import os; import seitpp.tokens.code_store as job; write = job.write_shard\n"
        "job.write_shard = lambda *words: (write(*words), os.kill(os.getpid(), 9))\n"
        f"job.main(job.CodeStoreConfig(store={str(packed)!r}, output_dir={str(tmp_path / 'out')!r}))"
    )
    assert tiny.run("-c", words).returncode == -signal.SIGKILL
    assert (tmp_path / "out" / "shard-00000.arrow").exists()
    assert not (tmp_path / "out" / "store.json").exists()
    code(CodeStoreConfig(store=str(packed), output_dir=str(tmp_path / "out")))
    assert bytes_of(tmp_path / "out") == bytes_of(made)


def test_coding_goes_on_only_in_its_own_folder(made, packed, tmp_path):
    other = tiny.make_store(tmp_path / "other", smooth_ids(30), codes=CODES)
    with pytest.raises(UserError, match="coding of other input"):
        code(CodeStoreConfig(store=str(other), output_dir=str(made)))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(UserError, match=r"thesis\.txt"):
        code(CodeStoreConfig(store=str(packed), output_dir=str(tmp_path / "mine")))
    with pytest.raises(UserError, match="which is read"):
        code(CodeStoreConfig(store=str(packed), output_dir=str(packed)))


def test_rows_that_coding_would_make_larger_stay_packed(tmp_path):
    noise = tiny.make_store(tmp_path / "noise", tiny.random_ids(9, 256, (2, 3)), codes=256)
    code(CodeStoreConfig(store=str(noise), output_dir=str(tmp_path / "coded")))
    store = TokenStore(tmp_path / "coded")
    assert store.manifest["coding"] == "planes"
    assert torch.equal(store.ids(range(9)), TokenStore(noise).ids(range(9)))


def test_a_store_without_rows_is_coded_as_well(tmp_path):
    empty = tiny.make_store(tmp_path / "empty", tiny.random_ids(0, 256, (2, 3)), codes=256)
    code(CodeStoreConfig(store=str(empty), output_dir=str(tmp_path / "coded")))
    assert len(TokenStore(tmp_path / "coded")) == 0


# Damage


def spoil(folder, place):
    """Flip a bit in the coded rows of the second shard; returns the row."""
    path = folder / "shard-00001.arrow"
    content = bytearray(path.read_bytes())
    column = pa.ipc.open_file(pa.memory_map(str(path))).read_all().column("tokens").chunk(0)
    rows = [row.as_py() for row in column]
    start = bytes(content).index(b"".join(rows))
    content[start + place] ^= 4
    path.write_bytes(content)
    return int(np.searchsorted(np.cumsum([len(row) for row in rows]), place, side="right"))


def test_verify_names_the_shard_of_a_flipped_byte(coded):
    spoil(coded, 20)
    with pytest.raises(UserError, match=r"shard-00001\.arrow: the checksum differs"):
        TokenStore(coded).verify()
    with pytest.raises(UserError, match=r"shard-00001\.arrow: the checksum differs"):
        TokenStore(coded).ids([30])


def test_a_damaged_row_is_named_and_the_others_are_read(coded, packed):
    row = spoil(coded, 20)
    store = TokenStore(coded, verify_shards=False)
    with pytest.raises(UserError, match=rf"shard-00001\.arrow: row {row} is damaged"):
        store.ids([25 + row])
    others = [each for each in range(ROWS) if each != 25 + row]
    assert torch.equal(store.ids(others), TokenStore(packed).ids(others))


@pytest.mark.parametrize("place", range(0, 60, 7))
def test_a_flipped_byte_anywhere_is_noticed_by_verify(coded, place):
    spoil(coded, place)
    with pytest.raises(UserError, match=r"shard-00001\.arrow"):
        TokenStore(coded).verify()


def test_verify_decodes_rows_even_where_the_checksum_was_mended(coded):
    from seitpp.tokens.store import sha256_of

    row = spoil(coded, 20)
    checksum = sha256_of(coded / "shard-00001.arrow")
    change_manifest(coded, lambda manifest: manifest["shards"][1].update(sha256=checksum))
    with pytest.raises(UserError, match=rf"shard-00001\.arrow: row {row} is damaged"):
        TokenStore(coded).verify()


def test_tables_of_another_store_are_refused(coded, tmp_path):
    import hashlib

    other = tiny.make_store(tmp_path / "other", smooth_ids(30, (5, 5)), codes=CODES)
    code(CodeStoreConfig(store=str(other), output_dir=str(tmp_path / "other-coded")))
    content = (tmp_path / "other-coded" / "coding.safetensors").read_bytes()
    (coded / "coding.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"coding\.safetensors: the checksum differs"):
        TokenStore(coded).ids([0])
    told = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    change_manifest(coded, lambda manifest: manifest.update(coding_tables=told))
    with pytest.raises(UserError, match="that the store's codes and grid need"):
        TokenStore(coded).ids([0])


def test_tables_that_are_missing_are_named(coded):
    (coded / "coding.safetensors").unlink()
    with pytest.raises(UserError, match=r"coding\.safetensors is missing"):
        TokenStore(coded).ids([0])


def test_shards_of_the_other_coding_are_refused(coded, packed):
    shutil.copy(packed / "shard-00001.arrow", coded)
    shutil.copy(packed / "shard-00001.arrow", coded / "shard-00002.arrow")
    with pytest.raises(UserError, match="cut off or broken"):
        TokenStore(coded)
    change_manifest(coded, lambda manifest: [shard.pop("bytes") for shard in manifest["shards"]])
    with pytest.raises(UserError, match="tokens is of type fixed_size_binary"):
        TokenStore(coded, verify_shards=False).ids([30])
