"""Fine-tuning: labels, the classifier, and runs whose learning rate is chosen without the test set."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import tiny
from seitpp.finetune import train as stage
from seitpp.finetune.classifier import read_classifier
from seitpp.mtm.augmentation.augment import AugmentConfig
from seitpp.mtm.augmentation.mixing import MixConfig, Mixing
from seitpp.mtm.encoder import EncoderConfig
from seitpp.mtm.model import load_model
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import read_json
from seitpp.runtime.results import read_results
from seitpp.runtime.run_folder import read_metrics
from seitpp.tokens.order.sample_order import SampleOrder
from seitpp.tokens.store import TokenStore
from seitpp.training.random_streams import Draws

ENCODER = EncoderConfig(width=24, depth=2, heads=3, patch_size=2, token_dropout=0.0, embedding_std=0.5)


def make_config(stores, output, **fields):
    fields = {
        "encoder": ENCODER, "steps": 25, "batch_size": 12, "blr": 0.1, "log_every": 5, "mixed_precision": "no",
        "augment": AugmentConfig(crop=False), **fields,
    }  # fmt: skip
    return stage.FinetuneConfig(
        store=str(stores / "train"), eval_store=fields.pop("eval_store", str(stores / "test")),
        output_dir=str(output), **fields,
    )  # fmt: skip


def test_a_run_is_not_gone_on_with_under_other_labels(stores, table, tmp_path):
    def labels(names):
        return str(table("key,label\n" + "".join(f"{row:04d}.png,{names[row % 3]}\n" for row in range(15))))

    config = make_config(stores, tmp_path / "run", labels=labels("xyz"), batch_size=6, steps=1)
    stage.finetune(config)
    stage.finetune(config)  # the same again: nothing to do
    for names in ("zyx", "xyw"):
        labels(names)
        with pytest.raises(UserError, match=r"run holds another run \(labels: .* is another since, .* there, .* now\)"):
            stage.finetune(config)


def test_a_first_try_that_is_refused_leaves_nothing_and_the_corrected_command_runs(stores, tmp_path):
    wrong = make_config(stores, tmp_path / "run", steps=1, warmup_steps=2, blr_candidates=(0.1, 0.2))
    for config in (wrong, replace(wrong, blr_candidates=())):
        with pytest.raises(UserError, match=r"the warm-up of 2 steps does not fit into a training of 1 steps"):
            stage.finetune(config)
        assert list(tmp_path.iterdir()) == []
    stage.finetune(make_config(stores, tmp_path / "run", steps=1, warmup_steps=0))
    finished = {path: path.read_bytes() for path in sorted((tmp_path / "run").rglob("*")) if path.is_file()}
    with pytest.raises(UserError, match="does not fit"):
        stage.finetune(replace(wrong, resume="none"))
    assert {path: path.read_bytes() for path in sorted((tmp_path / "run").rglob("*")) if path.is_file()} == finished


def test_a_run_that_was_stopped_in_its_first_seed_is_a_run(stores, tmp_path, monkeypatch):
    config = make_config(stores, tmp_path / "run", steps=1)
    with monkeypatch.context() as patch:
        patch.setattr(stage, "save_classifier", raise_interrupt)
        with pytest.raises(KeyboardInterrupt):
            stage.finetune(config)
    assert (tmp_path / "run" / "config.yaml").is_file()
    stage.finetune(config)
    assert (tmp_path / "run" / "summary.json").is_file()


def raise_interrupt(*words, **more):
    raise KeyboardInterrupt


def accuracy_by_hand(folder, store_folder):
    """Share of rows of a store that the saved classifier gets right, one row at a time."""
    classifier = read_classifier(folder)
    store = TokenStore(store_folder)
    with torch.no_grad():
        right = [int(classifier(store.ids([row])).argmax()) == label for row, label in enumerate(store.labels)]
    return np.mean(right)


@pytest.fixture(scope="module")
def scratch(stores, tmp_path_factory):
    """Two seeds from scratch, the rate chosen from three."""
    config = make_config(
        stores, tmp_path_factory.mktemp("run") / "scratch", seeds=2, blr_candidates=(1e-6, 0.1, 1e-7), dataset="colours"
    )
    stage.finetune(config)
    return config


def test_training_from_scratch_learns_what_the_ids_tell(scratch, stores):
    results = pd.read_csv(Path(scratch.output_dir) / "results.csv")
    assert results[results.metric == "accuracy"].value.min() > 0.8


def test_results_are_one_row_a_seed_and_metric_and_those_of_the_saved_classifier(scratch, stores):
    results = read_results([scratch.output_dir])
    assert results[["metric", "seed"]].values.tolist() == [
        ["accuracy", 0], ["cross_entropy", 0], ["accuracy", 1], ["cross_entropy", 1]
    ]  # fmt: skip
    same = {
        "dataset": "colours", "split": "test", "shift": "", "init": "scratch", "protocol": "finetune",
        "augmentation": "", "label_fraction": 1.0, "train_images": 36, "test_images": 15, "tokenizer": "a" * 64,
        "run": scratch.output_dir,
    }  # fmt: skip
    assert {name: set(results[name]) for name in same} == {name: {value} for name, value in same.items()}
    for seed in (0, 1):
        expected = accuracy_by_hand(Path(scratch.output_dir) / f"seed-{seed}", stores / "test")
        assert results[(results.metric == "accuracy") & (results.seed == seed)].value.item() == pytest.approx(expected)


def test_the_chosen_rate_is_the_best_on_the_held_out_part(scratch):
    summary = read_json(Path(scratch.output_dir) / "summary.json")
    tried = {float(rate): measures["cross_entropy"] for rate, measures in summary["held_out"].items()}
    assert set(tried) == {1e-6, 0.1, 1e-7}
    assert summary["blr"] == 0.1
    assert tried[0.1] == min(tried.values())


def test_the_choice_of_the_rate_never_reads_the_test_set(scratch, stores, tmp_path):
    ids, labels = tiny.random_ids(9, tiny.CODES, tiny.GRID, seed=9), [2, 2, 1, 1, 0, 0, 0, 1, 2]
    tiny.make_store(tmp_path / "other", ids, labels=labels)
    config = replace(scratch, output_dir=str(tmp_path / "run"), eval_store=str(tmp_path / "other"), seeds=1)
    stage.finetune(config)
    one, other = (read_json(Path(folder) / "summary.json") for folder in (scratch.output_dir, tmp_path / "run"))
    assert other["blr"] == one["blr"]
    assert other["held_out"] == one["held_out"]
    assert other["accuracy"] != one["accuracy"]


def test_seeds_are_different_trainings(scratch):
    first, second = (read_metrics(Path(scratch.output_dir) / f"seed-{seed}")[0]["loss"] for seed in (0, 1))
    assert first != second


def test_runs_that_are_finished_are_not_run_again(scratch, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(scratch.output_dir, folder)
    config = replace(scratch, output_dir=str(folder))
    for path in folder.rglob("config.yaml"):
        path.write_text(path.read_text().replace(scratch.output_dir, str(folder)))
    stage.finetune(config)
    assert "finished before, nothing to do" in capsys.readouterr().out
    (folder / "summary.json").unlink()
    (folder / "results.csv").unlink()
    shutil.rmtree(folder / "seed-1")
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("metrics.jsonl")}
    stage.finetune(config)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    again, before = (read_results([each]).drop(columns="run") for each in (folder, scratch.output_dir))
    assert again.equals(before)


def test_fine_tuning_starts_from_the_pre_trained_weights(stores, tmp_path):
    weights = tiny.make_mtm(tmp_path / "mtm")
    config = make_config(stores, tmp_path / "run", weights=str(weights), steps=12, layer_decay=0.7)
    stage.finetune(config)
    results = read_results([tmp_path / "run"])
    assert set(results.init) == {"mtm"}
    assert results.value[0] == pytest.approx(accuracy_by_hand(tmp_path / "run" / "seed-0", stores / "test"))
    before = load_model(weights)[0].encoder.stem.embeddings.weight.detach()
    after = read_classifier(tmp_path / "run" / "seed-0").encoder.stem.embeddings.weight.detach()
    assert float((after - before).norm() / before.norm()) < 0.2


def mixing(**fields):
    return AugmentConfig(crop=False, mix=MixConfig(**fields))


def test_mixed_samples_teach_what_they_are_mixed_of_and_the_test_set_stays_whole(stores, tmp_path):
    config = make_config(stores, tmp_path / "run", augment=mixing(cutmix=1.0, mixup=0.8), steps=60)
    stage.finetune(config)
    accuracy = pd.read_csv(tmp_path / "run" / "results.csv").value[0]
    assert accuracy > 0.8
    assert accuracy == pytest.approx(accuracy_by_hand(tmp_path / "run" / "seed-0", stores / "test"))


def test_the_loss_of_mixed_samples_is_that_of_smoothed_soft_labels_and_the_heavier_label_is_the_right_one(
    stores, tmp_path
):
    config = make_config(
        stores, tmp_path / "run", augment=mixing(cutmix=1.0), steps=10, lr=1e-12, label_smoothing=0.2, log_every=10
    )
    stage.finetune(config)
    logged = read_metrics(tmp_path / "run" / "seed-0")[0]
    classifier = read_classifier(tmp_path / "run" / "seed-0")  # as it began: the rate is nothing
    store, order = TokenStore(stores / "train"), SampleOrder(length=36, batch_size=12, seed=config.seed)
    mixer = Mixing(config.augment.mix, mixup=0.0, pairing="neighbour", view=tiny.GRID, device="cpu")
    losses, right, own_label_right = [], [], []
    for step, row in np.ndindex(10, 12):
        rows, places = order.at(step)
        own = mixer.sample(Draws(config.seed, step, torch.from_numpy(places))).own[row].bool()
        labels, ids = store.labels[rows[[row, row ^ 1]]], store.ids(rows[[row, row ^ 1]])
        with torch.no_grad():
            logits = classifier(torch.where(own, ids[0], ids[1])[None])[0].double().numpy()
        target = np.full(3, 0.2 / 3)
        target[labels[0]] += 0.8 * float(own.double().mean())
        target[labels[1]] += 0.8 * (1 - float(own.double().mean()))
        losses.append(-(target * (logits - np.log(np.exp(logits).sum()))).sum())
        right.append(logits.argmax() == target.argmax())
        own_label_right.append(logits.argmax() == labels[0])
    assert logged["loss"] == pytest.approx(np.mean(losses), abs=1e-4)
    assert logged["accuracy"] == pytest.approx(np.mean(right))
    assert np.mean(right) != np.mean(own_label_right)


def test_weights_of_another_tokenizer_are_refused(stores, tmp_path):
    weights = tiny.make_mtm(tmp_path / "mtm", fingerprint="b" * 64)
    with pytest.raises(UserError, match="tokenizer bbbbbbbbbbbb"):
        stage.finetune(make_config(stores, tmp_path / "run", weights=str(weights)))


def test_a_test_store_of_other_classes_is_refused(stores, tmp_path):
    ids = tiny.random_ids(4, tiny.CODES, tiny.GRID)
    tiny.make_store(tmp_path / "other", ids, labels=[0, 1, 0, 1], classes=["bee", "cow"])
    with pytest.raises(UserError, match="classes"):
        stage.finetune(make_config(stores, tmp_path / "run", eval_store=str(tmp_path / "other"), steps=1))
