"""Fine-grained: one command probes and fine-tunes on a list of sets; it may be killed at any moment."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from miniatures import fine_grained as miniatures

import tiny
from seitpp.downstream.benchmarks.sets import read_sets
from seitpp.downstream.fine_grained import FineGrainedConfig, OwnFolders, measure_fine_grained
from seitpp.downstream.fine_grained_table import fine_grained_table
from seitpp.finetune.answers import collect_answers
from seitpp.finetune.classifier import read_classifier
from seitpp.finetune.labelled import open_labelled
from seitpp.finetune.metrics import mean_per_class
from seitpp.runtime.command import parse
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.errors import UserError
from seitpp.runtime.results import Result, read_results, results_table
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.store import open_store

RECIPES = {
    "finetune": {
        "steps": 3, "batch_size": 4, "lr": 1e-3, "trackers": [], "augment": {"crop": False}, "save_every": 1,
        "encoder": {"width": 24, "depth": 1, "heads": 3, "embedding_std": 0.5},
    },
    "probe": {"inverse_regularisation": [0.1], "neighbours": [3]},
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Miniatures of all sets, their table, images of one's own, a tokenizer, an encoder and recipes."""
    folder = tmp_path_factory.mktemp("world")
    written = {name: make(folder / "data") for name, make in miniatures.MAKERS.items()}
    miniatures.table_of(folder / "sets.csv", written)
    tiny.make_images(folder / "mine" / "train", {"ant": 6, "bee": 5})
    tiny.make_images(folder / "mine" / "test", {"ant": 2, "bee": 3}, seed=1)
    tiny.make_tokenizer(folder / "tokenizer")
    tiny.make_mtm(folder / "mtm", fingerprint=load_tokenizer(folder / "tokenizer").fingerprint)
    for stage, content in RECIPES.items():
        (folder / f"{stage}.yaml").write_text(yaml.safe_dump(content))
    return folder


def make_config(world, output, **fields):
    fields = {
        "sets": ("cub", "pets"), "data": str(world / "data"), "table": str(world / "sets.csv"), "seeds": 2,
        "tokenizer": str(world / "tokenizer"), "weights": str(world / "mtm"), "probe": str(world / "probe.yaml"),
        "finetune": str(world / "finetune.yaml"), **fields,
    }  # fmt: skip
    return FineGrainedConfig(output_dir=str(output), **fields)


@pytest.fixture(scope="module")
def measured(world):
    """A run over two sets and one's own images, from the encoder and from scratch."""
    own = {"mine": OwnFolders(train=str(world / "mine" / "train"), test=str(world / "mine" / "test"))}
    config = make_config(world, world / "run", folders=own, scratch=True)
    measure_fine_grained(config)
    return config


def table_in(folder):
    return pd.read_csv(Path(folder) / "fine_grained.csv", keep_default_na=False, na_values={"std": ""})


# What is measured


def test_every_set_and_method_has_a_row_with_the_sets_official_metric(world, measured):
    table = table_in(measured.output_dir)
    methods = [("linear", "mtm", 1), ("knn3", "mtm", 1), ("linear", "random", 1), ("knn3", "random", 1),
               ("finetune", "mtm", 2), ("finetune", "scratch", 2)]  # fmt: skip
    expected = [
        (name, metric, *method)
        for name, metric in (("cub", "accuracy"), ("pets", "mean_per_class"), ("mine", "accuracy"))
        for method in methods
    ]
    found = list(table[["dataset", "metric", "protocol", "init", "seeds"]].itertuples(index=False, name=None))
    assert sorted(found) == sorted(expected)
    assert table["mean"].between(0, 1).all()
    counts = table.groupby("dataset")[["train_images", "test_images"]].first()
    assert counts.loc["cub"].tolist() == [10, 6]
    assert counts.loc["pets"].tolist() == [9, 6]
    assert counts.loc["mine"].tolist() == [11, 5]


