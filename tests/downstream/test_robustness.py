"""Robustness: corrupted images and other domains, each tokenised into a store that is kept."""

import json
import shutil
import zlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import tiny
from seitpp.downstream import robustness as stage
from seitpp.downstream.corruptions import corrupt
from seitpp.finetune import train as finetune
from seitpp.finetune.classifier import read_classifier, save_classifier
from seitpp.mtm.augmentation.augment import AugmentConfig
from seitpp.mtm.encoder import EncoderConfig
from seitpp.runtime.errors import UserError
from seitpp.runtime.results import read_results
from seitpp.tokenizers import tokenize
from seitpp.tokenizers.sources.images import open_image_folder, to_float
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.store import open_store

SIZE = (32, 48)  # the least that ImageNet-C's corruptions take is 32


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Images (of the test images one is unlabelled), a tokenizer, stores and a fine-tuned run of two seeds."""
    folder = tmp_path_factory.mktemp("world")
    tiny.make_images(folder / "train", {"ant": 12, "bee": 12}, seed=1, size=SIZE)
    tiny.make_images(folder / "test", {"ant": 5, "bee": 7}, seed=2, size=SIZE)
    (folder / "test" / "bee" / "003.png").rename(folder / "test" / "an unknown one.png")
    tiny.make_images(folder / "sketch", {"bee": 4}, seed=3, size=SIZE)
    tiny.make_tokenizer(folder / "tokenizer", image_size=SIZE)
    for name, like in (("train", None), ("test", str(folder / "train store"))):
        tokenize.main(
            tokenize.TokenizeConfig(
                images=str(folder / name), tokenizer=str(folder / "tokenizer"), like=like,
                output_dir=str(folder / f"{name} store"),
            )
        )  # fmt: skip
    finetune.finetune(
        finetune.FinetuneConfig(
            store=str(folder / "train store"), eval_store=str(folder / "test store"),
            output_dir=str(folder / "finetuned"),
            encoder=EncoderConfig(width=24, depth=1, heads=3, patch_size=2, embedding_std=0.5), steps=6, batch_size=8,
            blr=0.05, seeds=2, mixed_precision="no", augment=AugmentConfig(crop=False),
        )
    )  # fmt: skip
    return folder


def make_config(world, output, **fields):
    fields = {
        "classifiers": (str(world / "finetuned"),), "tokenizer": str(world / "tokenizer"),
        "images": str(world / "test"), "corruptions": ("gaussian_noise", "contrast"), "severities": (1, 5), **fields,
    }  # fmt: skip
    return stage.RobustnessConfig(output_dir=str(output), **fields)


@pytest.fixture(scope="module")
def measured(world):
    config = make_config(world, world / "robustness", domains={"sketch": str(world / "sketch")}, dataset="insects")
    stage.measure_robustness(config)
    return read_results([config.output_dir])


# Results


def test_every_seed_is_measured_on_every_set_and_severity(world, measured):
    shifts = [
        ("", None), ("gaussian_noise", 1), ("gaussian_noise", 5), ("contrast", 1), ("contrast", 5), ("sketch", None)
    ]  # fmt: skip
    rows = measured[measured.metric == "accuracy"]
    found = [
        (row.seed, row.shift, None if pd.isna(row.severity) else row.severity, row.test_images)
        for row in rows.itertuples()
    ]
    expected = [(seed, *shift, 4 if shift[0] == "sketch" else 11) for seed in (0, 1) for shift in shifts]
    assert found == expected
    assert rows.value.between(0, 1).all()
    assert measured.metric.value_counts().to_dict() == {"accuracy": 12, "cross_entropy": 12, "mean_accuracy": 2}
    said = {"dataset": "insects", "protocol": "finetune", "init": "scratch", "augmentation": "", "train_images": 24}
    for name, value in said.items():
        assert set(measured[name]) == {value}, name
    assert set(measured.tokenizer) == {load_tokenizer(world / "tokenizer").fingerprint}


def test_on_clean_images_it_measures_what_fine_tuning_did(world, measured):
    finetuned = read_results([world / "finetuned"])
    expected = finetuned.set_index(["metric", "seed"]).value.to_dict()
    assert measured[measured["shift"] == ""].set_index(["metric", "seed"]).value.to_dict() == pytest.approx(expected)


def test_accuracy_under_a_corruption_is_that_by_hand(world, measured):
    """One image at a time, without a store; its noise is keyed by its place among the labelled images."""
    classifier = read_classifier(world / "finetuned" / "seed-1")
    names = classifier.class_names
    folder, tokenizer = open_image_folder(world / "test", names), load_tokenizer(world / "tokenizer")
    labelled = [row for row in range(len(folder)) if folder.labels[row] >= 0]
    assert labelled[0] == 1
    for severity in (1, 5):
        right = []
        for place, row in enumerate(labelled):
            seed = zlib.crc32(f"0 gaussian_noise {severity} {place}".encode())
            pixels = corrupt(folder.read(row, SIZE), "gaussian_noise", severity, seed=seed)
            with torch.no_grad():
                answer = classifier(tokenizer.encode(to_float(torch.from_numpy(pixels[None])))).argmax()
            right.append(int(answer) == folder.labels[row])
        row = measured[(measured.metric == "accuracy") & (measured["shift"] == "gaussian_noise")]
        row = row[(row.severity == severity) & (row.seed == 1)]
        assert row.value.item() == pytest.approx(np.mean(right))


def test_labels_are_numbered_as_the_classifier_numbers_them(world, measured):
    """All images of the domain are bees: the second class, though it is the domain's only one."""
    store = open_store(world / "robustness" / "stores" / "sketch")
    assert store.labels.tolist() == [1, 1, 1, 1]
    assert store.classes == ["ant", "bee"]


