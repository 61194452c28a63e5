"""Classes that come task after task: the memory's bytes, what is measured, and that replay helps."""

import io
from dataclasses import fields, replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import tiny
from seitpp.finetune import continual as stage
from seitpp.finetune.labelled import open_labelled
from seitpp.finetune.replay import JpegMemory, TokenMemory
from seitpp.finetune.tasks import average_accuracy, divide_classes, forgetting, open_task, rows_of, write_task
from seitpp.finetune.train import FinetuneConfig, fit_classifier
from seitpp.mtm.augmentation.augment import AugmentConfig
from seitpp.mtm.encoder import EncoderConfig
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import read_json
from seitpp.runtime.results import read_results
from seitpp.tokenizers.sources.decoding.jpeg import to_jpeg
from seitpp.tokenizers.sources.selected import images_of_keys
from seitpp.tokenizers.sources.source import open_source
from seitpp.tokenizers.tokenize_images import tokenize_images
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.store import TokenStore
from seitpp.tokens.subset import rank_rows

ENCODER = EncoderConfig(width=24, depth=1, heads=3, patch_size=2, token_dropout=0.0, embedding_std=0.5)
ROW = 24 + 4  # bytes of 4 x 6 tokens of 8 bits, and of a label


def make_config(stores, output, **others):
    others = {
        "encoder": ENCODER, "steps": 8, "batch_size": 12, "blr": 0.1, "log_every": 8, "mixed_precision": "no",
        "augment": AugmentConfig(crop=False), "tasks": 3, "methods": ("naive", "tokens"), "trackers": (), **others,
    }  # fmt: skip
    return stage.ContinualConfig(
        store=str(stores / "train"), eval_store=str(stores / "test"), output_dir=str(output), **others
    )


@pytest.fixture(scope="module")
def memory_of_nothing(stores, tmp_path_factory):
    """A run whose memory has no bytes."""
    config = make_config(stores, tmp_path_factory.mktemp("run") / "nothing", memory="0")
    stage.continual(config)
    return config


@pytest.fixture(scope="module")
def ten_rows(stores, tmp_path_factory):
    """A run whose memory holds ten rows and a half."""
    folder = tmp_path_factory.mktemp("run") / "ten"
    config = make_config(stores, folder, memory=str(10 * ROW + 14), methods=("tokens",), dataset="colours")
    stage.continual(config)
    return config


def weights_of(folder, method, task):
    return load_file(Path(folder) / "seed-0" / method / f"task-{task:02d}" / "weights" / "model.safetensors")


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_memory_of_zero_bytes_is_naive_training(memory_of_nothing):
    folder = memory_of_nothing.output_dir
    for task in (1, 2, 3):
        assert equal(weights_of(folder, "naive", task), weights_of(folder, "tokens", task))
    summary = read_json(Path(folder) / "summary.json")
    assert summary["naive"] == summary["tokens"]
    assert summary["tokens"][0]["kept"] == [0, 0, 0]


def test_naive_training_is_fine_tuning_on_one_task_after_the_other(memory_of_nothing, stores, tmp_path):
    train_set, test_set = (open_labelled(stores / name) for name in ("train", "test"))
    weights = None
    for number, classes in enumerate(divide_classes(3, 3, seed=0)[:2]):
        config = FinetuneConfig(**{each.name: getattr(memory_of_nothing, each.name) for each in fields(FinetuneConfig)})
        each = replace(config, weights=weights, output_dir=str(tmp_path / str(number)))
        fit_classifier(each, train_set.part(rows_of(train_set, classes)), test_set, title="by hand")
        weights = each.output_dir
    by_hand = load_file(tmp_path / "1" / "weights" / "model.safetensors")
    assert equal(by_hand, weights_of(memory_of_nothing.output_dir, "naive", 2))


def test_without_a_memory_earlier_tasks_are_forgotten_and_ten_rows_recall_some(memory_of_nothing, ten_rows):
    (naive,) = read_json(Path(memory_of_nothing.output_dir) / "summary.json")["naive"]
    (tokens,) = read_json(Path(ten_rows.output_dir) / "summary.json")["tokens"]
    assert naive["accuracy"][0] == tokens["accuracy"][0] == [1.0]
    assert naive["accuracy"][2][:2] == [0.0, 0.0]
    assert forgetting(naive["accuracy"])[-1] == 1.0
    assert forgetting(tokens["accuracy"])[-1] <= 0.5
    assert average_accuracy(tokens["accuracy"])[-1] > average_accuracy(naive["accuracy"])[-1] + 0.2
    assert tokens["kept"] == [10, 10, 10]
    assert tokens["bytes"] == [10 * ROW] * 3


