"""Stores of format version 1, made with the code of commit ecc32cf and kept as they were: one, and a subset of it."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import tiny
from seitpp.mtm.pretrain import pretrain as pretrain
from seitpp.tokenizers.store_export import ExportConfig
from seitpp.tokenizers.store_export import main as export_store
from seitpp.tokenizers.store_import import ImportConfig
from seitpp.tokenizers.store_import import main as import_store
from seitpp.tokens.loader import TrainingBatches
from seitpp.tokens.store import TokenStore
from seitpp.tokens.subset import SubsetConfig
from seitpp.tokens.subset import main as make_subset
from tiny_pretraining import entropies, make_config

FROZEN = Path(__file__).parent / "version-1"
EXPECTED = json.loads((FROZEN / "expected.json").read_text())
"""What that code read from them."""


@pytest.fixture(params=["store", "subset"])
def name(request):
    return request.param


def rewritten(folder):
    """The frozen store's rows, written with today's code."""
    store = TokenStore(FROZEN / "store")
    return tiny.make_store(
        folder, store.ids(range(20)), codes=391, labels=store.labels, keys=store.keys(), rows_per_shard=9,
        fingerprint="1" * 64, lookup="cosine", codebook=store.codebook,
    )  # fmt: skip


def test_it_opens_and_is_verified(name):
    store = TokenStore(FROZEN / name)
    store.verify()
    assert store.manifest["version"] == 1
    assert store.columns == ("tokens", "label", "key")
    assert len(store) == EXPECTED[name]["rows"]


def test_rows_labels_and_keys_are_those_that_the_old_code_read(name):
    store = TokenStore(FROZEN / name)
    assert store.ids(range(len(store))).flatten(1).tolist() == EXPECTED[name]["ids"]
    assert store.labels.tolist() == EXPECTED[name]["labels"]
    assert store.keys() == EXPECTED[name]["keys"]


def test_its_fingerprint_is_the_old_one_so_that_runs_on_it_resume(name):
    assert TokenStore(FROZEN / name).fingerprint == EXPECTED[name]["fingerprint"]


def test_training_sees_the_same_batches(name):
    batches = TrainingBatches(TokenStore(FROZEN / name), 3, seed=5)
    for step, (ids, positions) in EXPECTED[name]["batches"].items():
        batch = batches(int(step))
        assert batch.ids.flatten(1).tolist() == ids
        assert batch.positions.tolist() == positions


def test_the_same_rows_written_today_are_the_same_shards_and_give_the_same_fingerprint(tmp_path):
    today = rewritten(tmp_path)
    for path in sorted((FROZEN / "store").glob("*.arrow")):
        assert (today / path.name).read_bytes() == path.read_bytes()
    store = TokenStore(today)
    assert store.manifest["version"] == 2
    assert store.fingerprint == EXPECTED["store"]["fingerprint"]


def test_pretraining_on_it_has_the_losses_of_the_same_rows_written_today(tmp_path):
    losses = []
    for name, store in (("old", FROZEN / "store"), ("today", rewritten(tmp_path / "today"))):
        run = tmp_path / f"run-{name}"
        pretrain(make_config(tmp_path, run, store=str(store), batch_size=3, steps=4))
        losses.append(entropies(run))
    assert losses[0] == losses[1]
    assert len(losses[0]) == 4


def test_its_size_is_told_from_the_manifest(tmp_path):
    old, today = TokenStore(FROZEN / "store").size, TokenStore(rewritten(tmp_path)).size
    assert (old.rows, old.tokens, old.labels, old.codebook) == (20, 20 * 27, 20 * 4, today.codebook)
    assert old.keys == today.keys + today.container  # version 1 does not tell them apart
    assert old.total == sum(path.stat().st_size for path in (FROZEN / "store").iterdir())


def test_the_size_of_its_subset_is_in_proportion():
    whole, part = (TokenStore(FROZEN / name).size for name in ("store", "subset"))
    assert (part.rows, part.tokens, part.labels) == (7, 7 * 27, 7 * 4)
    assert part.keys == round(whole.keys * 7 / 20)


def test_subsets_of_it_are_made_and_read(tmp_path):
    for name in ("store", "subset"):
        shutil.copytree(FROZEN / name, tmp_path / name)
        make_subset(SubsetConfig(store=str(tmp_path / name), output_dir=str(tmp_path / f"of-{name}"), count=5))
        part = TokenStore(tmp_path / f"of-{name}")
        part.verify()
        rows = [EXPECTED[name]["keys"].index(key) for key in part.keys()]  # noqa: SIM118 (not a dict)
        assert part.ids(range(5)).flatten(1).tolist() == [EXPECTED[name]["ids"][row] for row in rows]
        assert part.labels.tolist() == [EXPECTED[name]["labels"][row] for row in rows]


def test_it_goes_through_parquet(name, tmp_path):
    export_store(ExportConfig(store=str(FROZEN / name), format="parquet", out=str(tmp_path / "out")))
    import_store(ImportConfig(source="parquet", data=str(tmp_path / "out"), output_dir=str(tmp_path / "back")))
    back = TokenStore(tmp_path / "back")
    back.verify()
    assert back.manifest["version"] == 2
    assert back.ids(range(len(back))).flatten(1).tolist() == EXPECTED[name]["ids"]
    assert back.labels.tolist() == EXPECTED[name]["labels"]
    assert torch.equal(back.codebook, TokenStore(FROZEN / name).codebook)


def test_parquet_that_the_old_code_exported_is_imported(tmp_path):
    export_store(ExportConfig(store=str(FROZEN / "store"), format="parquet", out=str(tmp_path / "out")))
    as_old_code_wrote_it(tmp_path / "out")
    import_store(ImportConfig(source="parquet", data=str(tmp_path / "out"), output_dir=str(tmp_path / "back")))
    assert TokenStore(tmp_path / "back").ids(range(20)).flatten(1).tolist() == EXPECTED["store"]["ids"]


def as_old_code_wrote_it(folder):
    """Take from the metadata of exported files what version 1 did not have."""
    import pyarrow.parquet as pq

    for path in folder.glob("*.parquet"):
        table = pq.read_table(path)
        manifest = json.loads(table.schema.metadata[b"seitpp"])
        for field in ("coding", "columns"):
            del manifest[field]
        pq.write_table(table.replace_schema_metadata({b"seitpp": json.dumps(manifest)}), path)