# Stores


def stores_of(folder):
    return sorted(path.parent.name for path in folder.glob("*/store.json"))


def test_each_set_is_a_store_of_the_labelled_images(world, measured):
    folder = world / "robustness" / "stores"
    names = ["clean", "contrast-1", "contrast-5", "gaussian_noise-1", "gaussian_noise-5", "sketch"]
    assert stores_of(folder) == names
    clean, noisy = (open_store(folder / name) for name in ("clean", "gaussian_noise-5"))
    assert clean.keys() == noisy.keys()
    assert "an unknown one.png" not in clean.keys()  # noqa: SIM118 (not a dict)
    assert len(clean) == 11
    assert not torch.equal(clean.ids(range(11)), noisy.ids(range(11)))
    noisy.verify()


def without_runs(results):
    return results.drop(columns="run")


def test_another_run_uses_the_stores_that_are_there(world, measured, tmp_path, monkeypatch):
    shards = sorted((world / "robustness" / "stores").glob("*/*.arrow"))
    before = [path.stat().st_mtime_ns for path in shards]
    config = make_config(
        world, tmp_path / "again", domains={"sketch": str(world / "sketch")}, dataset="insects",
        stores=str(world / "robustness" / "stores"),
    )  # fmt: skip
    monkeypatch.setattr(stage, "check_corruptions", lambda *_: None)
    monkeypatch.setattr("seitpp.downstream.corruptions.corrupt", None)  # calling it would fail
    stage.measure_robustness(config)
    assert not (tmp_path / "again" / "stores").exists()
    assert [path.stat().st_mtime_ns for path in shards] == before
    pd.testing.assert_frame_equal(without_runs(read_results([tmp_path / "again"])), without_runs(measured))


