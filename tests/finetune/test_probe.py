"""Probes and the simple baselines beside them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import tiny
from seitpp.finetune import probe as stage
from seitpp.finetune.features import bag_of_tokens, encode_store, majority_accuracy, make_features, pixels
from seitpp.finetune.labelled import LabelledRows, open_labelled, split_labelled
from seitpp.mtm.encoder import EncoderConfig, TokenEncoder
from seitpp.mtm.model import load_model
from seitpp.mtm.stems import PatchStem
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import read_json
from seitpp.runtime.results import read_results
from seitpp.tokenizers.sources.images import open_image_folder
from seitpp.tokenizers.sources.pixels import read_image
from seitpp.tokens.store import TokenStore


def rows_labelled(labels):
    """LabelledRows over no store, for what reads labels alone."""
    labels = np.asarray(labels)
    return LabelledRows(None, np.flatnonzero(labels >= 0), labels, [f"class {i}" for i in range(labels.max() + 1)])


# Baselines by hand


def test_the_majority_class_is_that_of_the_training_set():
    assert majority_accuracy(np.array([0, 1, 1, 2, 1]), np.array([0, 0, 0, 1])) == 0.25


def test_a_bag_of_tokens_is_the_roots_of_counts(tmp_path):
    ids = torch.tensor([[[0, 3, 3], [3, 3, 1]], [[2, 2, 2], [2, 2, 2]]])
    bags = bag_of_tokens(TokenStore(tiny.make_store(tmp_path, ids, codes=5)))
    assert bags == pytest.approx(np.sqrt([[1, 1, 0, 4, 0], [0, 0, 6, 0, 0]]))


def test_neighbours_vote_by_their_cosine():
    train = np.array([[1.0, 0.0], [10.0, 1.0], [0.0, 3.0], [-1.0, 5.0], [0.0, -1.0]], np.float32)
    test = np.array([[2.0, 0.1], [0.0, 1.0], [1.0, 1.02]], np.float32)
    train_set, test_set = rows_labelled([0, 0, 1, 1, -1]), rows_labelled([0, 1, 1])
    # k = 1: row 1 (0), row 2 (1), row 1 at 0.77 against row 2 at 0.71 (0): two of three are right
    assert stage.nearest_neighbours((train, test), train_set, test_set, 1) == pytest.approx(2 / 3)
    # k = 3: the third sample's neighbours are rows 1 (0.77), 2 (0.71) and 0 (0.70): 1.47 for class 0
    assert stage.nearest_neighbours((train, test), train_set, test_set, 3) == pytest.approx(2 / 3)
    # k = 4: row 3 (0.56) joins: 1.27 for class 1 against 1.47
    assert stage.nearest_neighbours((train, test), train_set, test_set, 4) == pytest.approx(2 / 3)


def test_similar_neighbours_outweigh_many_others():
    train = np.array([[1.0, 0.0], [0.3, 1.0], [0.3, -1.0]], np.float32)
    test = np.array([[1.0, 0.0]], np.float32)
    accuracy = stage.nearest_neighbours((train, test), rows_labelled([1, 0, 0]), rows_labelled([1]), 3)
    assert accuracy == 1.0  # 1.0 against twice 0.29


def test_pixels_are_those_of_the_stores_keys_in_its_order(images, tmp_path):
    keys = ["cow/003.png", "ant/011.png"]
    ids = tiny.random_ids(2, tiny.CODES, tiny.GRID)
    found = pixels(images, TokenStore(tiny.make_store(tmp_path, ids, keys=keys)), size=(4, 5))
    expected = [read_image(images / key, (4, 5)).reshape(-1) / 255 for key in keys]
    assert found == pytest.approx(np.array(expected), abs=1e-6)


def test_pixels_of_another_folder_are_refused(images, tmp_path):
    ids = tiny.random_ids(1, tiny.CODES, tiny.GRID)
    store = TokenStore(tiny.make_store(tmp_path, ids, keys=["dog/1.png"]))
    with pytest.raises(UserError, match=r"lacks dog/1\.png"):
        pixels(images, store)


@torch.no_grad()
def test_features_of_a_store_are_means_over_patches_of_normed_features(tmp_path):
    ids = tiny.random_ids(9, tiny.CODES, tiny.GRID)
    store = TokenStore(tiny.make_store(tmp_path / "store", ids))
    encoder = load_model(tiny.make_mtm(tmp_path / "mtm"))[0].encoder
    features = encode_store(encoder, store, 4, "cpu")
    expected = np.stack([encoder.norm(encoder(ids[row : row + 1]))[0, 1:].mean(0).numpy() for row in range(9)])
    assert features == pytest.approx(expected, abs=1e-5)


@pytest.mark.usefixtures("own_accelerator")
def test_features_come_in_the_precision_that_is_asked_for(tmp_path):
    store = TokenStore(tiny.make_store(tmp_path / "store", tiny.random_ids(9, tiny.CODES, tiny.GRID)))
    encoder = load_model(tiny.make_mtm(tmp_path / "mtm"))[0].encoder
    exact = encode_store(encoder, store, 4, "cpu")
    rounded = encode_store(encoder, store, 4, "cpu", make_accelerator("bf16").autocast)
    assert rounded.dtype == np.float32
    assert 1e-4 < np.abs(rounded - exact).max() < 0.05


@torch.no_grad()
def test_a_random_encoder_sees_the_view_that_is_asked_for(tmp_path):
    ids = tiny.random_ids(5, tiny.CODES, tiny.GRID)
    labelled = open_labelled(tiny.make_store(tmp_path, ids))
    shape = EncoderConfig(width=12, depth=1, heads=3)
    config = stage.ProbeConfig(
        store="", eval_store="", output_dir="", features=("random",), encoder=shape, view=(2, 4), batch_size=3
    )
    torch.manual_seed(4)
    found, _ = make_features("random", config, labelled, labelled, "cpu")
    torch.manual_seed(4)
    stem = PatchStem(shape, codebook_size=tiny.CODES, embedding_dim=5)
    encoder = TokenEncoder(shape, stem, view=(2, 4)).eval()
    assert found == pytest.approx(encoder.pooled(ids[:, 1:3, 1:5]).numpy(), abs=1e-5)


# Linear probe


@pytest.fixture(scope="module")
def config(tmp_path_factory, images, test_images):
    """A probe of everything on stores whose ids tell the class a little."""
    folder = tmp_path_factory.mktemp("probe")
    random = np.random.default_rng(0)
    for name, source in (("train", images), ("test", test_images)):
        image_folder = open_image_folder(source)
        told = np.where(random.random(len(image_folder)) < 0.7, image_folder.labels, 0)
        ids = tiny.striped_ids(told, tiny.GRID, seed=len(image_folder))
        tiny.make_store(folder / name, ids, labels=image_folder.labels, keys=image_folder.keys)
    return stage.ProbeConfig(
        store=str(folder / "train"), eval_store=str(folder / "test"), images=str(images),
        eval_images=str(test_images), weights=str(tiny.make_mtm(folder / "mtm")), neighbours=3,
        features=("majority", "pixels", "bag-of-tokens", "random", "mtm"), output_dir=str(folder / "run"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def probed(config):
    stage.probe(config)
    return read_results([config.output_dir]).set_index(["protocol", "init"])


def test_every_feature_has_its_rows_in_the_results(probed):
    assert list(probed.index) == [
        ("majority", ""), ("linear", "pixels"), ("linear", "bag-of-tokens"), ("linear", "random"), ("knn3", "random"),
        ("linear", "mtm"), ("knn3", "mtm"),
    ]  # fmt: skip
    assert set(probed.train_images) == {30}
    assert set(probed.test_images) == {12}


def test_the_majority_in_the_results_is_that_by_hand(probed):
    assert probed.value["majority", ""] == pytest.approx(5 / 12)  # 13 ants are the most of the training set


def test_the_pixels_tell_the_class(probed):
    assert probed.value["linear", "pixels"] > 0.9  # the tiny images have a hue a class


def test_a_linear_probe_is_scikit_learns_on_standardised_features(config, probed):
    train_set, test_set = open_labelled(config.store), open_labelled(config.eval_store)
    train, test = bag_of_tokens(train_set.store), bag_of_tokens(test_set.store)
    chosen = read_json(Path(config.output_dir) / "summary.json")["C"]["bag-of-tokens"]
    mean, deviation = train.mean(0), train.std(0)
    deviation[deviation == 0] = 1
    model = LogisticRegression(C=chosen, max_iter=2000).fit((train - mean) / deviation, train_set.targets)
    expected = (model.predict((test - mean) / deviation) == test_set.targets).mean()
    assert probed.value["linear", "bag-of-tokens"] == pytest.approx(expected)


def test_the_chosen_regularisation_is_fitted_on_the_learned_and_the_judged_part_together(config):
    random = np.random.default_rng(0)
    train_set, test_set = rows_labelled(np.arange(60) % 3), rows_labelled(np.arange(600) % 3)
    train, test = (random.standard_normal((len(each.rows), 8)) for each in (train_set, test_set))
    train[:, 0] += train_set.targets
    test[:, 0] += test_set.targets
    learned, judged = split_labelled(train_set, 0.4, seed=0)

    def accuracy_of(part, value):
        scaler = StandardScaler().fit(train[part.rows])
        model = LogisticRegression(C=value, max_iter=1000).fit(scaler.transform(train[part.rows]), part.targets)
        return lambda features, targets: model.score(scaler.transform(features), targets)

    values = config.inverse_regularisation
    scores = [accuracy_of(learned, value)(train[judged.rows], judged.targets) for value in values]
    best = values[int(np.argmax(scores))]
    chosen, accuracy = stage.linear_probe((train, test), learned, judged, train_set, test_set, config)
    assert chosen == best
    assert accuracy == pytest.approx(accuracy_of(train_set, best)(test, test_set.targets))
    assert accuracy != accuracy_of(learned, best)(test, test_set.targets)


def test_regularisation_is_chosen_on_the_held_out_part_alone(config):
    train_set, test_set = open_labelled(config.store), open_labelled(config.eval_store)
    learned, judged = split_labelled(train_set, 0.3, seed=0)
    features = bag_of_tokens(train_set.store), bag_of_tokens(test_set.store)
    chosen, accuracy = stage.linear_probe(features, learned, judged, train_set, test_set, config)
    permuted = replace(test_set, labels=(test_set.labels + 1) % 3)
    noise = np.random.default_rng(0).standard_normal(features[1].shape)
    again, other = stage.linear_probe((features[0], noise), learned, judged, train_set, permuted, config)
    assert again == chosen
    assert other != accuracy


def test_a_finished_probe_is_not_run_again(config, probed, capsys):
    stage.probe(config)
    assert "finished before, nothing to do" in capsys.readouterr().out


def test_weights_of_another_tokenizer_are_refused(config, tmp_path):
    other = tiny.make_mtm(tmp_path / "mtm", fingerprint="b" * 64)
    with pytest.raises(UserError, match="tokenizer bbbbbbbbbbbb"):
        stage.probe(replace(config, weights=str(other), features=("mtm",), output_dir=str(tmp_path / "run")))
