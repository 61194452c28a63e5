"""Fine-tuning: labels, the classifier, and runs whose learning rate is chosen without the test set."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import published
import tiny
from seitpp.finetune import train as stage
from seitpp.finetune.classifier import Classifier, classifier_from_pretraining, load_classifier, save_classifier
from seitpp.finetune.labelled import open_labelled, split_labelled
from seitpp.mtm.augmentation.augment import AugmentConfig
from seitpp.mtm.augmentation.mixing import MixConfig, Mixing
from seitpp.mtm.encoder import EncoderConfig
from seitpp.mtm.model import load_model
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import read_json
from seitpp.runtime.results import Result, mean_and_deviation, read_results, write_results
from seitpp.runtime.run_folder import read_metrics
from seitpp.tokens.order import SampleOrder
from seitpp.tokens.store import TokenStore
from seitpp.training.random_streams import Draws

ENCODER = EncoderConfig(width=24, depth=2, heads=3, patch_size=2, token_dropout=0.0, embedding_std=0.5)
PARTS = [
    ("token_emb.word_embeddings", "encoder.embeddings"),
    ("token_emb.LayerNorm", "encoder.embedding_norm"),
    ("patch_embed.proj", "encoder.patches"),
]


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A training store of 36 + 4 unlabelled rows and a test store of 15; ids tell the class."""
    folder = tmp_path_factory.mktemp("stores")
    train_labels = np.array([row % 3 for row in range(36)] + [-1] * 4)
    test_labels = np.array([row % 3 for row in range(15)])
    tiny.make_store(folder / "train", tiny.striped_ids(train_labels, tiny.GRID, seed=1), labels=train_labels)
    tiny.make_store(folder / "test", tiny.striped_ids(test_labels, tiny.GRID, seed=2), labels=test_labels)
    return folder


def make_config(stores, output, **fields):
    fields = {
        "encoder": ENCODER, "steps": 25, "batch_size": 12, "blr": 0.1, "log_every": 5, "mixed_precision": "no",
        "augment": AugmentConfig(crop=False), **fields,
    }  # fmt: skip
    return stage.FinetuneConfig(
        store=str(stores / "train"), eval_store=fields.pop("eval_store", str(stores / "test")),
        output_dir=str(output), **fields,
    )  # fmt: skip


# Labels


@pytest.fixture
def table(tmp_path):
    def write(text):
        (tmp_path / "labels.csv").write_text(text)
        return tmp_path / "labels.csv"

    return write


def test_without_a_table_the_stores_labels_count_and_unlabelled_rows_are_left_out(stores):
    labelled = open_labelled(stores / "train")
    assert labelled.rows.tolist() == list(range(36))
    assert labelled.targets.tolist() == [row % 3 for row in range(36)]
    assert labelled.classes == ["ant", "bee", "cow"]


def test_a_table_gives_other_labels_and_leaves_out_what_it_does_not_name(stores, table):
    path = table("label,note,key\nred,x,0005.png\nblue,y,0001.png\nred,,0038.png\ngreen,,nowhere.png\n")
    labelled = open_labelled(stores / "train", path)
    assert labelled.classes == ["blue", "green", "red"]
    assert labelled.rows.tolist() == [1, 5, 38]
    assert labelled.targets.tolist() == [0, 2, 2]
    assert len(labelled.labels) == 40


def test_names_of_classes_that_look_like_numbers_stay_names(stores, table):
    labelled = open_labelled(stores / "train", table("key,label\n0001.png,10\n0002.png,9\n0003.png,010\n"))
    assert labelled.classes == ["010", "10", "9"]