def test_results_are_average_accuracy_and_forgetting_after_each_task(ten_rows):
    results = read_results([ten_rows.output_dir])
    (course,) = read_json(Path(ten_rows.output_dir) / "summary.json")["tokens"]
    assert results[["metric", "split", "train_images", "test_images"]].values.tolist() == [
        ["average_accuracy", "tasks-1-to-1", 12, 5],
        ["average_accuracy", "tasks-1-to-2", 24, 10],
        ["average_accuracy", "tasks-1-to-3", 36, 15],
        ["forgetting", "tasks-1-to-2", 24, 10],
        ["forgetting", "tasks-1-to-3", 36, 15],
    ]
    expected = average_accuracy(course["accuracy"]) + forgetting(course["accuracy"])
    assert results.value.tolist() == pytest.approx(expected)
    same = {"dataset": "colours", "protocol": "continual-tokens", "init": "scratch", "budget_bytes": 10 * ROW + 14}
    assert {name: set(results[name]) for name in same} == {name: {value} for name, value in same.items()}


def test_measures_of_a_written_out_course():
    accuracy = [[0.9], [0.5, 0.8], [0.7, 0.2, 1.0]]
    assert average_accuracy(accuracy) == pytest.approx([0.9, 0.65, 1.9 / 3])
    assert forgetting(accuracy) == pytest.approx([0.4, (0.2 + 0.6) / 2])
    assert forgetting([[0.5], [0.75, 1.0]]) == pytest.approx([-0.25])  # a later task helped


def test_classes_are_divided_by_the_seed_each_once():
    parts = divide_classes(10, 4, seed=1)
    assert [len(part) for part in parts] == [3, 3, 2, 2]
    assert sorted(np.concatenate(parts)) == list(range(10))
    assert any((one != other).any() for one, other in zip(parts, divide_classes(10, 4, seed=2), strict=True))
    with pytest.raises(UserError, match="3 classes can't be divided into 4 tasks"):
        divide_classes(3, 4, seed=0)


def test_the_memory_is_balanced_over_classes_and_what_was_dropped_never_comes_back(stores):
    train_set = open_labelled(stores / "train")
    memory, ranked = TokenMemory(8 * ROW, train_set.store), rank_rows(train_set.rows, train_set.targets, seed=3)
    kept = []
    for seen in ([1], [1, 2], [0, 1, 2]):
        memory.keep(ranked[np.isin(train_set.labels[ranked], seen)])
        kept.append(set(memory.rows.tolist()))
        counts = np.bincount(train_set.labels[memory.rows], minlength=3)[seen]
        assert (counts.sum(), counts.max() - counts.min() <= 1) == (8, True)
    assert {row for row in kept[1] if train_set.labels[row] == 1} <= kept[0]
    assert {row for row in kept[2] if train_set.labels[row] != 0} <= kept[1]


def test_a_task_is_its_own_rows_and_then_the_memorys(stores, tmp_path):
    train_set = open_labelled(stores / "train")
    memory = TokenMemory(2 * ROW, train_set.store)
    memory.keep(np.array([7, 3, 5]))
    write_task(tmp_path / "task", train_set, np.array([0, 9]), memory)
    task = open_task(tmp_path / "task")
    assert torch.equal(task.store.ids(task.rows), train_set.store.ids([0, 9, 7, 3]))
    assert task.labels.tolist() == [0, 0, 1, 0]
    assert task.classes == train_set.classes


# JPEGs


