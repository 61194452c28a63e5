"""Features of a store as a Parquet file."""

import json
import sys
from itertools import takewhile

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

import tiny
from seitpp import mtm
from seitpp.finetune import embed as stage
from seitpp.mtm.masking import Masks
from seitpp.runtime.command import explain
from seitpp.runtime.errors import UserError
from seitpp.tokens.store import TokenStore

ROWS = 17
VIEW = (4, 2)  # columns 2 and 3 of a grid of 4 x 6


@pytest.fixture
def store(tmp_path):
    labels = [row % 3 - 1 for row in range(ROWS)]  # -1 where unknown
    return tiny.make_store(tmp_path / "store", tiny.random_ids(ROWS, tiny.CODES, tiny.GRID), labels=labels)


@pytest.fixture
def weights(tmp_path):
    return tiny.make_mtm(tmp_path / "mtm", view=VIEW)


def make_config(store, weights, out, **fields):
    return stage.EmbedConfig(
        **{"store": str(store), "weights": str(weights), "out": str(out), "batch_size": 3, **fields}
    )


@torch.no_grad()
def features_slowly(weights, store, pooling):
    """One row at a time, by the masked model that hides nothing."""
    model, nothing = mtm.load(weights), torch.zeros(1, 2, dtype=torch.bool)
    rows = []
    for row in range(len(store)):
        latent = model.encode(store.ids([row])[:, :, 2:4], Masks(nothing, nothing, 0, 0))[0].numpy()
        rows.append(latent[0] if pooling == "cls" else latent[1:].mean(axis=0))
    return np.stack(rows)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_features_are_those_of_one_row_at_a_time_in_the_stores_order(store, weights, tmp_path, pooling):
    stage.main(make_config(store, weights, tmp_path / "out.parquet", pooling=pooling))
    frame = pd.read_parquet(tmp_path / "out.parquet")
    features = np.stack(frame.features)
    assert features.dtype == np.float32
    assert features == pytest.approx(features_slowly(weights, TokenStore(store), pooling), abs=1e-5)


def test_labels_classes_and_keys_stand_beside_them(store, weights, tmp_path):
    stage.main(make_config(store, weights, tmp_path / "out.parquet"))
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["features", "label", "class", "key"]
    assert table["label"].to_pylist() == [row % 3 - 1 for row in range(ROWS)]
    assert table["class"].to_pylist() == [[None, "ant", "bee"][row % 3] for row in range(ROWS)]
    assert table["key"].to_pylist() == [f"{row:04d}.png" for row in range(ROWS)]


def test_the_file_says_what_its_features_are_of(store, weights, tmp_path):
    stage.main(make_config(store, weights, tmp_path / "out.parquet", pooling="cls"))
    about = json.loads(pq.read_schema(tmp_path / "out.parquet").metadata[b"seitpp"])
    assert about["tokenizer"]["fingerprint"] == "a" * 64
    assert about["pooling"] == "cls"
    assert about["classes"] == ["ant", "bee", "cow"]
    assert about["view"] == [4, 2]


def test_row_groups_of_any_size_hold_the_same_rows(store, weights, tmp_path, monkeypatch):
    stage.main(make_config(store, weights, tmp_path / "whole.parquet"))
    monkeypatch.setattr(stage, "ROW_GROUP", 4)
    stage.main(make_config(store, weights, tmp_path / "parts.parquet"))
    parts = pq.ParquetFile(tmp_path / "parts.parquet")
    assert [parts.metadata.row_group(group).num_rows for group in range(parts.num_row_groups)] == [4, 3, 4, 3, 3]
    parts = parts.read()
    whole = pq.read_table(tmp_path / "whole.parquet")
    assert parts.drop(["features"]).equals(whole.drop(["features"]))
    assert np.stack(parts["features"].to_numpy()) == pytest.approx(np.stack(whole["features"].to_numpy()), abs=1e-6)


