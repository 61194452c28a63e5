"""Training on images kept as JPEGs: what a batch holds, what views are, and that it learns within its bytes."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from seitpp.finetune import pixels as stage
from seitpp.finetune.classifier import read_classifier
from seitpp.finetune.pixel_views import PixelBatches, PixelViews, rows_of_a_step
from seitpp.mtm.augmentation.augment import AugmentConfig
from seitpp.mtm.augmentation.mixing import MixConfig
from seitpp.mtm.encoder import EncoderConfig
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import read_json
from seitpp.runtime.results import read_results
from seitpp.tokenadapt.geometry import IDENTITY
from seitpp.tokenizers import tokenize
from seitpp.tokenizers.sources.jpegs.jpeg_file import JpegImages
from seitpp.training.random_streams import Draws

ENCODER = EncoderConfig(width=24, depth=1, heads=3, patch_size=2, embedding_std=0.5)
WHOLE = AugmentConfig(geometry=IDENTITY)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Images of three classes, each of its own hue, and their stores."""
    folder = tmp_path_factory.mktemp("pixels")
    tiny.make_images(folder / "train", {"ant": 13, "bee": 9, "cow": 8}, seed=1)
    tiny.make_images(folder / "test", {"ant": 5, "bee": 4, "cow": 3}, seed=2)
    tiny.make_tokenizer(folder / "tokenizer")
    for name, like in (("train", None), ("test", str(folder / "train store"))):
        tokenize.main(
            tokenize.TokenizeConfig(
                images=str(folder / name), tokenizer=str(folder / "tokenizer"), like=like,
                output_dir=str(folder / f"{name} store"),
            )
        )  # fmt: skip
    return folder


def make_config(world, output, **fields):
    fields = {
        "encoder": ENCODER, "steps": 12, "batch_size": 8, "blr": 0.1, "mixed_precision": "no", "trackers": (),
        "augment": WHOLE, "budget": "9000", **fields,
    }  # fmt: skip
    return stage.PixelsConfig(
        store=str(world / "train store"), eval_store=str(world / "test store"), images=str(world / "train"),
        eval_images=str(world / "test"), output_dir=str(output), **fields,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    config = make_config(world, tmp_path_factory.mktemp("run") / "jpegs", seeds=2, dataset="hues")
    stage.train_on_pixels(config)
    return config


@pytest.fixture(scope="module")
def jpegs(trained):
    return JpegImages(Path(trained.output_dir) / "seed-0")


def test_it_learns_colours_and_says_how_images_were_stored(trained):
    results = read_results([trained.output_dir])
    accuracies = results[results.metric == "accuracy"]
    assert accuracies.value.min() >= 0.75  # three classes: by chance 0.33
    assert accuracies.seed.tolist() == [0, 1]
    same = {
        "dataset": "hues", "storage": "jpeg75", "init": "scratch", "protocol": "finetune", "budget_bytes": 9000,
        "test_images": 12, "tokenizer": "",
    }  # fmt: skip
    for name, value in same.items():
        assert set(results[name]) == {value}
    for seed in (0, 1):
        described = read_json(Path(trained.output_dir) / f"seed-{seed}" / "jpegs.json")
        assert set(results[results.seed == seed].train_images) == {described["rows"]}
        assert 8000 < sum(described["content"].values()) <= 9000


def test_classes_are_taken_in_turn_and_every_seed_takes_others(trained, jpegs):
    counts = np.bincount(jpegs.labels)
    assert max(counts) - min(counts) <= 1
    other = JpegImages(Path(trained.output_dir) / "seed-1")
    assert set(other.keys) != set(jpegs.keys)
    assert all(key.startswith(jpegs.classes[label]) for key, label in zip(jpegs.keys, jpegs.labels, strict=True))


def test_the_classifier_is_read_back_and_belongs_to_no_tokenizer(trained):
    classifier = read_classifier(Path(trained.output_dir) / "seed-0")
    assert (classifier.described["stem"], classifier.tokenizer) == ("pixels", "pixels")
    assert classifier.encoder.patch_grid == (2, 3)
    assert classifier(torch.rand(2, 3, *tiny.IMAGE_SIZE)).shape == (2, 3)


def test_a_finished_run_is_not_run_again_and_half_of_one_goes_on(trained, world, tmp_path, capsys):
    stage.train_on_pixels(trained)
    assert "finished before, nothing to do" in capsys.readouterr().out
    config = make_config(world, tmp_path / "run", seeds=2)
    train_set, _, shape = stage.open_pixels(config)
    stage.keep_jpegs(tmp_path / "jpegs", config, train_set, shape)
    first = (tmp_path / "jpegs" / "jpegs.arrow").read_bytes()
    assert first == (Path(trained.output_dir) / "seed-0" / "jpegs.arrow").read_bytes()
    stage.keep_jpegs(tmp_path / "jpegs", replace(config, seed=1), train_set, shape)  # they are there: kept as they are
    assert (tmp_path / "jpegs" / "jpegs.arrow").read_bytes() == first


def test_small_images_are_measured_on_small_images(world, tmp_path):
    config = make_config(world, tmp_path / "run", storage="jpeg75_side4", steps=2)
    stage.train_on_pixels(config)
    described = read_json(tmp_path / "run" / "seed-0" / "jpegs.json")
    assert (described["side"], described["size"]) == (4, [4, 6])
    assert set(read_results([config.output_dir]).storage) == {"jpeg75_side4"}


# Batches and views


def test_a_batch_has_the_label_of_each_of_its_images(jpegs):
    batches = PixelBatches(jpegs, tiny.IMAGE_SIZE, 4, seed=3)
    expected = {jpegs.read(row, tiny.IMAGE_SIZE).tobytes(): jpegs.labels[row] for row in range(len(jpegs))}
    for step in range(3):
        batch = batches(step)
        pixels = (batch.pixels * 255).round().to(torch.uint8).numpy()
        assert batch.labels.tolist() == [expected[each.tobytes()] for each in pixels]
        assert batch.positions.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("count", "batch", "rows"),
    [(5, 4, [0, 1, 2, 3, 4]), (4, 4, [0, 1, 2, 3]), (2, 5, [0, 1] * 3), (3, 4, [0, 1, 2] * 2)],
)
def test_fewer_images_than_a_step_takes_come_several_times(count, batch, rows):
    assert rows_of_a_step(count, batch).tolist() == rows


