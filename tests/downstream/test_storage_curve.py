"""The storage curve: bytes are those of files, budgets are kept, and it goes on where it was stopped."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml

import tiny
from seitpp.downstream import storage_curve as stage
from seitpp.downstream.storage_curve_steps import Point, make_steps
from seitpp.downstream.storage_curve_table import COLUMNS, curve_table, tokenizer_bytes
from seitpp.finetune.labelled import open_labelled
from seitpp.finetune.pixels import PixelsConfig
from seitpp.finetune.train import FinetuneConfig
from seitpp.mtm.pretrain import PretrainConfig
from seitpp.runtime.command import parse
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import read_json
from seitpp.runtime.results import read_results
from seitpp.tokenizers import tokenize
from seitpp.tokens.store import TokenStore

RECIPES = {
    "pretrain": {
        "model": {
            "encoder": {"width": 24, "depth": 1, "heads": 3, "embedding_std": 0.5},
            "decoder": {"width": 16, "depth": 1, "heads": 2},
        },
        "steps": 3,
        "batch_size": 4,
        "lr": 1e-3,
        "trackers": [],
        "augment": {"crop": False, "color_adapt": 0.5},
    },
    "finetune": {
        "steps": 3,
        "batch_size": 4,
        "blr_candidates": [0.02, 0.3],
        "trackers": [],
        "augment": {"crop": False},
    },
}
ROW = 24 + 4 + 4 + len("ant/000.png")
"""Bytes of a row: 4 x 6 tokens of a byte, its label, its key with its offset."""
CODEBOOK = 37 * 5 * 4


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Images, a tokenizer, stores and small recipes; two of the training images are unlabelled."""
    folder = tmp_path_factory.mktemp("curve")
    tiny.make_images(folder / "train", {"ant": 13, "bee": 9, "cow": 8}, seed=1)
    tiny.make_images(folder / "test", {"ant": 5, "bee": 4, "cow": 3}, seed=2)
    for number in (11, 12):
        (folder / "train" / "ant" / f"0{number}.png").rename(folder / "train" / f"unknown {number}.png")
    tiny.make_tokenizer(folder / "tokenizer")
    for name, like in (("train", None), ("test", str(folder / "train store"))):
        tokenize.main(
            tokenize.TokenizeConfig(
                images=str(folder / name), tokenizer=str(folder / "tokenizer"), like=like,
                output_dir=str(folder / f"{name} store"), coding="none",
            )
        )  # fmt: skip
    for name, content in RECIPES.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return folder


def make_config(world, output, **fields):
    fields = {
        "budgets": ("0.5", "1.0"), "seeds": 1, "jpegs": ("jpeg75", "jpeg75_side_fit"), "lanes": 1,
        "dataset": "insects", **fields,
    }  # fmt: skip
    return stage.StorageCurveConfig(
        store=str(world / "train store"), eval_store=str(world / "test store"), images=str(world / "train"),
        eval_images=str(world / "test"), tokenizer=str(world / "tokenizer"), pretrain=str(world / "pretrain.yaml"),
        finetune=str(world / "finetune.yaml"), output_dir=str(output), **fields,
    )  # fmt: skip


@pytest.fixture(scope="module")
def measured(world, tmp_path_factory):
    """A finished curve of two budgets."""
    config = make_config(world, tmp_path_factory.mktemp("run") / "curve")
    stage.storage_curve(config)
    return config


@pytest.fixture(scope="module")
def table(measured):
    return pd.read_csv(Path(measured.output_dir) / "storage_curve.csv", keep_default_na=False)


# The whole


def test_a_curve_has_a_point_a_budget_storage_and_start(table):
    assert tuple(table.columns) == COLUMNS
    points = table[table.metric == "accuracy"][["budget", "storage", "init"]].values.tolist()
    half, whole = 28 * ROW // 2, 28 * ROW
    kinds = [["", "scratch"], ["", "mtm"], ["jpeg75", "scratch"], ["jpeg75_side_fit", "scratch"]]
    assert points == [[budget, *kind] for budget in (half, whole) for kind in kinds]
    assert set(table.metric) == {"accuracy", "cross_entropy"}
    assert set(table.test_images) == {12}


