"""`seitpp robustness` on benchmarks, end to end: official folders in, the numbers by hand out."""

import csv
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

import imagenet_miniatures as mini
import tiny
from imagenet_miniatures import GOLDFISH, IN_A, IN_R, KNOWN, STINGRAY, TENCH
from seitpp.downstream import robustness as stage
from seitpp.downstream import set_answers
from seitpp.downstream.imagenet.imagenet_c import CORRUPTIONS
from seitpp.downstream.imagenet.imagenet_classes import imagenet_wnids
from seitpp.finetune.classifier import Classifier, read_classifier, save_classifier
from seitpp.mtm.encoder import EncoderConfig
from seitpp.runtime.errors import UserError
from seitpp.runtime.results import read_results
from seitpp.tokenizers.sources.images import ImageFolder, open_image_folder, to_float
from seitpp.tokenizers.tokenizer import load_tokenizer

VALIDATION = [TENCH, GOLDFISH, STINGRAY, TENCH]
REAL = [[0, 1], [], [6], [11]]


def save_untrained(folder, tokenizer, class_names, seed=0):
    """A run of one seed, of a classifier with a head far from zero."""
    torch.manual_seed(seed)
    encoder = EncoderConfig(width=24, depth=1, heads=3, patch_size=2, embedding_std=0.5)
    classifier = Classifier(
        encoder, view=tuple(tokenizer.grid), codebook_size=tiny.CODES, embedding_dim=5, classes=len(class_names)
    ).eval()
    classifier.head.weight.data.normal_(std=3.0)
    place = folder / f"seed-{seed}" / "weights"
    save_classifier(place, classifier, class_names=list(class_names), tokenizer=tokenizer.fingerprint)
    return str(folder)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    tiny.make_tokenizer(folder / "tokenizer", image_size=mini.SIZE)
    tokenizer = load_tokenizer(folder / "tokenizer")
    for seed in (0, 1):
        save_untrained(folder / "run", tokenizer, KNOWN, seed)
    mini.validation_set(folder / "val", VALIDATION)
    mini.class_folders(folder / "imagenet-a", IN_A, count=6)
    mini.class_folders(folder / "imagenet-r", IN_R)
    mini.class_folders(folder / "sketch", KNOWN, "JPEG")
    mini.imagenet_v2(folder / "v2")
    mini.objectnet(folder / "objectnet-1.0")
    mini.imagenet_c(folder / "imagenet-c", ["fog", "contrast"])
    mini.real_json(folder / "real.json", REAL)
    return folder


def make_config(world, output, **fields):
    places = {
        "imagenet-a": "imagenet-a", "imagenet-r": "imagenet-r", "imagenet-sketch": "sketch", "imagenet-v2": "v2",
        "objectnet": "objectnet-1.0", "imagenet-c": "imagenet-c", "imagenet-real": "real.json",
    }  # fmt: skip
    fields = {
        "classifiers": (str(world / "run"),), "tokenizer": str(world / "tokenizer"), "images": str(world / "val"),
        "corruptions": (), "benchmarks": {name: str(world / place) for name, place in places.items()},
        "noise_stds": (0.0, 0.1), "blur_sigmas": (2.0,), "dataset": "i1k", **fields,
    }  # fmt: skip
    return stage.RobustnessConfig(output_dir=str(output), **fields)


@pytest.fixture(scope="module")
def measured(world):
    config = make_config(world, world / "robustness")
    stage.measure_robustness(config)
    return read_results([config.output_dir])


def value(results, shift, metric="accuracy", severity=None, seed=0):
    rows = results[(results["shift"] == shift) & (results.metric == metric) & (results.seed == seed)]
    rows = rows[rows.severity.isna() if severity is None else rows.severity == severity]
    return rows.value.item()


def logits_by_hand(world, folder, seed):
    """{key: logits} of each image of a folder, one by one."""
    classifier, tokenizer = read_classifier(world / "run" / f"seed-{seed}"), load_tokenizer(world / "tokenizer")
    images = open_image_folder(folder)
    with torch.no_grad():
        return {
            key: classifier(tokenizer.encode(to_float(torch.from_numpy(images.read(row, mini.SIZE)[None].copy()))))[
                0
            ].numpy()
            for row, key in enumerate(images.keys)
        }