@pytest.mark.parametrize(
    ("change", "differs"), [({"seed": 1}, "seed"), ({"images": "others"}, "keys"), ({"tokenizer": "another"}, "token")]
)
def test_stores_of_other_noise_images_or_tokenizer_are_refused(world, measured, tmp_path, change, differs):
    tiny.make_images(tmp_path / "others", {"ant": 6, "bee": 5}, size=SIZE)
    classifier = read_classifier(world / "finetuned" / "seed-0")
    names = classifier.class_names
    another = tiny.make_tokenizer(tmp_path / "another", seed=9, image_size=SIZE)
    fields = {name: str(tmp_path / value) if isinstance(value, str) else value for name, value in change.items()}
    if "tokenizer" in change:
        save_classifier(
            tmp_path / "other" / "seed-0" / "weights", classifier, class_names=names,
            tokenizer=load_tokenizer(another).fingerprint,
        )  # fmt: skip
        fields["classifiers"] = (str(tmp_path / "other"),)
    stores = world / "robustness" / "stores"
    with pytest.raises(UserError, match=rf"stores/\S+ holds .*{differs}"):
        stage.measure_robustness(make_config(world, tmp_path / "run", stores=str(stores), **fields))


def test_other_images_and_classifiers_at_the_same_places_are_another_run(world, measured, tmp_path, capsys):
    for name in ("test", "sketch", "finetuned", "robustness"):
        shutil.copytree(world / name, tmp_path / name)
    places = {"images": str(tmp_path / "test"), "classifiers": (str(tmp_path / "finetuned"),), "dataset": "insects"}
    config = make_config(world, tmp_path / "robustness", domains={"sketch": str(tmp_path / "sketch")}, **places)
    stage.measure_robustness(config)
    assert "finished before, nothing to do" in capsys.readouterr().out  # though all of it was copied
    shutil.copy(tmp_path / "test" / "bee" / "000.png", tmp_path / "test" / "bee" / "more.png")
    shutil.copy(tmp_path / "test" / "bee" / "000.png", tmp_path / "sketch" / "bee" / "000.png")
    shutil.rmtree(tmp_path / "finetuned" / "seed-1")
    with pytest.raises(UserError, match=r"\(classifiers: .* there, .* now; domains\.sketch: .*; images: .*\)"):
        stage.measure_robustness(config)


def test_a_killed_run_makes_only_the_stores_that_are_missing(world, measured, tmp_path):
    config = make_config(world, tmp_path / "run", domains={"sketch": str(world / "sketch")}, dataset="insects")
    shutil.copytree(world / "robustness", config.output_dir)
    for name in ("summary.json", "results.csv", "stores/contrast-5/shard-00000.json"):
        (tmp_path / "run" / name).unlink()
    kept = tmp_path / "run" / "stores" / "clean" / "shard-00000.arrow"
    before = kept.stat().st_mtime_ns
    stage.measure_robustness(config)
    assert kept.stat().st_mtime_ns == before
    assert stores_of(tmp_path / "run" / "stores") == stores_of(world / "robustness" / "stores")
    pd.testing.assert_frame_equal(without_runs(read_results([tmp_path / "run"])), without_runs(measured))