def test_rows_with_an_empty_label_are_left_out(stores, table):
    labelled = open_labelled(stores / "train", table("key,label\n0001.png,a\n0002.png,\n0003.png,b\n"))
    assert labelled.rows.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na,b\n", "must have the columns key and label; it has file, label"),
        ("key,label\nelsewhere.png,a\n", "names no row of .*its keys look like '0000.png'"),
        ("key,label\n0001.png,a\n0002.png,a\n", "fewer than two classes"),
        ("", "labels.csv"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(stores, table, text, message):
    with pytest.raises(UserError, match=message):
        open_labelled(stores / "train", table(text))


def test_a_table_that_is_not_there_is_refused(stores, tmp_path):
    with pytest.raises(UserError, match="no such table of labels"):
        open_labelled(stores / "train", tmp_path / "nothing.csv")


def test_a_store_of_another_tokenizer_is_refused(stores):
    with pytest.raises(UserError, match="tokenizer bbbbbbbbbbbb"):
        open_labelled(stores / "test", fingerprint="b" * 64)


def test_a_split_divides_every_class_by_its_share(tmp_path):
    labels = np.array([0] * 10 + [1] * 5 + [2] * 2 + [3])
    classes = ["a", "b", "c", "d"]
    ids = tiny.random_ids(18, tiny.CODES, tiny.GRID)
    labelled = open_labelled(tiny.make_store(tmp_path, ids, labels=labels, classes=classes))
    first, second = split_labelled(labelled, 0.3, seed=0)
    assert np.bincount(first.targets, minlength=4).tolist() == [7, 3, 1, 1]  # a class of one is learned from
    assert np.bincount(second.targets, minlength=4).tolist() == [3, 2, 1, 0]
    assert sorted([*first.rows, *second.rows]) == list(range(18))


def test_a_split_is_the_same_again_and_another_for_another_seed(stores):
    labelled = open_labelled(stores / "train")
    parts = {seed: tuple(split_labelled(labelled, 0.5, seed=seed)[1].rows.tolist()) for seed in range(6)}
    assert tuple(split_labelled(labelled, 0.5, seed=4)[1].rows.tolist()) == parts[4]
    assert len(set(parts.values())) == 6


# Classifier


def make_classifier(**fields):
    torch.manual_seed(0)
    return Classifier(
        ENCODER, **{"view": (4, 6), "codebook_size": tiny.CODES, "embedding_dim": 5, "classes": 3, **fields}
    )


@torch.no_grad()
def test_the_classifier_means_over_patches_before_its_norm():
    classifier, ids = make_classifier().eval(), tiny.random_ids(4, tiny.CODES, (4, 6))
    features = classifier.encoder(ids)[:, 1:].double().numpy().mean(axis=1)  # without the cls token
    normed = (features - features.mean(1, keepdims=True)) / np.sqrt(features.var(1, keepdims=True) + 1e-6)
    head = classifier.head
    expected = normed @ head.weight.double().numpy().T + head.bias.double().numpy()
    assert classifier(ids).numpy() == pytest.approx(expected, abs=1e-4)


@torch.no_grad()
def test_a_classifier_from_pre_training_has_its_encoder(tmp_path):
    folder = tiny.make_mtm(tmp_path)
    classifier, fingerprint = classifier_from_pretraining(folder, classes=4)
    model, _ = load_model(folder)
    ids = tiny.random_ids(3, tiny.CODES, tiny.GRID)
    assert torch.equal(classifier.eval().encoder(ids), model.encoder(ids))
    assert classifier(ids).shape == (3, 4)
    assert fingerprint == "a" * 64


@torch.no_grad()
def test_a_saved_classifier_computes_the_same(tmp_path):
    classifier, ids = make_classifier(drop_path=0.3).eval(), tiny.random_ids(4, tiny.CODES, (4, 6))
    save_classifier(tmp_path / "weights", classifier, tokenizer="f" * 64, class_names=["x", "y", "z"])
    loaded, fingerprint, names = load_classifier(tmp_path)
    assert torch.equal(loaded(ids), classifier(ids))
    assert (fingerprint, names) == ("f" * 64, ["x", "y", "z"])


@torch.no_grad()
def test_parity_of_the_classifier():
    recorded, weights = published.recording("classifier"), published.published_weights("classifier")
    places = weights.pop("pos_embed")  # trained in the published classifier, the fixed table here
    weights["cls_token"] = weights["cls_token"] + places[:, :1]
    config = EncoderConfig(width=48, depth=2, heads=3)
    classifier = Classifier(config, view=(28, 28), codebook_size=391, embedding_dim=32, classes=10)
    classifier.load_state_dict(
        {
            f"encoder.{name}" if name == "cls_token" or name.startswith("blocks.") else name: tensor
            for name, tensor in published.renamed(weights, PARTS).items()
        }
    )
    classifier.encoder.positions.copy_(places[0, 1:])
    classifier.eval()
    features = classifier.norm(classifier.encoder(recorded["ids"])[:, 1:].mean(dim=1))
    assert published.largest_difference(features, recorded["features"]) < 1e-4
    assert published.largest_difference(classifier(recorded["ids"]), recorded["logits"]) < 1e-4


# Runs


def test_a_run_is_not_gone_on_with_under_other_labels(stores, table, tmp_path):
    def labels(names):
        return str(table("key,label\n" + "".join(f"{row:04d}.png,{names[row % 3]}\n" for row in range(15))))

    config = make_config(stores, tmp_path / "run", labels=labels("xyz"), batch_size=6, steps=1)
    stage.main(config)
    stage.main(config)  # the same again: nothing to do
    for names in ("zyx", "xyw"):
        labels(names)
        with pytest.raises(UserError, match="run holds a run on other input"):
            stage.main(config)


def accuracy_by_hand(folder, store_folder):
    """Share of rows of a store that the saved classifier gets right, one row at a time."""
    classifier, _, _ = load_classifier(folder)
    store = TokenStore(store_folder)
    with torch.no_grad():
        right = [int(classifier(store.ids([row])).argmax()) == label for row, label in enumerate(store.labels)]
    return np.mean(right)


@pytest.fixture(scope="module")
def scratch(stores, tmp_path_factory):
    """Two seeds from scratch, the rate chosen from three."""
    config = make_config(
        stores, tmp_path_factory.mktemp("run") / "scratch", seeds=2, blr_candidates=(1e-6, 0.1, 1e-7), task="colours"
    )
    stage.main(config)
    return config


def test_training_from_scratch_learns_what_the_ids_tell(scratch, stores):
    results = pd.read_csv(Path(scratch.output_dir) / "results.csv")
    assert results[results.metric == "accuracy"].value.min() > 0.8


def test_results_are_one_row_a_seed_and_metric_and_those_of_the_saved_classifier(scratch, stores):
    results = pd.read_csv(Path(scratch.output_dir) / "results.csv")
    assert list(results.columns) == ["task", "method", "metric", "seed", "value", "train_images", "test_images"]
    assert results[["metric", "seed"]].values.tolist() == [
        ["accuracy", 0], ["cross_entropy", 0], ["accuracy", 1], ["cross_entropy", 1]
    ]  # fmt: skip
    assert set(results.task) == {"colours"}
    assert set(results.method) == {"from scratch"}
    assert set(results.train_images) == {36}
    assert set(results.test_images) == {15}
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
    stage.main(config)
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
    stage.main(config)
    assert "finished before, nothing to do" in capsys.readouterr().out
    (folder / "summary.json").unlink()
    (folder / "results.csv").unlink()
    shutil.rmtree(folder / "seed-1")
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("metrics.jsonl")}
    stage.main(config)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    again, before = (pd.read_csv(Path(each) / "results.csv") for each in (folder, scratch.output_dir))
    assert again.equals(before)