def views_of(config, pixels, view, labels=None):
    labels = torch.arange(len(pixels)) % 3 if labels is None else labels
    views = PixelViews(config, view=view, patch_size=8, device="cpu")
    return views.mixed(pixels, labels, Draws(0, 0, torch.arange(len(pixels))), classes=3)


def test_views_of_the_whole_are_the_images_and_their_mirror_images():
    pixels = torch.rand(6, 3, 16, 24)
    same, labels = views_of(WHOLE, pixels, (16, 24))
    torch.testing.assert_close(same, pixels, atol=1e-5, rtol=0)
    assert labels.tolist() == [0, 1, 2, 0, 1, 2]
    flipped, _ = views_of(AugmentConfig(geometry=replace(IDENTITY, flip=1.0)), pixels, (16, 24))
    torch.testing.assert_close(flipped, pixels.flip(-1), atol=1e-5, rtol=0)


def test_crops_differ_from_sample_to_sample_and_stay_within_the_range_of_pixels():
    pixels = torch.rand(1, 3, 16, 24).expand(6, -1, -1, -1)
    views, _ = views_of(AugmentConfig(), pixels, (16, 24))
    assert len({each.numpy().tobytes() for each in views}) == 6
    assert views.min() >= 0
    assert views.max() <= 1


def test_cutmix_pastes_whole_patches_of_the_partner_and_shares_the_label():
    pixels = torch.stack([torch.full((3, 16, 24), value) for value in (0.25, 0.75)]).repeat(8, 1, 1, 1)
    config = replace(WHOLE, mix=MixConfig(cutmix=1.0))
    views, targets = views_of(config, pixels, (16, 24), torch.tensor([0, 1] * 8))
    patches = views[:, 0].unfold(1, 8, 8).unfold(2, 8, 8).flatten(3)
    assert (patches.amax(-1) - patches.amin(-1)).max() < 1e-4
    own = torch.tensor([0.25, 0.75] * 8)[:, None, None]
    kept = ((patches.mean(-1) - own).abs() < 1e-3).float().mean((1, 2))
    torch.testing.assert_close(targets[torch.arange(16), torch.tensor([0, 1] * 8)], kept)
    assert 0 < kept.mean() < 1


# Bad input


@pytest.mark.parametrize(
    ("changes", "matters"),
    [
        ({"storage": "png"}, "'png' is no way to store images"),
        ({"storage": "jpeg_fit", "budget": None}, "storage = 'jpeg_fit' needs --budget"),
        ({"budget": "much"}, "'much' is not a size"),
        ({"weights": "runs/mtm"}, "weights = 'runs/mtm' must be left out"),
        ({"stem": "adapter"}, "must be left out: this stem reads pixels"),
        ({"blr_candidates": (0.1, 0.2)}, "give --blr_candidates .* and --blr"),
        ({"sampling": "class_balanced"}, "must be uniform"),
    ],
)
def test_impossible_values_are_refused_by_name(world, tmp_path, changes, matters):
    with pytest.raises(UserError, match=matters):
        make_config(world, tmp_path / "run", **changes)


def test_what_does_not_fit_is_said_before_anything_is_written(world, tmp_path):
    for changes, matters in (
        ({"images": str(world / "test")}, r"test lacks ant/.*, which .*train store was made of: name the right folder"),
        ({"image_size": (16, 25)}, r"do not divide images of \(16, 25\) into squares of whole pixels"),
        ({"image_size": (10, 15)}, r"do not divide images of \(10, 15\)"),
        ({"view": (3, 6)}, "a view of"),
    ):
        with pytest.raises(UserError, match=matters) as caught:
            stage.train_on_pixels(replace(make_config(world, tmp_path / "run"), **changes))
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_processes_learn_what_one_does(world, tmp_path):
    config = make_config(world, tmp_path / "one", steps=3, batch_size=8, seeds=1)
    stage.train_on_pixels(config)
    done = tiny.run(
        "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "seitpp.finetune.pixels",
        "--store", config.store, "--eval_store", config.eval_store, "--images", config.images,
        "--eval_images", config.eval_images, "--budget", "9000", "--encoder", json.dumps(asdict(ENCODER)),
        "--augment.geometry", json.dumps(asdict(IDENTITY)), "--steps", "3", "--batch_size", "4", "--blr", "0.1",
        "--mixed_precision", "no", "--trackers", "[]", "--output_dir", tmp_path / "two",
        ACCELERATE_USE_CPU="1", OMP_NUM_THREADS="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, two = (read_results([tmp_path / name]) for name in ("one", "two"))
    assert two.value.to_numpy() == pytest.approx(one.value.to_numpy(), abs=1e-5)
    jpegs = [(tmp_path / name / "seed-0" / "jpegs.arrow").read_bytes() for name in ("one", "two")]
    assert jpegs[0] == jpegs[1]