@pytest.fixture(scope="module")
def pictures(images, test_images, tokenizer_folder, tmp_path_factory):
    """The stores of two folders of images."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, source in (("train", images), ("test", test_images)):
        tokenize_images(source, tokenizer_folder, output_dir=folder / name)
    return folder


def test_as_many_jpegs_are_kept_as_fit_and_their_tokens_are_those_of_decoded_jpegs(images, pictures, tokenizer_folder):
    store, tokenizer = TokenStore(pictures / "train"), load_tokenizer(tokenizer_folder)
    source = images_of_keys(open_source(images), store.keys(), where=images, store=store.folder)
    ranked = np.arange(len(store))[::-1]
    jpegs = [to_jpeg(source.read(row, tiny.IMAGE_SIZE), 50) for row in ranked.tolist()]
    sizes = np.cumsum([len(jpeg) + 4 for jpeg in jpegs])
    memory = JpegMemory(int(sizes[4]) + 1, source, tokenizer, quality=50)
    memory.keep(ranked)
    assert memory.rows.tolist() == ranked[:5].tolist()
    assert memory.bytes == sizes[4]
    decoded = np.stack([np.asarray(Image.open(io.BytesIO(jpeg))) for jpeg in jpegs[:5]])
    ids = tokenizer.encode(torch.from_numpy(decoded).permute(0, 3, 1, 2) / 255)
    assert memory.packed().tolist() == ids.flatten(1).tolist()  # 37 codes: a byte each
    memory.keep(ranked[3:])
    assert memory.rows.tolist() == ranked[3 : 3 + len(memory.rows)].tolist()


def test_all_methods_side_by_side_at_the_same_bytes(images, pictures, tokenizer_folder, tmp_path, capsys):
    config = make_config(
        pictures, tmp_path / "run", methods=("naive", "jpeg", "tokens"), memory="2kB", images=str(images),
        tokenizer=str(tokenizer_folder), steps=1, batch_size=4, seeds=2,
    )  # fmt: skip
    stage.continual(config)
    said = capsys.readouterr().out
    summary = read_json(tmp_path / "run" / "summary.json")
    summary.pop("took")
    kept = {method: courses[0]["kept"][-1] for method, courses in summary.items()}
    assert kept["naive"] == 0 < kept["jpeg"] < kept["tokens"] == 30
    assert all(max(courses[0]["bytes"]) <= 2000 for courses in summary.values())
    assert f"({kept['jpeg']} rows in {summary['jpeg'][0]['bytes'][-1]} bytes)" in said
    results = read_results([tmp_path / "run"])
    assert set(results.protocol) == {"continual-naive", "continual-jpeg", "continual-tokens"}
    assert set(results.seed) == {0, 1}
    drawn = ElementTree.parse(tmp_path / "run" / "curve.svg").getroot()
    words = ["".join(each.itertext()) for each in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"naive", "jpeg", "tokens", "tasks learned"} <= set(words)
    assert not list((tmp_path / "run").rglob("*.arrow"))
    stage.continual(config)
    assert "finished before, nothing to do" in capsys.readouterr().out


# Refusals


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"methods": ("jpeg",)}, "jpeg needs --images and --tokenizer"),
        ({"methods": ("naive", "naive")}, "methods = .* must name each once"),
        ({"tasks": 1}, "tasks = 1 must be at least 2"),
        ({"memory": "much"}, "'much' is not a size"),
        ({"jpeg_quality": 100}, r"must lie in \[1, 95\]"),
        ({"blr_candidates": (0.1, 0.2)}, "is for seitpp finetune"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(wrong, message):
    with pytest.raises(UserError, match=message):
        make_config(Path("stores"), "out", **wrong)


def test_images_or_a_tokenizer_of_another_store_are_refused_before_anything_is_trained(
    images, test_images, pictures, tokenizer_folder, tmp_path
):
    config = make_config(
        pictures, tmp_path / "run", methods=("naive", "jpeg"), images=str(test_images), tokenizer=str(tokenizer_folder)
    )
    with pytest.raises(UserError, match=r"test lacks ant/005\.png, which .*train was made of"):
        stage.continual(config)
    other = tiny.make_tokenizer(tmp_path / "other", seed=9)
    with pytest.raises(UserError, match="other belongs to tokenizer"):
        stage.continual(replace(config, images=str(images), tokenizer=str(other)))
    assert not (tmp_path / "run").exists()


def test_a_class_without_test_rows_is_named_before_anything_is_trained(stores, tmp_path):
    tiny.make_store(tmp_path / "test", tiny.random_ids(4, tiny.CODES, tiny.GRID), labels=[0, 2, 0, 2])
    (tmp_path / "train").symlink_to(stores / "train")
    with pytest.raises(UserError, match="test has no rows of class bee: every task needs some of each"):
        stage.continual(make_config(tmp_path, tmp_path / "run"))
    assert not (tmp_path / "run").exists()