def test_fine_tuning_starts_from_the_pre_trained_weights(stores, tmp_path):
    weights = tiny.make_mtm(tmp_path / "mtm")
    config = make_config(stores, tmp_path / "run", weights=str(weights), steps=12, layer_decay=0.7)
    stage.main(config)
    results = pd.read_csv(tmp_path / "run" / "results.csv")
    assert set(results.method) == {"fine-tuned from MTM"}
    assert results.value[0] == pytest.approx(accuracy_by_hand(tmp_path / "run" / "seed-0", stores / "test"))
    before = load_model(weights)[0].encoder.embeddings.weight.detach()
    after = load_classifier(tmp_path / "run" / "seed-0")[0].encoder.embeddings.weight.detach()
    assert float((after - before).norm() / before.norm()) < 0.2


def mixing(**fields):
    return AugmentConfig(crop=False, mix=MixConfig(**fields))


def test_mixed_samples_teach_what_they_are_mixed_of_and_the_test_set_stays_whole(stores, tmp_path):
    config = make_config(stores, tmp_path / "run", augment=mixing(cutmix=1.0, mixup=0.8), steps=60)
    stage.main(config)
    accuracy = pd.read_csv(tmp_path / "run" / "results.csv").value[0]
    assert accuracy > 0.8
    assert accuracy == pytest.approx(accuracy_by_hand(tmp_path / "run" / "seed-0", stores / "test"))


def test_the_loss_of_mixed_samples_is_that_of_smoothed_soft_labels_and_the_heavier_label_is_the_right_one(
    stores, tmp_path
):
    config = make_config(
        stores, tmp_path / "run", augment=mixing(cutmix=1.0), steps=10, lr=1e-12, label_smoothing=0.2, log_every=10
    )
    stage.main(config)
    logged = read_metrics(tmp_path / "run" / "seed-0")[0]
    classifier, _, _ = load_classifier(tmp_path / "run" / "seed-0")  # as it began: the rate is nothing
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
        stage.main(make_config(stores, tmp_path / "run", weights=str(weights)))


def test_a_test_store_of_other_classes_is_refused(stores, tmp_path):
    ids = tiny.random_ids(4, tiny.CODES, tiny.GRID)
    tiny.make_store(tmp_path / "other", ids, labels=[0, 1, 0, 1], classes=["bee", "cow"])
    with pytest.raises(UserError, match="classes"):
        stage.main(make_config(stores, tmp_path / "run", eval_store=str(tmp_path / "other"), steps=1))


# Results


def result(seed, value, method="a"):
    return Result(task="t", method=method, metric="accuracy", seed=seed, value=value, train_images=5, test_images=7)


def test_results_come_back_from_several_folders(tmp_path):
    for name in ("one", "two"):
        write_results(tmp_path / name, [result(0, 0.25, method=name)])
    frame = read_results([tmp_path / "one", tmp_path / "missing", tmp_path / "two"])
    assert frame.method.tolist() == ["one", "two"]
    assert frame.value.tolist() == [0.25, 0.25]
    assert list(read_results([tmp_path / "missing"]).columns) == list(frame.columns)


def test_mean_and_deviation_are_over_seeds(tmp_path):
    write_results(tmp_path, [result(0, 0.2), result(1, 0.4), result(2, 0.9), result(0, 0.5, method="b")])
    summary = mean_and_deviation(read_results([tmp_path])).set_index("method")
    assert summary.loc["a", "mean"] == pytest.approx(0.5)
    assert summary.loc["a", "std"] == pytest.approx(np.sqrt((0.09 + 0.01 + 0.16) / 2))
    assert summary.loc["a", "seeds"] == 3
    assert np.isnan(summary.loc["b", "std"])
    assert summary.loc["b", ["train_images", "test_images"]].tolist() == [5, 7]