def test_every_benchmark_is_measured(measured):
    found = {shift: int(rows.test_images.iloc[0]) for shift, rows in measured.groupby("shift")}
    assert found == {
        "": 4, "imagenet-a": 12, "imagenet-r": 6, "imagenet-sketch": 8, "imagenet-v2": 8, "objectnet": 4,
        "imagenet-real": 3, "imagenet-c:fog": 4, "imagenet-c:contrast": 4, "imagenet-c": 4, "noise-std-0": 4,
        "noise-std-0.1": 4, "blur-sigma-2": 4,
    }  # fmt: skip
    assert (measured.groupby("metric").size() / 2).to_dict() == {
        "accuracy": 20, "cross_entropy": 18, "mean_accuracy": 1
    }  # fmt: skip
    levels = measured[measured["shift"] == "imagenet-c:fog"].severity
    assert sorted(set(levels)) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("seed", [0, 1])
def test_classes_that_imagenet_a_does_not_show_are_never_the_answer(world, measured, seed):
    logits = logits_by_hand(world, world / "imagenet-a", seed)
    shown = [KNOWN.index(name) for name in IN_A]
    answers = {key: KNOWN[max(shown, key=lambda place, each=each: each[place])] for key, each in logits.items()}
    right = np.mean([key.split("/")[0] == answer for key, answer in answers.items()])
    assert value(measured, "imagenet-a", seed=seed) == pytest.approx(right)
    unmasked = [int(each.argmax()) for each in logits.values()]
    assert not set(unmasked) <= set(shown)  # else the mask would not have mattered
    targets = [KNOWN.index(key.split("/")[0]) for key in logits]
    losses = [np.log(np.exp(each[shown]).sum()) - each[t] for each, t in zip(logits.values(), targets, strict=True)]
    assert value(measured, "imagenet-a", "cross_entropy", seed=seed) == pytest.approx(np.mean(losses), rel=1e-4)


def test_real_labels_judge_the_answers_to_the_validation_images(world, measured):
    logits = logits_by_hand(world, world / "val", 0)
    real = [[mini.NUMBERS[name] for name in KNOWN].index(number) for number in (0, 1, 6, 11)]  # place of each class
    of_class = dict(zip((0, 1, 6, 11), real, strict=True))
    right = []
    for key, each in logits.items():
        labels = REAL[int(key[-13:-5]) - 1]
        right += [int(each.argmax()) in [of_class[number] for number in labels]] if labels else []
    assert len(right) == 3
    assert value(measured, "imagenet-real") == pytest.approx(np.mean(right))
    assert not (world / "robustness" / "stores" / "imagenet-real").exists()  # they are the clean images


def test_noise_of_strength_0_measures_what_clean_images_do(measured):
    for metric in ("accuracy", "cross_entropy"):
        assert value(measured, "noise-std-0", metric) == value(measured, "", metric)
    assert value(measured, "noise-std-0.1", "cross_entropy") != value(measured, "", "cross_entropy")


def test_of_imagenet_c_in_part_the_mean_is_that_of_its_rows(measured):
    rows = measured[measured["shift"].str.startswith("imagenet-c:") & (measured.metric == "accuracy")]
    assert value(measured, "imagenet-c", "mean_accuracy") == pytest.approx(rows[rows.seed == 0].value.mean())


def test_the_wide_table_says_the_same(world, measured):
    table = pd.read_csv(world / "robustness" / "robustness.csv")
    assert len(table) == 2
    assert table["imagenet-v2"].tolist() == [value(measured, "imagenet-v2", seed=seed) for seed in (0, 1)]
    assert table["imagenet-c:fog-5"][1] == value(measured, "imagenet-c:fog", severity=5, seed=1)
    with (world / "robustness" / "robustness.csv").open() as file:
        assert len(next(csv.reader(file))) == 6 + 20 + 1


def test_a_second_classifier_on_kept_stores_reads_no_image(world, measured, tmp_path, monkeypatch):
    def reads(*_, **__):
        raise AssertionError("an image was decoded")

    for module in ("images", "pixels"):
        monkeypatch.setattr(f"seitpp.tokenizers.sources.{module}.read_image", reads)
    monkeypatch.setattr("seitpp.downstream.imagenet.objectnet.open_image", reads)
    stage.measure_robustness(make_config(world, tmp_path / "again", stores=str(world / "robustness" / "stores")))
    again = read_results([tmp_path / "again"])
    pd.testing.assert_frame_equal(again.drop(columns="run"), measured.drop(columns="run"))


def test_the_sizes_of_the_clean_images_are_asked_for_once_however_many_stores_are_made_of_them(world, monkeypatch):
    asked = []
    sizes = ImageFolder.sizes
    monkeypatch.setattr(ImageFolder, "sizes", lambda self, rows: asked.append(len(rows)) or sizes(self, rows))
    config = make_config(world, "runs/x", benchmarks={}, corruptions=("fog", "contrast"))
    for each in stage.shifted_sets(config, KNOWN):
        assert len(each.images.sizes(range(4))) == 4
        assert each.images.sizes([3]) == each.images.sizes(range(4))[3]
    assert asked == [4]