def test_mean_per_class_of_a_fine_tuning_is_that_of_its_weights(measured):
    run = Path(measured.output_dir) / "sets" / "pets" / "finetune-weights"
    config = yaml.safe_load((run / "config.yaml").read_text())
    test_set = open_labelled(config["eval_store"])
    results = read_results([run])
    for seed in (0, 1):
        answers = collect_answers(
            read_classifier(run / f"seed-{seed}"), test_set, batch_size=4, accelerator=make_accelerator("no")
        )
        found = results[(results.metric == "mean_per_class") & (results.seed == seed)].value.item()
        assert found == pytest.approx(mean_per_class(answers))
        classes = [(answers.predicted == answers.targets)[answers.targets == each].mean() for each in range(3)]
        assert found == pytest.approx(np.mean(classes))


def test_results_are_those_of_the_runs(measured):
    results = read_results([measured.output_dir])
    folders = sorted(Path(measured.output_dir).glob("sets/*/*"))
    assert len(folders) == 3 * 4
    order = ["dataset", "protocol", "init", "metric", "seed"]
    pd.testing.assert_frame_equal(
        results.sort_values(order, ignore_index=True), read_results(folders).sort_values(order, ignore_index=True)
    )
    assert set(results.metric) == {"accuracy", "mean_per_class", "cross_entropy"}
    assert not [*Path(measured.output_dir).rglob("checkpoints")]


def test_each_part_of_a_set_is_one_store_with_the_sets_classes(measured):
    stores = sorted(Path(measured.output_dir, "stores").glob("*/store.json"))
    names = [path.parent.name.rsplit("-", 1)[0] for path in stores]
    assert names == ["cub-test", "cub-train", "mine-test", "mine-train", "pets-test", "pets-train"]
    store = open_store(stores[4].parent)
    assert store.classes == ["Abyssinian", "american_bulldog", "Birman"]
    assert store.labels.tolist() == [0, 0, 1, 2, 2, 2]


# Going on


def test_a_finished_run_does_nothing_and_one_with_another_set_runs_only_that(world, measured, tmp_path, capsys):
    shutil.copytree(measured.output_dir, tmp_path / "run")
    config = replace(measured, output_dir=str(tmp_path / "run"))
    measure_fine_grained(config)
    assert "finished before, nothing to do" in capsys.readouterr().out
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("sets/*/*/summary.json")}
    measure_fine_grained(replace(config, sets=("cub", "pets", "cifar10")))
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    table, before = table_in(tmp_path / "run"), table_in(measured.output_dir)
    assert list(dict.fromkeys(table.dataset)) == ["cub", "pets", "cifar10", "mine"]
    pd.testing.assert_frame_equal(table[table.dataset != "cifar10"].reset_index(drop=True), before)


def test_a_set_that_has_become_another_one_is_refused(world, measured, tmp_path):
    shutil.copytree(world / "data", tmp_path / "data")
    shutil.copytree(measured.output_dir, tmp_path / "run")
    picture = tmp_path / "data" / "oxford-iiit-pet" / "images" / "Birman_201.jpg"
    picture.write_bytes(picture.read_bytes() + b"more")
    config = replace(measured, output_dir=str(tmp_path / "run"), data=str(tmp_path / "data"))
    with pytest.raises(UserError, match=r"holds another run \(set\.pets\.test: .* there, .* now\)"):
        measure_fine_grained(config)
    with pytest.raises(UserError, match=r"\(weights: .* there, None now\)|\(weights: "):
        measure_fine_grained(replace(measured, weights=None))


def test_runs_that_share_stores_tokenise_a_set_once(world, measured, tmp_path):
    stores = Path(measured.output_dir) / "stores"
    before = {path: path.stat().st_mtime_ns for path in stores.glob("*/*.arrow")}
    config = make_config(world, tmp_path / "run", stores=str(stores), methods=("probe",), sets=("pets",))
    measure_fine_grained(config)
    assert not (tmp_path / "run" / "stores").exists()
    assert {path: path.stat().st_mtime_ns for path in stores.glob("*/*.arrow")} == before


