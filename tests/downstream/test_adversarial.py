"""The stage of adversarial attacks: what is measured is the image's file, tokenised anew."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

import tiny
from seitpp.downstream import adversarial as stage
from seitpp.downstream import attacked_images
from seitpp.downstream.attacks import perturbed
from seitpp.downstream.straight_through import AttackedPath
from seitpp.finetune.classifier import Classifier, read_classifier, save_classifier
from seitpp.mtm.encoder import EncoderConfig
from seitpp.runtime.errors import UserError
from seitpp.runtime.results import read_results
from seitpp.tokenizers.sources.images import open_image_folder, to_float
from seitpp.tokenizers.tokenize_images import tokenize_images
from seitpp.tokenizers.tokenizer import load_tokenizer

CLASSES = ["ant", "bee", "cow"]


def train(folder, ids, labels, tokenizer, seed):
    """A classifier that has learned its training images, as a seed's folder of a run of seitpp finetune."""
    torch.manual_seed(seed)
    config = EncoderConfig(width=24, depth=1, heads=3, patch_size=2, embedding_std=0.5, token_dropout=0.0)
    classifier = Classifier(config, view=tiny.GRID, codebook_size=tiny.CODES, embedding_dim=5, classes=3)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=0.01)
    for _ in range(30):
        F.cross_entropy(classifier(ids), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    origin = {
        "init": "scratch", "augmentation": "", "label_fraction": 1.0, "budget_bytes": None, "train_images": 30
    }  # fmt: skip
    weights = folder / f"seed-{seed}" / "weights"
    save_classifier(weights, classifier, tokenizer=tokenizer.fingerprint, class_names=CLASSES, origin=origin)


@pytest.fixture(scope="module")
def world(tmp_path_factory, images, tokenizer_folder):
    """A run of two seeds, and test images, one of them unlabelled."""
    folder = tmp_path_factory.mktemp("attacked")
    tokenizer = load_tokenizer(tokenizer_folder)
    tiny.make_images(folder / "test", {"ant": 5, "bee": 4, "cow": 4}, seed=2)
    # The test images are learned, too: what is tested is the attack, which needs right answers to turn.
    labels = [open_image_folder(each, CLASSES).labels.astype(np.int64) for each in (images, folder / "test")]
    ids = torch.cat([tokenize_images(each, tokenizer) for each in (images, folder / "test")])
    for seed in (0, 1):
        train(folder / "finetuned", ids, torch.from_numpy(np.concatenate(labels)), tokenizer, seed)
    (folder / "test" / "bee" / "003.png").rename(folder / "test" / "an unknown one.png")
    return folder


def make_config(world, tokenizer_folder, output, **fields):
    fields = {
        "classifiers": (str(world / "finetuned"),), "tokenizer": str(tokenizer_folder), "images": str(world / "test"),
        "budgets": (0, 16), "steps": 3, "batch_size": 5, "dataset": "insects", **fields,
    }  # fmt: skip
    return stage.AdversarialConfig(output_dir=str(output), **fields)


@pytest.fixture(scope="module")
def measured(world, tokenizer_folder):
    config = make_config(world, tokenizer_folder, world / "adversarial")
    stage.measure_adversarial(config)
    return read_results([config.output_dir])


def value_of(results, shift, metric="accuracy", seed=0):
    chosen = results[(results["shift"] == shift) & (results.metric == metric) & (results.seed == seed)]
    return chosen.value.item()


def test_every_seed_is_measured_under_every_attack_and_budget(world, tokenizer_folder, measured):
    attacks = [f"{kind}_eps{budget}" for kind in ("random", "fgsm", "pgd3") for budget in (0, 16)]
    one = [("", "accuracy"), *((name, metric) for name in attacks for metric in ("accuracy", "tokens_changed"))]
    expected = [(seed, *each) for seed in (0, 1) for each in one]
    assert list(measured[["seed", "shift", "metric"]].itertuples(index=False, name=None)) == expected
    assert measured.severity.isna().all()
    said = {"dataset": "insects", "protocol": "finetune", "init": "scratch", "train_images": 30, "test_images": 12}
    for name, value in said.items():
        assert set(measured[name]) == {value}, name
    assert set(measured.tokenizer) == {load_tokenizer(tokenizer_folder).fingerprint}


def test_without_an_attack_it_is_the_accuracy_on_the_images_tokens(world, tokenizer_folder, measured):
    folder = open_image_folder(world / "test", CLASSES)
    ids = tokenize_images(world / "test", tokenizer_folder)
    labelled = folder.labels >= 0
    for seed in (0, 1):
        with torch.no_grad():
            answers = read_classifier(world / "finetuned" / f"seed-{seed}")(ids).argmax(1).numpy()
        expected = (answers == folder.labels)[labelled].mean()
        assert expected > 0.5
        assert value_of(measured, "", seed=seed) == expected


@pytest.mark.parametrize("name", ["random", "fgsm", "pgd3"])
def test_a_budget_of_nothing_changes_nothing(measured, name):
    for seed in (0, 1):
        assert value_of(measured, f"{name}_eps0", seed=seed) == value_of(measured, "", seed=seed)
        assert value_of(measured, f"{name}_eps0", "tokens_changed", seed) == 0


@pytest.mark.parametrize("name", ["fgsm", "pgd3"])
def test_a_real_budget_lowers_accuracy_and_more_than_random_changes_do(measured, name):
    clean, control, attacked = (
        [value_of(measured, shift, seed=seed) for seed in (0, 1)] for shift in ("", "random_eps16", f"{name}_eps16")
    )
    assert sum(attacked) < sum(control)
    for seed in (0, 1):
        assert attacked[seed] < clean[seed]
        assert 0 < value_of(measured, f"{name}_eps16", "tokens_changed", seed) < 1


def test_fgsm_measures_what_one_does_by_hand_image_by_image(world, tokenizer_folder, measured):
    """Through files: the attacked image is saved, read and tokenised as any other."""
    tokenizer = load_tokenizer(tokenizer_folder)
    classifier = read_classifier(world / "finetuned" / "seed-1")
    path = AttackedPath(tokenizer, classifier, temperature=stage.AdversarialConfig.temperature, neighbours=32)
    folder = open_image_folder(world / "test", CLASSES)
    right, changed = [], []
    for row in np.flatnonzero(folder.labels >= 0):
        image = torch.from_numpy(folder.read(int(row), tiny.IMAGE_SIZE).copy())[None]
        label = torch.tensor([int(folder.labels[row])])
        moved = perturbed(to_float(image), path.gradient(label)(to_float(image)), 16 / 255)
        file = (moved[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        ids = tokenize_images([file], tokenizer)
        right.append(int(classifier(ids).argmax()) == int(label))
        changed.append((ids != tokenizer.encode(to_float(image))).float().mean())
    assert value_of(measured, "fgsm_eps16", seed=1) == pytest.approx(np.mean(right))
    assert value_of(measured, "fgsm_eps16", "tokens_changed", 1) == pytest.approx(np.mean(changed), abs=0.01)


def without_runs(results):
    return results.drop(columns="run")


def test_a_killed_run_attacks_only_what_is_missing(world, tokenizer_folder, measured, tmp_path, monkeypatch):
    config = make_config(world, tokenizer_folder, tmp_path / "run")
    shutil.copytree(world / "adversarial", config.output_dir)
    for name in ("summary.json", "results.csv"):
        (tmp_path / "run" / name).unlink()
    metrics = tmp_path / "run" / "metrics.jsonl"
    lines = metrics.read_text().splitlines()
    metrics.write_text("\n".join(lines[:9]) + "\n" + lines[9][:20])  # the kill came while it wrote the tenth
    attacked = []

    def attack_images(path, attack, *words, **named):
        attacked.append(attack.name)
        return attacked_images.attack_images(path, attack, *words, **named)

    monkeypatch.setattr(stage, "attack_images", attack_images)
    stage.measure_adversarial(config)
    assert attacked == ["random_eps16", "fgsm_eps0", "fgsm_eps16", "pgd3_eps0", "pgd3_eps16"]
    pd.testing.assert_frame_equal(without_runs(read_results([tmp_path / "run"])), without_runs(measured))
    stage.measure_adversarial(config)
    assert len(attacked) == 5


def test_of_several_starts_the_worst_counts(world, tokenizer_folder, tmp_path):
    fields = {"attacks": ("random",), "budgets": (40,), "classifiers": (str(world / "finetuned" / "seed-0"),)}
    found = []
    for restarts in (1, 8):
        config = make_config(world, tokenizer_folder, tmp_path / str(restarts), restarts=restarts, **fields)
        stage.measure_adversarial(config)
        results = read_results([config.output_dir])
        found.append(value_of(results, "random_eps40" if restarts == 1 else "randomx8_eps40"))
    assert found[1] < found[0]


def test_random_starts_are_a_function_of_the_seed_and_the_image_alone(world, tokenizer_folder, tmp_path, measured):
    fields = {"attacks": ("random", "pgd"), "budgets": (16,)}
    for name, more in {"batch": {"batch_size": 12}, "seed": {"seed": 5}}.items():
        stage.measure_adversarial(make_config(world, tokenizer_folder, tmp_path / name, **fields, **more))
    same, other = (read_results([tmp_path / name]) for name in ("batch", "seed"))
    shifts = ["random_eps16", "pgd3_eps16"]
    expected = [value_of(measured, shift, "tokens_changed", seed) for shift in shifts for seed in (0, 1)]
    assert [value_of(same, shift, "tokens_changed", seed) for shift in shifts for seed in (0, 1)] == expected
    assert [value_of(other, shift, "tokens_changed", seed) for shift in shifts for seed in (0, 1)] != expected


def test_a_part_of_the_images_lies_at_even_distances():
    assert stage.evenly_chosen(10, 4).tolist() == [0, 2, 5, 7]
    assert stage.evenly_chosen(3, None).tolist() == stage.evenly_chosen(3, 9).tolist() == [0, 1, 2]


@pytest.mark.slow
def test_two_processes_measure_what_one_does(world, tokenizer_folder, measured, tmp_path):
    done = tiny.run(
        "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "seitpp.downstream.adversarial",
        "--classifiers", json.dumps([str(world / "finetuned")]), "--images", world / "test",
        "--tokenizer", tokenizer_folder, "--budgets", "[0, 16]", "--steps", "3", "--batch_size", "5",
        "--dataset", "insects", "--output_dir", tmp_path / "run", ACCELERATE_USE_CPU="1", OMP_NUM_THREADS="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(without_runs(read_results([tmp_path / "run"])), without_runs(measured))


# Bad input


def test_an_image_that_can_not_be_decoded_is_named(world, tokenizer_folder, tmp_path):
    shutil.copytree(world / "test", tmp_path / "photos")
    (tmp_path / "photos" / "ant" / "001.png").write_bytes(b"no image")
    config = make_config(
        world, tokenizer_folder, tmp_path / "run", images=str(tmp_path / "photos"), attacks=("fgsm",), budgets=(4,)
    )  # fmt: skip
    with pytest.raises(UserError, match=r"ant/001\.png can't be decoded .*--max_skipped"):
        stage.measure_adversarial(config)
    stage.measure_adversarial(replace(config, max_skipped=0.2))
    assert set(read_results([tmp_path / "run"]).test_images) == {11}


def test_a_tokenizer_without_latents_is_refused_before_anything_is_written(world, tmp_path, monkeypatch):
    (tmp_path / "opaque_tokenizer.py").write_text(
        "import torch\n"
        "class Opaque(torch.nn.Module):\n"
        "    name, image_size, grid, codebook_size, lookup = 'opaque', (16, 24), (4, 6), 37, 'euclidean'\n"
        "    codebook, preprocessing, fingerprint = torch.zeros(37, 5), {}, 'f' * 64\n"
        "    def encode(self, images):\n"
        "        return torch.zeros(len(images), 4, 6, dtype=torch.int64)\n"
        "    def decode(self, ids):\n"
        "        return torch.zeros(len(ids), 3, 16, 24)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    classifier = read_classifier(world / "finetuned" / "seed-0")
    save_classifier(tmp_path / "own" / "seed-0" / "weights", classifier, tokenizer="f" * 64, class_names=CLASSES)
    config = make_config(
        world, "opaque_tokenizer:Opaque", tmp_path / "run", classifiers=(str(tmp_path / "own"),)
    )  # fmt: skip
    with pytest.raises(UserError, match=r"'opaque' has no method latents\(images\)"):
        stage.measure_adversarial(config)
    assert not list((tmp_path / "run").glob("*"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("budgets", (1, 1)), ("budgets", (-1,)), ("budgets", ()), ("attacks", ("cw",)), ("steps", 0),
        ("temperature", 0.0), ("neighbours", 0), ("max_images", 0), ("restarts", 0),
    ],
)  # fmt: skip
def test_impossible_settings_are_refused_by_name(world, tokenizer_folder, tmp_path, field, value):
    with pytest.raises(UserError, match=f"AdversarialConfig: {field} "):
        make_config(world, tokenizer_folder, tmp_path, **{field: value})