@pytest.mark.slow
def test_two_processes_measure_what_one_does(world, measured, tmp_path):
    done = tiny.run(
        "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "seitpp.downstream.robustness",
        "--classifiers", json.dumps([str(world / "finetuned")]), "--images", world / "test",
        "--tokenizer", world / "tokenizer", "--corruptions", "[gaussian_noise, contrast]", "--severities", "[1, 5]",
        "--domains", json.dumps({"sketch": str(world / "sketch")}), "--dataset", "insects", "--batch_size", "3",
        "--output_dir", tmp_path / "run", ACCELERATE_USE_CPU="1", OMP_NUM_THREADS="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = read_results([tmp_path / "run"])
    assert found.value.to_numpy() == pytest.approx(measured.value.to_numpy(), abs=1e-5)
    pd.testing.assert_frame_equal(found.drop(columns=["run", "value"]), measured.drop(columns=["run", "value"]))


# Bad input


def test_an_image_that_can_not_be_decoded_is_named(world, tmp_path):
    shutil.copytree(world / "test", tmp_path / "photos")
    (tmp_path / "photos" / "ant" / "001.png").write_bytes(b"no image")
    config = make_config(world, tmp_path / "run", images=str(tmp_path / "photos"), corruptions=())
    with pytest.raises(UserError, match=r"ant/001\.png"):
        stage.measure_robustness(config)
    stage.measure_robustness(replace(config, max_skipped=0.2, resume="none"))
    assert set(read_results([tmp_path / "run"]).test_images) == {10}


def test_a_classifier_of_another_tokenizer_is_refused(world, tmp_path):
    other = tiny.make_tokenizer(tmp_path / "other", seed=9, image_size=SIZE)
    with pytest.raises(UserError, match=r"seed-0 .*tokenizer"):
        stage.measure_robustness(make_config(world, tmp_path / "run", tokenizer=str(other)))


def test_a_run_that_is_no_fine_tuning_is_refused(world, tmp_path):
    with pytest.raises(UserError, match=r"train store is not a run of seitpp finetune"):
        stage.measure_robustness(make_config(world, tmp_path / "run", classifiers=(str(world / "train store"),)))


def test_a_domain_with_an_unknown_class_is_refused(world, tmp_path):
    tiny.make_images(tmp_path / "zoo", {"ant": 1, "yak": 1}, size=SIZE)
    with pytest.raises(UserError, match="'yak' that the classifier lacks"):
        stage.measure_robustness(make_config(world, tmp_path / "run", domains={"zoo": str(tmp_path / "zoo")}))


def test_a_domain_without_labels_is_refused(world, tmp_path):
    tiny.make_images(tmp_path, {"zoo": 2}, size=SIZE)
    with pytest.raises(UserError, match="zoo holds no labelled image"):
        stage.measure_robustness(make_config(world, tmp_path / "run", domains={"zoo": str(tmp_path / "zoo")}))


@pytest.mark.parametrize("name", ["clean", "contrast", "far/away", ""])
def test_a_domain_needs_a_name_that_its_store_can_have(world, tmp_path, name):
    with pytest.raises(UserError, match=f"domains .*{name!r}"):
        make_config(world, tmp_path / "run", domains={name: str(world / "sketch")})


def copy_of(world, folder, **changes):
    """A run whose first seed has the weights of the world's, its description changed."""
    shutil.copytree(world / "finetuned" / "seed-0" / "weights", folder / "seed-0" / "weights")
    file = folder / "seed-0" / "weights" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return str(folder)


def test_classifiers_of_other_classes_are_refused(world, tmp_path):
    other = copy_of(world, tmp_path / "other", class_names=["bee", "ant"])
    with pytest.raises(UserError, match="class"):
        stage.measure_robustness(make_config(world, tmp_path / "run", classifiers=(str(world / "finetuned"), other)))


def test_classifiers_that_results_could_not_tell_apart_are_refused(world, tmp_path):
    twin = copy_of(world, tmp_path / "twin")
    with pytest.raises(UserError, match=r"twin/seed-0 and \S+finetuned/seed-0 .*--stores"):
        stage.measure_robustness(make_config(world, tmp_path / "run", classifiers=(str(world / "finetuned"), twin)))
    origin = {
        "init": "mtm", "augmentation": "tokenadapt", "label_fraction": 0.5, "budget_bytes": 700, "train_images": 9
    }  # fmt: skip
    tokenizer = load_tokenizer(world / "tokenizer").fingerprint
    other = copy_of(world, tmp_path / "other", origin=origin)
    found = stage.find_classifiers((str(world / "finetuned"), other), tokenizer)
    assert [each.origin["init"] for each in found] == ["scratch", "scratch", "mtm"]
    assert found[2].origin == origin


def test_weights_of_older_versions_do_not_say_where_they_come_from(world, tmp_path):
    old = copy_of(world, tmp_path / "old", origin={})
    (found,) = stage.find_classifiers((old,), load_tokenizer(world / "tokenizer").fingerprint)
    assert found.origin == {
        "init": "", "augmentation": "", "label_fraction": 1.0, "budget_bytes": None, "train_images": 0
    }  # fmt: skip