def words_of(config):
    named = {
        "sets": json.dumps(config.sets), "data": config.data, "table": config.table, "seeds": config.seeds,
        "tokenizer": config.tokenizer, "weights": config.weights, "probe": config.probe, "finetune": config.finetune,
        "scratch": "true", "output_dir": config.output_dir,
    }  # fmt: skip
    return [str(word) for name, value in named.items() for word in (f"--{name}", value)]


@pytest.mark.slow
def test_killed_at_several_moments_it_ends_in_the_same_table(world, measured, tmp_path):
    config = make_config(world, tmp_path / "run", scratch=True)
    moments = ["stores/*/shard-00000.arrow", "sets/cub/finetune-weights/seed-1/metrics.jsonl"]
    for moment in moments:
        process = subprocess.Popen(
            [sys.executable, "-m", "seitpp.cli", "fine-grained", *words_of(config)], cwd=tiny.ROOT,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        deadline = time.monotonic() + 200
        while not any((tmp_path / "run").glob(moment)):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (tmp_path / "run" / "fine_grained.csv").exists()
    measure_fine_grained(config)
    whole = table_in(measured.output_dir)
    pd.testing.assert_frame_equal(table_in(tmp_path / "run"), whole[whole.dataset != "mine"].reset_index(drop=True))


@pytest.mark.slow
def test_two_processes_write_the_table_once_with_the_counts_of_one(world, measured, tmp_path):
    config = make_config(world, tmp_path / "run", scratch=True)
    done = tiny.run(
        "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m",
        "seitpp.downstream.fine_grained", *words_of(config), timeout=300, ACCELERATE_USE_CPU="1", OMP_NUM_THREADS="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found, whole = table_in(tmp_path / "run"), table_in(measured.output_dir)
    whole = whole[whole.dataset != "mine"].reset_index(drop=True)
    same = ["dataset", "metric", "protocol", "init", "seeds", "train_images", "test_images"]
    pd.testing.assert_frame_equal(found[same], whole[same])
    probes = found.protocol != "finetune"
    assert found["mean"][probes].to_numpy() == pytest.approx(whole["mean"][probes].to_numpy())


def test_every_set_runs_end_to_end(world, tmp_path):
    config = make_config(
        world, tmp_path / "run", sets=tuple(miniatures.MAKERS), methods=("probe",), batch_size=64, seeds=1
    )
    measure_fine_grained(config)
    table = table_in(tmp_path / "run")
    official = {name: each.metric for name, each in read_sets().items()}
    assert dict(zip(table.dataset, table.metric, strict=True)) == official


def test_without_weights_a_network_of_the_recipes_shape_is_measured_from_scratch(world, tmp_path):
    config = make_config(world, tmp_path / "run", sets=("pets",), weights=None, seeds=1)
    measure_fine_grained(config)
    table = table_in(tmp_path / "run")
    assert list(zip(table.protocol, table.init, strict=True)) == [
        ("linear", "random"), ("knn3", "random"), ("finetune", "scratch")
    ]  # fmt: skip
    described = json.loads((tmp_path / "run/sets/pets/finetune-scratch/seed-0/weights/config.json").read_text())
    assert described["encoder"]["width"] == 24


def test_folders_of_ones_own_are_locations(world, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    words = ["--folders", "{mine: {train: ~/a, test: ~/b}}", "--tokenizer", "t", "--output_dir", "run"]
    config = parse(FineGrainedConfig, words, recipes="fine_grained")
    assert config.folders == {"mine": OwnFolders(train="/home/someone/a", test="/home/someone/b")}


# The table


def test_the_table_is_the_mean_and_deviation_of_the_official_metric_alone():
    def rows(dataset, metric, values):
        return [
            Result(dataset=dataset, metric=metric, value=value, seed=seed, init="mtm", protocol="finetune",
                   train_images=7, test_images=3)
            for seed, value in enumerate(values)
        ]  # fmt: skip

    results = results_table(
        [*rows("a", "accuracy", [0.2, 0.6]), *rows("a", "mean_per_class", [0.9, 0.9]),
         *rows("b", "accuracy", [0.1, 0.1]), *rows("b", "mean_per_class", [0.5])]
    )  # fmt: skip
    table = fine_grained_table(results, {"a": "accuracy", "b": "mean_per_class"})
    assert table[["dataset", "metric", "mean", "seeds"]].values.tolist() == [
        ["a", "accuracy", pytest.approx(0.4), 2], ["b", "mean_per_class", pytest.approx(0.5), 1],
    ]  # fmt: skip
    assert table["std"].tolist() == [pytest.approx(0.08**0.5), pytest.approx(np.nan, nan_ok=True)]


# Bad input


@pytest.mark.parametrize(
    ("changes", "matters"),
    [
        ({"sets": ("cub", "cub")}, "must name each once"),
        ({"data": None}, "needs --data"),
        ({"folders": {"a/b": OwnFolders(train="x", test="y")}}, "has 'a/b': choose a name without /"),
        ({"folders": {"cub": OwnFolders(train="x", test="y")}}, "has 'cub'"),
        ({"methods": ()}, "must name one or more"),
        ({"seeds": 0}, "must be at least 1"),
        ({"resume": "somewhere"}, "must be auto or none"),
    ],
)
def test_impossible_values_are_refused_by_name(world, tmp_path, changes, matters):
    with pytest.raises(UserError, match=matters):
        make_config(world, tmp_path / "run", **changes)


def test_what_does_not_fit_is_said_before_anything_is_written(world, tmp_path):
    other = tiny.make_tokenizer(tmp_path / "other", seed=9)
    (tmp_path / "several.yaml").write_text("multi_label: true\nloss: binary\n")
    own = {"mine": OwnFolders(train=str(world / "mine" / "train"), test=str(world / "mine" / "test"))}
    for changes, matters in (
        ({"sets": ()}, "and folders name nothing: name a set"),
        ({"sets": ("cup",)}, "--sets has 'cup': did you mean cub"),
        ({"table": None}, "2 of 2 sets can't be used, and nothing was begun: cub: .*; pets: .*"),
        ({"data": str(tmp_path)}, "oxford-iiit-pet is not there: unpack images.tar.gz, annotations.tar.gz there"),
        ({"tokenizer": str(other)}, r"the weights belong to tokenizer \w{12}, --tokenizer is \w{12}"),
        ({"weights": str(tmp_path)}, "holds no weights"),
        ({"finetune": "dmeo"}, "--finetune dmeo: no recipe dmeo for this stage; did you mean demo"),
        ({"finetune": str(tmp_path / "several.yaml")}, "multi_label = True is for rows of several labels"),
        ({"output_dir": str(world / "data" / "run")}, "lies in --data"),
        ({"output_dir": str(world / "mine" / "test" / "x"), "folders": own}, "lies in --folders"),
    ):
        with pytest.raises(UserError, match=matters) as caught:
            measure_fine_grained(replace(make_config(world, tmp_path / "run"), **changes))
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "run").exists()


def test_an_image_that_can_not_be_decoded_is_named_with_its_file(world, tmp_path):
    shutil.copytree(world / "data" / "oxford-iiit-pet", tmp_path / "data" / "oxford-iiit-pet")
    (tmp_path / "data" / "oxford-iiit-pet" / "images" / "Birman_201.jpg").write_bytes(b"no image")
    config = make_config(world, tmp_path / "run", sets=("pets",), data=str(tmp_path / "data"))
    with pytest.raises(
        UserError, match=r"1 of 6 images can't be decoded \(first: \S+/images/Birman_201\.jpg: "
    ) as said:
        measure_fine_grained(config)
    assert "\n" not in str(said.value)