def test_classifiers_beyond_the_memory_for_them_are_read_anew_and_answer_alike(world, measured, tmp_path, monkeypatch):
    held = []
    monkeypatch.setattr(set_answers.HeldClassifiers.__init__, "__defaults__", (0,))
    monkeypatch.setattr(set_answers, "read_classifier", lambda *words: held.append(1) or read_classifier(*words))
    config = make_config(world, tmp_path / "again", stores=str(world / "robustness" / "stores"), benchmarks={})
    stage.measure_robustness(config)
    assert len(held) == 2 * 4
    again = read_results([tmp_path / "again"])
    assert value(again, "blur-sigma-2", seed=1) == value(measured, "blur-sigma-2", seed=1)


def test_stores_are_made_in_groups_of_as_many_as_there_are_processes(world):
    config = make_config(world, "runs/x", benchmarks={"imagenet-real": str(world / "real.json")})
    sets = stage.shifted_sets(config, KNOWN)
    named = [[each.name for each in group] for group in stage.in_groups(sets, 3)]
    assert named == [["clean", "imagenet-real", "noise-std-0", "noise-std-0.1"], ["blur-sigma-2"]]


def test_a_half_unpacked_set_or_a_broken_image_ends_it_in_one_line(world, tmp_path):
    broken = shutil.copytree(world / "sketch", tmp_path / "sketch")
    (broken / TENCH / "image_1.JPEG").write_bytes(b"no image")
    config = make_config(world, tmp_path / "run", benchmarks={"imagenet-sketch": str(broken)}, noise_stds=())
    with pytest.raises(UserError, match=rf"{TENCH}/image_1\.JPEG") as error:
        stage.measure_robustness(config)
    tiny.one_line(str(error.value))
    shutil.rmtree(broken / TENCH)
    config = make_config(world, tmp_path / "other", benchmarks={"imagenet-sketch": str(broken)})
    with pytest.raises(UserError, match="lacks 1 of the 4 class folders of ImageNet-Sketch"):
        stage.measure_robustness(config)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"benchmarks": {"imagenet-x": "x"}}, "benchmarks .*'imagenet-x'; there are: imagenet-a"),
        ({"domains": {"imagenet-a": "x"}}, "domains .*'imagenet-a'"),
        ({"noise_stds": (-0.1,)}, "noise_stds .* at least 0"),
        ({"class_list": "x"}, "class_list .*--ground_truth"),
    ],
)
def test_impossible_values_are_refused_by_name(world, fields, said):
    with pytest.raises(UserError, match=said):
        make_config(world, "runs/x", **fields)


def test_clean_images_may_lie_in_one_flat_folder(world, measured, tmp_path):
    for path in (world / "val").glob("*/*.JPEG"):
        (tmp_path / "flat").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "flat")
    (tmp_path / "truth.txt").write_text("\n".join(VALIDATION) + "\n")
    config = make_config(
        world, tmp_path / "run", images=str(tmp_path / "flat"), ground_truth=str(tmp_path / "truth.txt"),
        benchmarks={"imagenet-real": str(world / "real.json")}, noise_stds=(), blur_sigmas=(),
    )  # fmt: skip
    stage.measure_robustness(config)
    found = read_results([tmp_path / "run"])
    for shift in ("", "imagenet-real"):
        assert value(found, shift) == value(measured, shift)


@pytest.mark.slow
def test_all_15_corruptions_generated_for_a_classifier_of_imagenet_have_an_mce(world, tmp_path):
    tokenizer = load_tokenizer(world / "tokenizer")
    run = save_untrained(tmp_path / "thousand", tokenizer, imagenet_wnids())
    done = tiny.run(
        "-m", "seitpp.downstream.robustness", "--config", "imagenet_c", "--classifiers", json.dumps([run]),
        "--images", world / "val", "--tokenizer", world / "tokenizer", "--output_dir", tmp_path / "run",
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = read_results([tmp_path / "run"])
    rows = found[(found.metric == "accuracy") & (found["shift"] != "")]
    assert rows.groupby("shift").size().to_dict() == dict.fromkeys(CORRUPTIONS, 5)
    shift = "imagenet-c-generated"
    assert value(found, shift, "mean_accuracy") == pytest.approx(rows.value.mean())
    assert {"mce", "relative_mce"} < set(found[found["shift"] == shift].metric)
