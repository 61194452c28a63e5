"""Rows with several labels: targets, mean average precision, a run, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

import tiny
from seitpp.finetune import train as stage
from seitpp.finetune.classifier import read_classifier
from seitpp.finetune.labelled import fingerprints, open_labelled, open_train_and_test, split_labelled
from seitpp.mtm.augmentation.augment import AugmentConfig
from seitpp.mtm.augmentation.mixing import Mix, MixConfig
from seitpp.mtm.encoder import EncoderConfig
from seitpp.runtime.errors import UserError
from seitpp.runtime.results import read_results
from seitpp.tokens.format.targets import Targets

LISTS = [[0], [1], [0, 1], [], None, [2, 0]]


def make_several(folder, rows=30, *, seed=0):
    """A store whose rows have one of six sets of labels, which their ids tell."""
    kinds = np.arange(rows) % len(LISTS)
    ids = tiny.striped_ids(kinds, tiny.GRID, seed=seed)
    return tiny.make_store(folder, ids, targets=Targets.of(labels=[LISTS[kind] for kind in kinds]))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    make_several(folder / "train", 36)
    make_several(folder / "test", 12, seed=1)
    return stage.FinetuneConfig(
        store=str(folder / "train"), eval_store=str(folder / "test"), output_dir=str(folder / "run"), multi_label=True,
        loss="binary", label_smoothing=0.0, encoder=EncoderConfig(width=24, depth=1, heads=3, embedding_std=0.5),
        augment=AugmentConfig(crop=False, mix=MixConfig(cutmix=1.0, probability=0.3)), steps=30, batch_size=12,
        blr=0.1, mixed_precision="no", log_every=10,
    )  # fmt: skip


def test_targets_are_one_for_each_class_that_a_row_has(tmp_path):
    labelled = open_labelled(make_several(tmp_path / "store", 6), several=True)
    assert labelled.rows.tolist() == [0, 1, 2, 3, 5]  # of row 4 nobody said anything; row 3 has no class
    assert labelled.targets.tolist() == [[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0], [1, 0, 1]]
    first, second = split_labelled(labelled, 0.4, seed=0)
    assert sorted([*first.rows, *second.rows]) == [0, 1, 2, 3, 5]
    assert len(second.rows) == 2


def test_mixed_targets_are_shares_of_each_class():
    own = torch.tensor([0.25, 1.0])[:, None, None].expand(2, 2, 2)
    mix = Mix(partners=torch.tensor([1, 0]), own=own)
    targets = mix.targets(torch.tensor([[1, 0, 1], [0, 0, 1]]), classes=3)
    assert targets.tolist() == [[0.25, 0.0, 1.0], [0.0, 0.0, 1.0]]


def test_a_run_learns_several_labels_and_its_results_are_those_of_the_saved_classifier(config):
    stage.finetune(config)
    results = {row.metric: row.value for row in read_results([config.output_dir]).itertuples()}
    assert results.keys() == {"mean_average_precision", "binary_cross_entropy"}
    test = open_labelled(config.eval_store, several=True)
    classifier = read_classifier(f"{config.output_dir}/seed-0")
    with torch.no_grad():
        scores = classifier(test.store.ids(test.rows)).numpy()
    each = [average_precision_score(test.targets[:, column], scores[:, column]) for column in range(3)]
    assert results["mean_average_precision"] == pytest.approx(np.mean(each))
    assert results["mean_average_precision"] > 0.8
    chances = 1 / (1 + np.exp(-scores))
    entropy = -np.where(test.targets == 1, np.log(chances), np.log(1 - chances)).mean()
    assert results["binary_cross_entropy"] == pytest.approx(entropy, rel=1e-4)


def test_one_label_a_row_is_not_taken_for_several(config, stores, tmp_path):
    with pytest.raises(UserError, match="several labels a row"):
        stage.finetune(replace(config, store=str(stores / "train"), output_dir=str(tmp_path / "run")))
    with pytest.raises(UserError, match=r"loss = .cross_entropy. must be binary"):
        replace(config, loss="cross_entropy")
    with pytest.raises(UserError, match="class_balanced"):
        replace(config, sampling="class_balanced")


def test_a_table_with_several_labels_a_cell_is_learned_as_the_column_of_a_store_is(config, stores, tmp_path):
    names = [each and [("ant", "bee", "cow")[label] for label in each] for each in LISTS]
    cells = ["" if each is None else "|".join(each) or "|" for each in names]
    table = tmp_path / "several.csv"
    table.write_text("key,label\n" + "".join(f"{row:04d}.png,{cells[row % 6]}\n" for row in range(36)))
    known = replace(config, labels=str(table))
    of_table, of_store = open_train_and_test(known)[0], open_train_and_test(config)[0]
    assert of_table.classes == of_store.classes
    assert of_table.rows.tolist() == of_store.rows.tolist()
    assert of_table.targets.tolist() == of_store.targets.tolist()
    told = fingerprints(of_table, of_table)["data"]["labels"]
    table.write_text(table.read_text().replace("0002.png,ant|bee", "0002.png,ant|bee|cow"))
    changed = open_train_and_test(known)[0]
    assert fingerprints(changed, changed)["data"]["labels"] != told
    with pytest.raises(UserError, match=r"several.csv, line 4: .* is several labels, or none"):
        open_train_and_test(replace(known, multi_label=False))
