"""Runs of `seitpp segmentation`: what they learn, leave, resume and refuse; on one process and on two."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file

import tiny
import tiny_segmentation
from seitpp.downstream.segmentation import train as stage
from seitpp.downstream.segmentation.heads import HeadConfig
from seitpp.downstream.segmentation.segmenter import read_segmenter
from seitpp.downstream.segmentation.views import ViewsConfig
from seitpp.mtm.encoder import EncoderConfig
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import read_json
from seitpp.runtime.results import read_results

ENCODER = EncoderConfig(width=24, depth=2, heads=3, token_dropout=0.0, embedding_std=0.5)
SMALL = HeadConfig(channels=12, auxiliary_channels=8)
FACTS = {"images": 5, "window_size": [16, 24], "window_stride": [12, 16], "short_side": 16, "ignored_label": 255}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmentation")
    sizes = tiny_segmentation.SIZES
    tiny_segmentation.make_segmentation_store(folder / "train", sizes * 3, stride=(12, 16))
    tiny_segmentation.make_segmentation_store(folder / "val", sizes, stride=(12, 16), seed=100)
    return folder


def make_config(stores, output, **fields):
    usual = {
        "encoder": ENCODER, "head": SMALL, "steps": 6, "batch_size": 6, "lr": 4e-3, "log_every": 2, "layer_decay": 1.0,
        "mixed_precision": "no", "drop_path": 0.0, "augment": ViewsConfig(scale=(1.0, 1.0)), "pictures": 0,
    }  # fmt: skip
    return stage.SegmentationConfig(
        store=str(stores / "train"), eval_store=fields.pop("eval_store", str(stores / "val")),
        output_dir=str(output), **{**usual, **fields},
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(stores, tmp_path_factory):
    """Two seeds from scratch, with the baseline."""
    config = make_config(
        stores, tmp_path_factory.mktemp("run") / "scratch", steps=60, seeds=2, baseline=True, dataset="scenes",
        pictures=3, ema_decay=0.5,
    )  # fmt: skip
    stage.segmentation(config)
    return config


def test_training_from_scratch_learns_what_the_ids_tell(trained):
    results = read_results([trained.output_dir])
    values = results[(results.protocol == "upernet") & (results.metric == "pixel_accuracy")].value
    assert len(values) == 2
    assert values.min() > 0.75  # the commonest class has 73 %
    assert results[(results.protocol == "upernet") & (results.metric == "miou")].value.min() > 0.45


def test_results_are_rows_of_each_seed_and_of_the_baseline(trained):
    results = read_results([trained.output_dir])
    metrics = ["miou", "pixel_accuracy", "mean_class_accuracy"]
    assert results[["protocol", "seed", "metric"]].values.tolist() == [
        [protocol, seed, metric]
        for protocol, seed in (("token_majority", 0), ("upernet", 0), ("upernet", 1))
        for metric in metrics
    ]
    assert set(results.dataset) == {"scenes"}
    assert set(results.train_images) == {15}
    assert set(results.test_images) == {5}
    assert set(results.run) == {trained.output_dir}
    assert results.groupby("protocol").init.first().to_dict() == {"token_majority": "", "upernet": "scratch"}


def test_a_seed_leaves_a_table_of_classes_a_picture_and_what_its_numbers_depend_on(trained):
    seed = Path(trained.output_dir) / "seed-0"
    summary = read_json(seed / "summary.json")
    assert {name: summary[name] for name in FACTS} == FACTS
    assert summary["test_time_augmentation"] == "none"
    assert summary["mask_resolution"].startswith("as they came, at the images' own size")
    table = pd.read_csv(seed / "per_class.csv")
    assert table["class"].tolist() == list(tiny_segmentation.CLASSES)
    assert table["iou"].mean() == pytest.approx(summary["miou"])
    assert (seed / "segmentation.png").read_bytes()[:4] == b"\x89PNG"


def test_a_finished_run_is_not_run_again(trained, capsys):
    stage.segmentation(trained)
    assert "finished before, nothing to do" in capsys.readouterr().out


def test_a_trained_segmenter_is_measured_again_as_it_is_and_with_flips(trained, stores, tmp_path):
    weights = Path(trained.output_dir) / "seed-0"
    again = make_config(stores, tmp_path / "again", weights=str(weights), train=False, eval_batch_size=3)
    stage.segmentation(again)
    first, second = (read_json(Path(folder) / "summary.json") for folder in (weights, again.output_dir))
    assert {name: second[name] for name in FACTS} == FACTS
    assert second["miou"] == pytest.approx(first["miou"], abs=1e-12)
    stage.segmentation(replace(again, output_dir=str(tmp_path / "flip"), flip=True))
    flipped = read_json(tmp_path / "flip" / "summary.json")
    assert flipped["test_time_augmentation"] == "flip (ids)"
    assert flipped["miou"] != first["miou"]


def test_an_interrupted_run_goes_on_to_the_same_weights(stores, tmp_path, monkeypatch):
    config = make_config(stores, tmp_path / "whole", save_every=2, augment=ViewsConfig(), accum_iter=2)
    stage.segmentation(config)
    make_step = stage.make_step

    def stopping(*words, **more):
        step = make_step(*words, **more)

        def stop(model, batch, index):
            if index == 5:
                raise KeyboardInterrupt
            return step(model, batch, index)

        return stop

    broken = replace(config, output_dir=str(tmp_path / "broken"))
    with monkeypatch.context() as patch:
        patch.setattr(stage, "make_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            stage.segmentation(broken)
    stage.segmentation(broken)
    one, other = (
        load_file(tmp_path / name / "seed-0" / "weights" / "model.safetensors") for name in ("whole", "broken")
    )
    assert one.keys() == other.keys()
    assert [name for name in one if not one[name].equal(other[name])] == []


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_whole_batch_does(stores, tmp_path):
    """The statistics of batch norm and the mean over labelled pixels are of all processes' windows."""
    words = [
        "--store", str(stores / "train"), "--eval_store", str(stores / "val"), "--steps", "5", "--lr", "0.004",
        "--mixed_precision", "no", "--drop_path", "0", "--head.dropout", "0", "--pictures", "0", "--log_every", "1",
        "--encoder.width", "24", "--encoder.depth", "2", "--encoder.heads", "3", "--encoder.token_dropout", "0",
        "--encoder.embedding_std", "0.5", "--head.channels", "12", "--head.auxiliary_channels", "8",
        "--class_weights", "1,2,3",
    ]  # fmt: skip
    launches = [
        {"processes": count, "argv": [*words, "--batch_size", str(8 // count), "--output_dir", str(tmp_path / name)]}
        for name, count in (("1", 1), ("2", 2))
    ]
    done = tiny.run(
        tiny.TESTS / "stage_processes.py", "seitpp.downstream.segmentation.train", "segmentation",
        "SegmentationConfig", json.dumps(launches), timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, two = json.loads(done.stdout)
    assert (one["codes"], two["codes"]) == ([0], [0, 0]), two["said"]
    assert "batch norm over the windows of all 2 processes" in two["said"]
    assert "batch norm" not in one["said"]
    losses = [
        pd.read_json(tmp_path / count / "seed-0" / "metrics.jsonl", lines=True).loss.dropna().to_numpy()
        for count in ("1", "2")
    ]
    assert len(losses[0]) == 5
    assert losses[1] == pytest.approx(losses[0], rel=2e-3)
    assert losses[1][:2] == pytest.approx(losses[0][:2], rel=1e-5)


@pytest.mark.slow
def test_two_processes_measure_what_one_does(trained, stores, tmp_path):
    weights = Path(trained.output_dir) / "seed-0"
    words = [
        "--store", str(stores / "train"), "--eval_store", str(stores / "val"), "--weights", str(weights),
        "--train", "false", "--mixed_precision", "no", "--eval_batch_size", "3", "--pictures", "2",
    ]  # fmt: skip
    launches = [{"processes": count, "argv": [*words, "--output_dir", str(tmp_path / f"{count}")]} for count in (1, 2)]
    done = tiny.run(
        tiny.TESTS / "stage_processes.py", "seitpp.downstream.segmentation.train", "segmentation",
        "SegmentationConfig", json.dumps(launches), timeout=300, PYTHONPATH=str(tiny.ROOT),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for launch in json.loads(done.stdout):
        assert set(launch["codes"]) == {0}, launch["said"]
    one, two = (read_results([tmp_path / str(count)]).drop(columns="run") for count in (1, 2))
    assert one.equals(two)
    tables = [(tmp_path / str(count) / "seed-0" / "per_class.csv").read_text() for count in (1, 2)]
    assert tables[0] == tables[1]


def test_a_linear_head_learns_on_frozen_features(stores, tmp_path):
    weights = tiny.make_mtm(tmp_path / "mtm")
    config = make_config(stores, tmp_path / "run", weights=str(weights), head=HeadConfig(kind="linear"))
    stage.segmentation(config)
    results = read_results([tmp_path / "run"])
    assert set(results.protocol) == {"linear_segmentation"}
    assert set(results.init) == {"mtm"}
    before, after = (load_file(folder / "weights" / "model.safetensors") for folder in
                     (tmp_path / "mtm", tmp_path / "run" / "seed-0"))  # fmt: skip
    same = [name for name in before if name.startswith("encoder.") and not name.startswith("encoder.norm.")]
    assert len(same) > 20
    assert all(before[name].equal(after[name]) for name in same)
    assert read_segmenter(tmp_path / "run" / "seed-0").frozen


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"class_weights": (1.0, 2.0)}, "--class_weights names 2 weights, .* has 3 classes"),
        ({"train": False, "weights": "MTM"}, "is no segmenter: --train false needs a run of seitpp segmentation"),
        ({"eval_store": "OTHER"}, "has other classes of pixels than"),
        ({"eval_store": "TOKENIZER"}, "made by tokenizer bbbbbbbbbbbb"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(stores, tmp_path, fields, said):
    made = {
        "MTM": lambda: tiny.make_mtm(tmp_path / "mtm"),
        "OTHER": lambda: tiny_segmentation.make_segmentation_store(tmp_path / "o", classes=("a", "b", "c"))[0],
        "TOKENIZER": lambda: tiny_segmentation.make_segmentation_store(tmp_path / "t", fingerprint="b" * 64)[0],
    }
    fields = {name: str(made[value]()) if isinstance(value, str) else value for name, value in fields.items()}
    with pytest.raises(UserError, match=said):
        stage.segmentation(make_config(stores, tmp_path / "run", **fields))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"train": False}, "train = False = false needs --weights"),
        ({"batch_size": 1}, "batch_size = 1 must be at least 2"),
        ({"class_weights": (-1.0, 1.0)}, "class_weights"),
        ({"layer_decay": 0.0}, "layer_decay"),
        ({"seeds": 0}, "seeds"),
    ],
)
def test_impossible_values_are_refused_by_name(stores, tmp_path, fields, said):
    with pytest.raises(UserError, match=said):
        make_config(stores, tmp_path, **fields)


def test_class_weights_change_what_is_learned(stores, tmp_path):
    runs = {(): "even", (0.0, 1.0, 1.0): "skyless"}
    for weights, name in runs.items():
        stage.segmentation(make_config(stores, tmp_path / name, class_weights=weights, steps=20))
    even, skyless = (pd.read_csv(tmp_path / name / "seed-0" / "per_class.csv") for name in runs.values())
    assert skyless.answered_pixels[0] < even.answered_pixels[0]
