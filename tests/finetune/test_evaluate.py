"""`seitpp evaluate`: a classifier on a store or on images, its classes matched, its numbers those by hand."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import tiny
from seitpp.finetune import evaluation as stage
from seitpp.finetune.classifier import Classifier, read_classifier, save_classifier
from seitpp.finetune.evaluation_pictures import captioned_images, confusion_picture
from seitpp.mtm.encoder import EncoderConfig
from seitpp.runtime.errors import UserError
from seitpp.runtime.results import read_results
from seitpp.tokenizers.sources.images import open_image_folder, to_float
from seitpp.tokenizers.tokenizer import load_tokenizer

NAMES = ["ant", "bee", "cow"]
METRICS = ["accuracy", "top5", "mean_per_class", "cross_entropy", "ece", "accuracy_low", "accuracy_high"]


def make_classifier(seed, classes=3):
    """One whose answers differ: an untrained head that is far from zero."""
    torch.manual_seed(seed)
    shape = EncoderConfig(width=24, depth=1, heads=3, embedding_std=0.5)
    classifier = Classifier(shape, view=tiny.GRID, codebook_size=tiny.CODES, embedding_dim=5, classes=classes).eval()
    classifier.head.weight.data *= 20
    return classifier


@pytest.fixture(scope="module")
def world(tmp_path_factory, test_images, tokenizer_folder):
    """A run of two seeds, and a store of the test images in the order of another numbering."""
    folder = tmp_path_factory.mktemp("evaluated")
    fingerprint = load_tokenizer(tokenizer_folder).fingerprint
    origin = {"init": "mtm", "augmentation": "tokenadapt", "label_fraction": 0.2, "train_images": 30}
    for seed in (0, 1):
        save_classifier(
            folder / "run" / f"seed-{seed}" / "weights", make_classifier(seed), tokenizer=fingerprint,
            class_names=NAMES, origin=origin,
        )  # fmt: skip
    tokenizer = load_tokenizer(tokenizer_folder)
    images = open_image_folder(test_images)
    pixels = np.stack([images.read(row, tiny.IMAGE_SIZE) for row in range(len(images))])
    ids = tokenizer.encode(to_float(torch.from_numpy(pixels)))
    codebook = tokenizer.codebook.detach()
    tiny.make_store(
        folder / "store", ids, labels=2 - images.labels, classes=NAMES[::-1], keys=images.keys, fingerprint=fingerprint,
        codebook=codebook,
    )  # fmt: skip
    shutil.copytree(test_images, folder / "images")
    return folder


def make_config(world, output, **fields):
    fields = {"classifier": str(world / "run" / "seed-0"), "batch_size": 5, "mixed_precision": "no", **fields}
    return stage.EvaluateConfig(output_dir=str(output), **fields)


def of_images(world, output, tokenizer_folder, **fields):
    fields = {"images": str(world / "images"), "tokenizer": str(tokenizer_folder), **fields}
    return make_config(world, output, **fields)


@pytest.fixture(scope="module")
def measured(world, tmp_path_factory, tokenizer_folder):
    """The folder of an evaluation of both seeds on images."""
    output = tmp_path_factory.mktemp("measured") / "run"
    stage.evaluate(
        of_images(world, output, tokenizer_folder, classifier=str(world / "run"), stores=str(world / "stores"))
    )
    return output


def by_hand(world, seed, tokenizer_folder):
    """Probabilities of every image, one at a time, and the true classes."""
    classifier = read_classifier(world / "run" / f"seed-{seed}")
    tokenizer, images = load_tokenizer(tokenizer_folder), open_image_folder(world / "images", NAMES)
    with torch.no_grad():
        answers = [
            classifier(tokenizer.encode(to_float(torch.from_numpy(images.read(row, tiny.IMAGE_SIZE)[None].copy()))))[0]
            for row in range(len(images))
        ]
    return torch.stack(answers).double().softmax(1).numpy(), images


def values(folder, seed=0):
    table = read_results([folder])
    return table[table.seed == seed].set_index("metric").value.to_dict()


# What is measured


def test_every_seed_is_measured_on_images_as_by_hand(world, measured, tokenizer_folder):
    for seed in (0, 1):
        probabilities, images = by_hand(world, seed, tokenizer_folder)
        right = probabilities.argmax(1) == images.labels
        found = values(measured, seed)
        assert list(found) == METRICS
        assert found["accuracy"] == pytest.approx(right.mean())
        assert found["top5"] == 1.0
        classes = [right[images.labels == label].mean() for label in range(3)]
        assert found["mean_per_class"] == pytest.approx(np.mean(classes))
        table = pd.read_csv(measured / f"seed-{seed}" / "per_class.csv")
        assert table["class"].tolist() == NAMES
        assert table.accuracy.to_numpy() == pytest.approx(classes)


def test_results_say_what_the_classifier_was_trained_from(measured, tokenizer_folder):
    table = read_results([measured])
    said = {
        "dataset": "classification", "split": "test", "shift": "", "protocol": "finetune", "init": "mtm",
        "augmentation": "tokenadapt", "label_fraction": 0.2, "train_images": 30, "test_images": 12,
        "tokenizer": load_tokenizer(tokenizer_folder).fingerprint,
    }  # fmt: skip
    assert {name: set(table[name]) for name in said} == {name: {value} for name, value in said.items()}


def test_a_store_that_numbers_its_classes_otherwise_gives_the_same_numbers(world, measured, tmp_path):
    stage.evaluate(make_config(world, tmp_path / "run", store=str(world / "store")))
    assert values(tmp_path / "run") == pytest.approx(values(measured))
    confusions = [pd.read_csv(folder / "confusion.csv") for folder in (tmp_path / "run", measured / "seed-0")]
    pd.testing.assert_frame_equal(*confusions)


def test_a_table_of_labels_takes_the_place_of_a_stores_own(world, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("key,label\nant/000.png,bee\nant/001.png,bee\ncow/000.png,cow\n")
    stage.evaluate(make_config(world, tmp_path / "run", store=str(world / "store"), labels=str(table)))
    counted = pd.read_csv(tmp_path / "run" / "per_class.csv").images
    assert counted.tolist() == [0, 2, 1]


@pytest.mark.parametrize("kind", ["a flat folder", "numbered folders"])
def test_images_are_labelled_by_a_file_or_by_numbers_too(world, measured, tmp_path, tokenizer_folder, kind):
    photos, images = tmp_path / "photos", open_image_folder(world / "images")
    fields = {}
    for place, key in enumerate(images.keys):
        name = f"{place:02d}.png" if kind == "a flat folder" else f"{images.labels[place] + 9}/{place}.png"
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(world / "images" / key, photos / name)
    if kind == "a flat folder":
        (tmp_path / "truth.txt").write_text("\n".join(str(label + 1) for label in images.labels))
        fields = {"ground_truth": str(tmp_path / "truth.txt")}
    stage.evaluate(of_images(world, tmp_path / "run", tokenizer_folder, images=str(photos), **fields))
    assert values(tmp_path / "run") == pytest.approx(values(measured))


@pytest.mark.slow
def test_processes_that_do_not_divide_the_images_measure_what_one_does(world, measured, tmp_path, tokenizer_folder):
    """12 images in batches of 5: three batches, of which one of two processes gets two, and the last has two images."""
    done = tiny.run(
        tiny.TESTS / "evaluating_processes.py", tmp_path, "--classifier", world / "run", "--images", world / "images",
        "--tokenizer", tokenizer_folder, "--batch_size", 5, "--mixed_precision", "no", OMP_NUM_THREADS="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for folder, seed in [(tmp_path / name, seed) for name in ("2", "3") for seed in (0, 1)]:
        assert values(folder, seed) == pytest.approx(values(measured, seed), abs=1e-6)
        for name in ("per_class.csv", "confusion.csv", "worst.csv"):
            found, expected = (pd.read_csv(each / f"seed-{seed}" / name) for each in (folder, measured))
            pd.testing.assert_frame_equal(found, expected, rtol=1e-4)


# Stores of images


def test_the_store_of_images_is_kept_and_used_again(world, measured, tmp_path, tokenizer_folder, monkeypatch):
    stores = sorted((world / "stores").glob("*/store.json"))
    assert len(stores) == 1
    monkeypatch.setattr("seitpp.tokenizers.shard_rows.encoded_batches", None)  # calling it would fail
    config = of_images(world, tmp_path / "run", tokenizer_folder, stores=str(world / "stores"))
    stage.evaluate(config)
    assert values(tmp_path / "run") == pytest.approx(values(measured))
    assert not (tmp_path / "run" / "stores").exists()


def test_other_images_or_labels_get_a_store_of_their_own(world, measured, tmp_path, tokenizer_folder):
    (tmp_path / "photos" / "bee").mkdir(parents=True)
    shutil.copy(world / "images" / "ant" / "000.png", tmp_path / "photos" / "bee" / "000.png")
    fields = {"images": str(tmp_path / "photos"), "stores": str(tmp_path / "stores")}
    stage.evaluate(of_images(world, tmp_path / "one", tokenizer_folder, **fields))
    (tmp_path / "photos" / "bee").rename(tmp_path / "photos" / "cow")
    stage.evaluate(of_images(world, tmp_path / "other", tokenizer_folder, **fields))
    assert len(list((tmp_path / "stores").glob("*/store.json"))) == 2
    assert pd.read_csv(tmp_path / "other" / "per_class.csv").images.tolist() == [0, 0, 1]


def test_a_finished_run_is_not_measured_again(world, tmp_path, capsys):
    config = make_config(world, tmp_path / "run", store=str(world / "store"))
    stage.evaluate(config)
    capsys.readouterr()
    stage.evaluate(config)
    assert "finished before" in capsys.readouterr().out
    with pytest.raises(UserError, match="run holds another run"):
        stage.evaluate(replace(config, classifier=str(world / "run" / "seed-1")))


def test_an_image_that_can_not_be_decoded_is_named_or_left_out(world, tmp_path, tokenizer_folder, capsys):
    shutil.copytree(world / "images", tmp_path / "photos")
    (tmp_path / "photos" / "ant" / "001.png").write_bytes(b"no image")
    config = of_images(world, tmp_path / "run", tokenizer_folder, images=str(tmp_path / "photos"))
    with pytest.raises(UserError, match=r"ant/001\.png"):
        stage.evaluate(config)
    stage.evaluate(replace(config, max_skipped=0.1, resume="none"))
    assert set(read_results([tmp_path / "run"]).test_images) == {11}
    assert "1 of 12 images can't be decoded" in capsys.readouterr().out


# Tables and pictures


def test_the_worst_mistakes_are_listed_and_drawn(world, measured, tmp_path, tokenizer_folder):
    probabilities, images = by_hand(world, 0, tokenizer_folder)
    wrong = [row for row in range(len(images)) if probabilities[row].argmax() != images.labels[row]]
    wrong.sort(key=lambda row: probabilities[row, images.labels[row]])
    table = pd.read_csv(measured / "seed-0" / "worst.csv")
    assert table.key.tolist() == [images.keys[row] for row in wrong]
    assert table["class"].tolist() == [NAMES[images.labels[row]] for row in wrong]
    assert table.confidence.to_numpy() == pytest.approx(probabilities.max(1)[wrong], rel=1e-4)
    truth = [probabilities[row, images.labels[row]] for row in wrong]
    assert table.probability.to_numpy() == pytest.approx(truth, rel=1e-4)
    with Image.open(measured / "seed-0" / "worst.png") as picture:
        first = np.asarray(picture.convert("RGB").crop((6, 6, 134, 91)).resize((24, 16), Image.Resampling.BOX))
    shown = images.read(wrong[0], tiny.IMAGE_SIZE).transpose(1, 2, 0)
    assert np.abs(first.astype(int) - shown).mean() < 8


def test_of_a_store_mistakes_are_decoded_where_the_tokenizer_is_named(world, tmp_path, tokenizer_folder):
    config = make_config(world, tmp_path / "run", store=str(world / "store"))
    stage.evaluate(config)
    assert not (tmp_path / "run" / "worst.png").exists()
    named = replace(config, tokenizer=str(tokenizer_folder), output_dir=str(tmp_path / "drawn"), worst=1)
    stage.evaluate(named)
    with Image.open(tmp_path / "drawn" / "worst.png") as picture:
        assert picture.width == 128 + 2 * 6
    assert len(pd.read_csv(tmp_path / "drawn" / "worst.csv")) == 1


def test_a_confusion_matrix_is_drawn_darker_where_more_are(tmp_path):
    confusion_picture(tmp_path / "confusion.png", np.array([[0, 9], [4, 4]]), ["ant", "a very long name of a class"])
    with Image.open(tmp_path / "confusion.png") as picture:
        pixels = np.asarray(picture.convert("L")).astype(int)
    cells = pixels[-6 - 64 : -6, -6 - 64 : -6]
    corners = [[cells[32 * row + 3, 32 * column + 3] for column in (0, 1)] for row in (0, 1)]
    assert corners[0][0] == 255
    assert corners[0][1] < corners[1][0] == corners[1][1] < 255


def test_captions_are_cut_to_their_image(tmp_path):
    captioned_images(tmp_path / "worst.png", torch.zeros(9, 3, 16, 24), [("x" * 200, "short")] * 9)
    with Image.open(tmp_path / "worst.png") as picture:
        assert picture.size == (8 * 134 + 6, 2 * (85 + 30 + 12) + 6)


# What is refused


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "store = None but one of --store and --images"),
        ({"store": "s", "images": "i", "tokenizer": "t"}, "but one of --store and --images"),
        ({"images": "i"}, "tokenizer = None is needed"),
        ({"store": "s", "ground_truth": "g"}, "ground_truth = 'g' is for --images"),
        ({"store": "s", "first_class": 2}, "first_class = 2"),
        ({"images": "i", "tokenizer": "t", "labels": "l"}, "labels = 'l' is for --store"),
    ],
)
def test_flags_that_do_not_belong_together_are_named(tmp_path, fields, message):
    with pytest.raises(UserError, match=message):
        stage.EvaluateConfig(classifier="c", output_dir=str(tmp_path), **fields)


def test_classes_that_the_classifier_lacks_are_shown_beside_its_own(world, tmp_path, tokenizer_folder):
    tiny.make_images(tmp_path / "zoo", {"ant": 1, "yak": 1})
    with pytest.raises(UserError, match=r"'yak' .*ant, yak \(2\).*ant, bee, cow \(3\)"):
        stage.evaluate(of_images(world, tmp_path / "run", tokenizer_folder, images=str(tmp_path / "zoo")))
    tiny.make_store(
        tmp_path / "store", tiny.random_ids(6, tiny.CODES, tiny.GRID), classes=("ant", "yak", "zebu"),
        fingerprint=load_tokenizer(tokenizer_folder).fingerprint,
    )  # fmt: skip
    with pytest.raises(UserError, match=r"'yak' .*ant, yak, zebu \(3\).*ant, bee, cow \(3\)"):
        stage.evaluate(make_config(world, tmp_path / "run", store=str(tmp_path / "store")))


def test_another_tokenizer_is_refused(world, tmp_path):
    other = tiny.make_tokenizer(tmp_path / "other", seed=9)
    with pytest.raises(UserError, match="the classifier belongs to tokenizer"):
        stage.evaluate(of_images(world, tmp_path / "run", other))
    tiny.make_store(tmp_path / "store", tiny.random_ids(6, tiny.CODES, tiny.GRID))
    with pytest.raises(UserError, match="store was made by tokenizer aaaa"):
        stage.evaluate(make_config(world, tmp_path / "run", store=str(tmp_path / "store")))


def test_what_is_no_classifier_is_refused(world, tmp_path):
    tiny.make_mtm(tmp_path / "mtm")
    for name, message in (("mtm", "not of a classifier"), ("nothing", "nothing is not a run of seitpp finetune")):
        with pytest.raises(UserError, match=message):
            stage.evaluate(
                make_config(world, tmp_path / "run", store=str(world / "store"), classifier=str(tmp_path / name))
            )


def test_a_classifier_that_diverged_is_named_with_a_row(world, tmp_path):
    classifier = make_classifier(0)
    classifier.head.bias.data[1] = float("nan")
    fingerprint = read_classifier(world / "run" / "seed-0").tokenizer
    save_classifier(tmp_path / "weights", classifier, tokenizer=fingerprint, class_names=NAMES)
    config = make_config(world, tmp_path / "run", store=str(world / "store"), classifier=str(tmp_path / "weights"))
    with pytest.raises(UserError, match=r"nothing finite to 12 of 12 rows \(first: ant/000\.png\)"):
        stage.evaluate(config)