def test_bytes_are_the_subsets_own_and_those_of_the_jpegs_on_disk(measured, table):
    folder = Path(measured.output_dir) / "seed-0"
    for row in table.itertuples():
        at = folder / str(row.budget)
        codebook = (at / "store" / "codebook.safetensors").stat().st_size
        assert codebook >= CODEBOOK
        if row.storage == "":
            assert row.images == len(np.load(at / "store" / "rows.npy")) == row.budget // ROW
            assert row.bytes == row.images * ROW + codebook
            weights = measured_weights(measured.tokenizer)
            assert row.bytes_with_tokenizer == row.bytes + weights
        else:
            kept = pa.ipc.open_file(at / row.storage / "seed-0" / "jpegs.arrow").read_all().to_pylist()
            assert row.images == len(kept)
            assert row.bytes == sum(len(each["jpeg"]) + len(each["key"]) + 12 for each in kept)
            assert row.bytes == row.bytes_with_tokenizer
            assert row.bytes <= row.budget // ROW * ROW + codebook  # of the tokens beside them
            assert row.images < row.budget // ROW


def measured_weights(folder):
    return sum(file.stat().st_size for file in (Path(folder) / "weights").iterdir())


def test_pre_training_sees_the_rows_of_its_subset_only(measured):
    for budget in (28 * ROW // 2, 28 * ROW):
        at = Path(measured.output_dir) / "seed-0" / str(budget)
        for run in ("mtm/pretrain", "mtm/finetune", "scratch/finetune"):
            assert yaml.safe_load((at / run / "config.yaml").read_text())["store"] == str(at / "store")
        store = TokenStore(at / "store")
        store.verify()
        assert -1 not in store.labels  # what is not labelled is in no subset
    small, large = (TokenStore(Path(measured.output_dir) / "seed-0" / str(each) / "store").keys()
                    for each in (28 * ROW // 2, 28 * ROW))  # fmt: skip
    assert set(small) < set(large)


def test_results_are_those_of_the_runs(measured, table):
    results = read_results([measured.output_dir])
    assert len(results) == len(table) == 2 * 2 * 4
    for row in table.itertuples():
        at = Path(measured.output_dir) / "seed-0" / str(row.budget)
        own = read_results([at / (row.storage or f"{row.init}/finetune")])
        assert own[own.metric == row.metric].value.item() == row.mean


def test_a_finished_curve_runs_nothing_again_and_takes_further_jpegs(measured, table):
    log = Path(measured.output_dir) / "commands.jsonl"
    before = log.read_text().splitlines()
    stage.storage_curve(replace(measured, jpegs=(*measured.jpegs, "jpeg5")))
    after = log.read_text().splitlines()
    assert after[: len(before)] == before
    assert len(after) == len(before) + 2
    longer = pd.read_csv(Path(measured.output_dir) / "storage_curve.csv", keep_default_na=False)
    same = longer[longer.storage != "jpeg5"].reset_index(drop=True)
    pd.testing.assert_frame_equal(same.astype(str), table.astype(str))


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_and_ends_in_the_same_table(world, measured, table, tmp_path):
    config = make_config(world, tmp_path / "run")
    words = [
        word for name in ("store", "eval_store", "images", "eval_images", "tokenizer", "pretrain", "finetune")
        for word in (f"--{name}", getattr(config, name))
    ]  # fmt: skip
    words += ["--budgets", "[0.5]", "--jpegs", "[jpeg75, jpeg75_side_fit]", "--seeds", "1", "--lanes", "1"]
    command = [sys.executable, "-m", "seitpp.cli", "storage-curve", *words, "--dataset", "insects"]
    command += ["--output_dir", config.output_dir]
    killed = subprocess.Popen(command, cwd=tiny.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 300
    while len(finished(config.output_dir)) < 2:
        assert killed.poll() is None, killed.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    killed.kill()
    killed.communicate()
    before = finished(config.output_dir)
    assert 2 <= len(before) < 5
    whole = subprocess.run(command, cwd=tiny.ROOT, capture_output=True, text=True, check=False, timeout=580)
    assert whole.returncode == 0, whole.stderr
    assert {name: finished(config.output_dir)[name] for name in before} == before
    again = pd.read_csv(Path(config.output_dir) / "storage_curve.csv", keep_default_na=False)
    half = table[table.budget == min(table.budget)].reset_index(drop=True)
    pd.testing.assert_frame_equal(again.astype(str), half.astype(str))


def finished(folder):
    log = Path(folder) / "commands.jsonl"
    records = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return {record["stage"]: record for record in records if record["finished"]}


# Budgets and steps


def test_budgets_are_shares_of_the_labelled_rows_or_sizes(world):
    labelled = open_labelled(world / "train store")
    assert stage.budgets_in_bytes(("0.25", "1.0", "0.5kB", "1000"), labelled) == [28 * ROW // 4, 28 * ROW, 500, 1000]
    for budgets, matters in (
        (("3MB",), rf"train store take {28 * ROW} bytes, less than 3MB"),
        (("1.0", str(28 * ROW)), "are the same"),
    ):
        with pytest.raises(UserError, match=matters):
            stage.budgets_in_bytes(budgets, labelled)


def test_a_budget_of_less_than_two_classes_is_refused(world, tmp_path):
    with pytest.raises(UserError, match=r"--budgets: 50 bytes hold rows of fewer than two classes: allow more"):
        stage.storage_curve(make_config(world, tmp_path / "run", budgets=("50",)))


@pytest.fixture(scope="module")
def told(world):
    """{name of a step: what its command tells its stage}, of one subset."""
    config = make_config(world, "runs/curve", ingredients=("scratch", "mtm", "coloradapt"), pixel_blr=0.5)
    recipes = stage.read_inputs(config)[2]
    steps = make_steps(config, recipes, [Point(seed=4, budget=700, bytes=1440, images=16)])
    classes = {"pretrain": (PretrainConfig, "pretrain"), "finetune": (FinetuneConfig, "finetune"),
               "train-on-jpegs": (PixelsConfig, "finetune")}  # fmt: skip
    return {
        step.name: parse(classes[step.command[1]][0], list(step.command[2:]), recipes=classes[step.command[1]][1])
        for step in steps
    }


def test_trainings_on_tokens_and_jpegs_follow_one_recipe(told):
    runs = [run for name, run in told.items() if "pre-training" not in name]
    assert len(runs) == 5
    for name in (
        "steps",
        "batch_size",
        "seed",
        "seeds",
        "label_smoothing",
        "warmup_steps",
        "augment",
        "blr_candidates",
    ):
        assert len({str(getattr(run, name)) for run in runs}) == 1
    assert {run.seed for run in runs} == {4}
    scratch, jpegs = told["scratch, 700 bytes, seed 4, fine-tuning"], told["jpeg75, 700 bytes, seed 4, training"]
    assert scratch.encoder == jpegs.encoder
    assert (scratch.blr, jpegs.blr) == (0.02, 0.5)
    assert jpegs.budget == "1440"  # as many as the tokens with their codebook
    assert jpegs.store != scratch.store


def test_jpegs_may_take_what_the_tokenizer_takes_besides(world):
    config = make_config(world, "runs/curve", ingredients=("scratch",), jpegs=("jpeg75",))
    point = Point(seed=0, budget=700, bytes=1440, images=16)
    *_, step = make_steps(config, stage.read_inputs(config)[2], [point], 1000)
    assert step.command[step.command.index("--budget") + 1] == "2440"


def test_pre_trainings_differ_in_their_ingredient_alone(told):
    plain, recoloured = (told[f"{name}, 700 bytes, seed 4, pre-training"] for name in ("mtm", "coloradapt"))
    assert (plain.augment.color_adapt, recoloured.augment.color_adapt) == (0.0, 0.5)
    assert plain.store == recoloured.store == "runs/curve/seed-4/700/store"


def test_means_are_over_seeds_and_a_missing_tokenizer_is_missing():
    rows = pd.DataFrame(
        {
            "dataset": "t", "budget": 100, "storage": ["", "", "jpeg75"], "init": "scratch", "augmentation": "",
            "metric": "accuracy", "value": [0.2, 0.4, 0.5], "seed": [0, 1, 0], "images": [10, 12, 3],
            "bytes": [97, 100, 99], "bytes_with_tokenizer": pd.array([None, None, 99], "Int64"),
            "quality": pd.array([None, None, 75], "Int64"), "side": pd.array([None, None, 16], "Int64"),
            "test_images": 7,
        }
    )  # fmt: skip
    tokens, jpegs = curve_table(rows).to_dict("records")
    assert (tokens["mean"], tokens["std"]) == (pytest.approx(0.3), pytest.approx(0.2 / 2**0.5))
    assert (tokens["images"], tokens["bytes"], tokens["seeds"]) == (11, 98, 2)
    assert pd.isna(tokens["bytes_with_tokenizer"])
    assert (jpegs["bytes_with_tokenizer"], jpegs["quality"], jpegs["seeds"]) == (99, 75, 1)
    assert np.isnan(jpegs["std"])


def test_a_tokenizer_takes_the_bytes_of_its_files(world):
    assert tokenizer_bytes(str(world / "tokenizer")) == measured_weights(world / "tokenizer")


# Bad input


@pytest.mark.parametrize(
    ("changes", "matters"),
    [
        ({"ingredients": ("mtm", "tokenadpt")}, r"'tokenadpt'; did you mean tokenadapt\?"),
        ({"budgets": ()}, "must name one or more, each once"),
        ({"budgets": ("some",)}, "'some' is not a size"),
        ({"jpegs": ("jpeg75", "jpeg75")}, "must name each once"),
        ({"jpegs": ("gif",)}, "'gif' is no way to store images"),
        ({"seeds": 0}, "must be at least 1"),
        ({"finetune_steps": 0}, "must be at least 1"),
        ({"pixel_blr": 0.0}, "must be above 0"),
        ({"tokenizer": None, "count_tokenizer": True}, "count_tokenizer = True needs --tokenizer"),
    ],
)
def test_impossible_values_are_refused_by_name(world, tmp_path, changes, matters):
    with pytest.raises(UserError, match=matters):
        replace(make_config(world, tmp_path / "run"), **changes)


def test_what_does_not_fit_is_said_before_anything_is_written(world, tmp_path, monkeypatch):
    other = tiny.make_tokenizer(tmp_path / "other", seed=5)
    config = make_config(world, tmp_path / "run")
    for changes, matters in (
        ({"ingredients": ("all",)}, "the ingredient all needs --token_adapt"),
        ({"images": None}, r"JPEGs need --images and --eval_images; for tokens alone: --jpegs '\[\]'"),
        ({"store": "s3://bucket/store"}, "subsets need a store on this machine"),
        ({"images": str(world / "test")}, "test lacks ant/.*: name the right folder"),
        ({"tokenizer": str(other)}, "belongs to tokenizer"),
        ({"finetune": "dmeo"}, r"--finetune dmeo: no recipe dmeo for this stage; did you mean demo\?"),
        ({"budgets": ("1GB",)}, "less than 1GB"),
    ):
        with pytest.raises(UserError, match=matters) as caught:
            stage.storage_curve(replace(config, **changes))
        assert "\n" not in str(caught.value)
        assert not Path(config.output_dir).exists()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="launch it as one process"):
        stage.storage_curve(config)


def test_a_folder_of_another_curve_is_refused_and_a_fresh_start_forgets_it(world, tmp_path):
    config = make_config(world, tmp_path / "run", budgets=("1.0",), ingredients=("scratch",), jpegs=())
    stage.storage_curve(config)
    with pytest.raises(UserError, match=r"run holds another run \(dataset: 'insects' there, 'birds' now\)"):
        stage.storage_curve(replace(config, dataset="birds"))
    (tmp_path / "run" / "notes.txt").write_text("mine")
    first = read_json(tmp_path / "run" / "env.json")["inputs"]
    stage.storage_curve(replace(config, dataset="birds", resume="none"))
    assert set(read_results([config.output_dir]).dataset) == {"birds"}
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
    assert read_json(tmp_path / "run" / "env.json")["inputs"] == first