@pytest.mark.usefixtures("own_accelerator")
def test_features_come_in_the_precision_that_is_asked_for(store, weights, tmp_path):
    tables = []
    for precision in ("no", "bf16"):
        tiny.forget_accelerator()
        stage.main(make_config(store, weights, tmp_path / precision, mixed_precision=precision))
        tables.append(np.stack(pq.read_table(tmp_path / precision)["features"].to_numpy()))
    assert 1e-4 < np.abs(tables[1] - tables[0]).max() < 0.05


def test_a_store_of_no_rows_gives_a_file_of_no_rows(weights, tmp_path):
    store = tiny.make_store(tmp_path / "empty", tiny.random_ids(0, tiny.CODES, tiny.GRID))
    stage.main(make_config(store, weights, tmp_path / "out.parquet"))
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 0


def test_weights_of_another_tokenizer_are_refused_and_nothing_is_written(store, tmp_path):
    weights = tiny.make_mtm(tmp_path / "mtm", fingerprint="b" * 64)
    with pytest.raises(UserError, match="belongs to tokenizer bbbbbbbbbbbb"):
        stage.main(make_config(store, weights, tmp_path / "out.parquet"))
    assert {path.name for path in tmp_path.iterdir()} == {"store", "mtm"}


def test_a_file_that_is_there_is_not_written_over(store, weights, tmp_path):
    (tmp_path / "out.parquet").write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        stage.main(make_config(store, weights, tmp_path / "out.parquet"))
    assert (tmp_path / "out.parquet").read_text() == "mine"


def test_a_pass_that_fails_leaves_no_file(store, weights, tmp_path, monkeypatch):
    calls = []

    def fail_later(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        return pooled(*arguments)

    pooled = stage.pooled
    monkeypatch.setattr(stage, "pooled", fail_later)
    with pytest.raises(RuntimeError, match="out of memory"):
        stage.main(make_config(store, weights, tmp_path / "out.parquet"))
    assert {path.name for path in tmp_path.iterdir()} == {"store", "mtm"}


def test_the_command_line_is_one_line_where_something_is_wrong(weights, tmp_path, monkeypatch, capsys):
    words = ["seitpp embed", "--store", tmp_path / "no", "--weights", weights, "--out", tmp_path / "out.parquet"]
    monkeypatch.setattr(sys, "argv", list(map(str, words)))
    with pytest.raises(SystemExit) as stopped:
        stage.cli()
    assert stopped.value.code == 1
    assert "no is not a token store" in tiny.one_line(capsys.readouterr().err)


def test_the_file_may_lie_in_the_models_run_but_not_behind_a_url(store, weights, monkeypatch, tmp_path):
    stage.main(make_config(store, weights, weights / "features.parquet"))
    assert pq.read_metadata(weights / "features.parquet").num_rows == ROWS
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"--out s3://bucket/features\.parquet is a URL"):
        stage.main(make_config(store, weights, "s3://bucket/features.parquet"))
    assert not (tmp_path / "s3:").exists()


@pytest.mark.parametrize(
    ("codes", "grid", "matters"),
    [
        (50, tiny.GRID, r"other has 50 codes, but the model in .*mtm knows 37"),
        (tiny.CODES, (2, 2), r"a view of \(4, 2\) tokens must fit into the stored grid of \(2, 2\)"),
    ],
)
def test_a_store_that_the_model_can_not_see_is_refused(weights, tmp_path, codes, grid, matters):
    other = tiny.make_store(tmp_path / "other", tiny.random_ids(3, codes, grid), codes=codes)
    with pytest.raises(UserError, match=matters):
        stage.main(make_config(other, weights, tmp_path / "out.parquet"))
    assert not (tmp_path / "out.parquet").exists()


def test_a_folder_that_may_not_be_written_is_named(store, weights, tmp_path, request):
    out = "/features.parquet"  # a folder of root's that every user can enter
    config = make_config(store, weights, out)
    for folder in takewhile(lambda path: path.name.startswith(("test_", "popen-", "pytest-")), tmp_path.parents):
        folder.chmod(0o755)  # pytest's own, which nobody else may enter otherwise; none above them
    tmp_path.chmod(0o755)
    request.getfixturevalue("unprivileged")
    with pytest.raises(PermissionError) as raised:
        stage.main(config)
    assert explain(raised.value) == f"no permission to write or read {out}: choose another folder or change its rights"
