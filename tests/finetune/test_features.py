"""Features of stores: how they are made, the files that keep them, rows of them in chunks."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

import tiny
from seitpp.finetune.classifier import Classifier, save_classifier
from seitpp.finetune.labelled import open_labelled
from seitpp.finetune.probe import ProbeConfig
from seitpp.finetune.probing.encoders import feature_origin, open_encoder
from seitpp.finetune.probing.feature_file import FeatureRecipe, feature_file
from seitpp.finetune.probing.feature_set import FeatureSet
from seitpp.finetune.probing.features import (
    FrozenEncoder,
    Layout,
    bag_of_tokens,
    encoder_recipe,
    majority_accuracy,
    pixels,
)
from seitpp.mtm.encoder import EncoderConfig, TokenEncoder
from seitpp.mtm.model import load_model
from seitpp.mtm.stems import PatchStem
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import read_json
from seitpp.runtime.processes import Processes
from seitpp.tokenizers.sources.pixels import read_image
from seitpp.tokens.codebook import embed
from seitpp.tokens.store import TokenStore

ROWS = 9
SHAPE = EncoderConfig(width=12, depth=2, heads=3)


@pytest.fixture
def store(tmp_path):
    return TokenStore(tiny.make_store(tmp_path / "store", tiny.random_ids(ROWS, tiny.CODES, tiny.GRID)))


@pytest.fixture
def encoder(tmp_path):
    return load_model(tiny.make_mtm(tmp_path / "mtm"))[0].encoder


def keep(folder, recipe, *, rows=ROWS, batch_size=4):
    """The features of all rows in a file, made by this process alone."""
    return feature_file(folder, recipe, rows=rows, batch_size=batch_size, team=Processes(make_accelerator("no")))


# How they are made


def test_the_majority_class_is_that_of_the_training_set():
    assert majority_accuracy(np.array([0, 1, 1, 2, 1]), np.array([0, 0, 0, 1])) == 0.25


def test_a_bag_of_tokens_is_the_roots_of_counts(tmp_path):
    ids = torch.tensor([[[0, 3, 3], [3, 3, 1]], [[2, 2, 2], [2, 2, 2]]])
    bags = keep(tmp_path, bag_of_tokens(TokenStore(tiny.make_store(tmp_path / "store", ids, codes=5))), rows=2)
    assert bags == pytest.approx(np.sqrt([[1, 1, 0, 4, 0], [0, 0, 6, 0, 0]]))


def test_pixels_are_those_of_the_stores_keys_in_its_order(images, tmp_path):
    keys = ["cow/003.png", "ant/011.png"]
    store = TokenStore(tiny.make_store(tmp_path / "store", tiny.random_ids(2, tiny.CODES, tiny.GRID), keys=keys))
    found = keep(tmp_path, pixels(images, store, size=(4, 5)), rows=2, batch_size=1)
    expected = [read_image(images / key, (4, 5)).reshape(-1) / 255 for key in keys]
    assert found == pytest.approx(np.array(expected), abs=1e-6)


def test_pixels_of_another_folder_are_refused(images, tmp_path):
    ids = tiny.random_ids(1, tiny.CODES, tiny.GRID)
    store = TokenStore(tiny.make_store(tmp_path, ids, keys=["dog/1.png"]))
    with pytest.raises(UserError, match=r"lacks dog/1\.png"):
        pixels(images, store)


@torch.no_grad()
def test_features_are_normed_cls_tokens_and_means_over_patches_of_the_last_blocks(store, encoder, tmp_path):
    layout = Layout(2, ("cls", "mean"))
    found = keep(tmp_path, encoder_recipe(FrozenEncoder(encoder, store), store, layout, precision="no"))
    assert found.shape == (ROWS, 2, 2, 24)
    for row in range(ROWS):
        x = torch.cat([encoder.cls_token, encoder.embed(store.ids([row])) + encoder.pos_embed], dim=1)
        for place, block in enumerate(encoder.blocks):
            x = block(x)
            normed = encoder.norm(x)[0].numpy()
            assert found[row, place, 0] == pytest.approx(normed[0], abs=1e-5)
            assert found[row, place, 1] == pytest.approx(normed[1:].mean(0), abs=1e-5)
        assert layout.pick(found)[row] == pytest.approx(encoder.pooled(store.ids([row]))[0].numpy(), abs=1e-5)


def test_a_stem_adapter_reads_the_embeddings_of_the_stores_ids(store, tmp_path):
    torch.manual_seed(0)
    classifier = Classifier(SHAPE, view=(2, 4), codebook_size=None, embedding_dim=5, classes=3, stem="adapter").eval()
    frozen = FrozenEncoder(classifier.encoder, store)
    found = keep(tmp_path, encoder_recipe(frozen, store, Layout(), precision="no"))
    inputs = embed(store.ids(range(ROWS))[:, 1:3, 1:5], store.codebook)
    assert found[:, 0, 0] == pytest.approx(classifier.encoder.pooled(inputs).detach().numpy(), abs=1e-5)


@pytest.mark.usefixtures("own_accelerator")
def test_features_come_and_are_kept_in_the_precision_that_is_asked_for(store, encoder, tmp_path):
    exact = keep(tmp_path, encoder_recipe(FrozenEncoder(encoder, store), store, Layout(), precision="no"))
    tiny.forget_accelerator()
    frozen = FrozenEncoder(encoder, store, autocast=make_accelerator("bf16").autocast)
    recipe = encoder_recipe(frozen, store, Layout(), precision="bf16")
    rounded = feature_file(tmp_path, recipe, rows=ROWS, batch_size=4, team=Processes(make_accelerator("bf16")))
    assert (exact.dtype, rounded.dtype) == (np.float32, np.float16)
    assert 1e-4 < np.abs(rounded.astype(np.float32) - exact).max() < 0.05


def test_a_random_encoder_sees_the_view_that_is_asked_for(store):
    config = ProbeConfig(store="", eval_store="", output_dir="", features=("random",), encoder=SHAPE, view=(2, 4))
    torch.manual_seed(4)
    found = open_encoder("random", config, store)
    torch.manual_seed(4)
    expected = TokenEncoder(SHAPE, PatchStem(SHAPE, codebook_size=tiny.CODES, embedding_dim=5), view=(2, 4))
    assert found.view == (2, 4)
    assert all(torch.equal(value, found.state_dict()[name]) for name, value in expected.state_dict().items())


def test_a_classifiers_encoder_can_be_probed_and_says_so(store, tmp_path):
    torch.manual_seed(0)
    classifier = Classifier(SHAPE, view=tiny.GRID, codebook_size=tiny.CODES, embedding_dim=5, classes=2)
    save_classifier(
        tmp_path / "run" / "seed-0" / "weights", classifier, tokenizer="a" * 64, class_names=["a", "b"],
        origin={"init": "mtm", "augmentation": "coloradapt"},
    )  # fmt: skip
    weights = str(tmp_path / "run")
    config = ProbeConfig(store="", eval_store="", output_dir="", weights=weights)
    encoder = open_encoder("mtm", config, store)
    assert torch.equal(encoder.cls_token, classifier.encoder.cls_token)
    assert open_encoder("random", config, store).width == SHAPE.width
    assert feature_origin("mtm", weights) == {"init": "classifier", "augmentation": "coloradapt"}
    assert feature_origin("random", weights) == {"init": "random", "augmentation": ""}


def test_weights_without_an_encoder_are_refused(store, tmp_path):
    weights = str(tiny.make_token_adapt(tmp_path))
    with pytest.raises(UserError, match="is a TokenAdapt, which has no encoder"):
        open_encoder("mtm", ProbeConfig(store="", eval_store="", output_dir="", weights=weights), store)


# The files that keep them


def counting(calls, rows=ROWS, fail_at=None):
    """A recipe of features (row, 2 row), and of whose making is kept in `calls`."""

    def make(batch):
        calls.append(batch.tolist())
        if len(calls) == fail_at:
            raise OSError(28, "No space left on device")
        return np.stack([batch, 2 * batch], axis=1)

    return FeatureRecipe(described={"of": "numbers"}, shape=(2,), dtype=np.float32, make=make)


def test_a_file_of_features_is_found_again_and_says_what_it_holds(tmp_path):
    calls = []
    first = keep(tmp_path / "features", counting(calls))
    assert calls == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    again = keep(tmp_path / "features", counting(calls))
    assert len(calls) == 3
    assert again.tolist() == first.tolist() == [[row, 2 * row] for row in range(ROWS)]
    with pytest.raises(ValueError, match="read-only"):
        again[0] = 1
    described, file = sorted((tmp_path / "features").iterdir())
    assert read_json(described) == {"of": "numbers"}
    assert np.load(file).dtype == np.float32


def test_features_of_anything_else_are_another_file(store, encoder, tmp_path):
    frozen = FrozenEncoder(encoder, store)
    other_weights = FrozenEncoder(load_model(tiny.make_mtm(tmp_path / "other"))[0].encoder, store)
    with torch.no_grad():
        other_weights.encoder.cls_token += 1
    other_view = FrozenEncoder(load_model(tiny.make_mtm(tmp_path / "view"))[0].encoder, store)
    other_view.encoder.set_view((2, 4))
    other_store = TokenStore(tiny.make_store(tmp_path / "b", tiny.random_ids(ROWS, tiny.CODES, tiny.GRID, seed=1)))
    make = partial(encoder_recipe, precision="no")
    recipes = [
        make(frozen, store, Layout()), make(frozen, store, Layout(2)), make(frozen, store, Layout(1, ("cls",))),
        make(frozen, other_store, Layout()), make(other_weights, store, Layout()), make(other_view, store, Layout()),
        make(frozen, store, Layout(), precision="bf16"),
    ]  # fmt: skip
    assert len({each.fingerprint for each in recipes}) == len(recipes)
    assert make(FrozenEncoder(encoder, store), store, Layout()).fingerprint == recipes[0].fingerprint


def test_making_that_fails_leaves_no_file_of_features(tmp_path):
    with pytest.raises(OSError, match="No space left"):
        keep(tmp_path, counting([], fail_at=3))
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]
    assert keep(tmp_path, counting([])).shape == (ROWS, 2)


# Rows of them


@pytest.fixture
def labelled(tmp_path):
    labels = [0, 1, -1, -1, 1, 0, 1, -1, 0]
    ids = tiny.random_ids(ROWS, tiny.CODES, tiny.GRID)
    return open_labelled(tiny.make_store(tmp_path / "labelled", ids, labels=labels))


def test_chunks_hold_every_labelled_row_once_whatever_the_number_of_processes(labelled):
    features = FeatureSet(np.arange(ROWS, dtype=np.float16)[:, None], labelled)
    for count in (1, 2, 3):
        chunks = [each for rank in range(count) for each in features.chunks(2, rank=rank, world_size=count)]
        rows = torch.cat([numbers[:, 0] for numbers, _ in chunks])
        targets = torch.cat([each for _, each in chunks])
        assert sorted(rows.tolist()) == [0, 1, 4, 5, 6, 8]
        assert targets.tolist() == [labelled.labels[int(row)] for row in rows]


def test_training_batches_are_an_epoch_of_the_rows_in_another_order(labelled):
    features = FeatureSet(np.arange(ROWS, dtype=np.float32)[:, None], labelled)
    batch_at = features.training(
        {"batch_size": 2, "seed": 0, "device": "cpu", "accum_iter": 1, "rank": 0, "world_size": 1}
    )
    batches = [batch_at(step, 0) for step in range(3)]
    rows = [int(row) for numbers, _ in batches for row in numbers]
    assert sorted(rows) == [0, 1, 4, 5, 6, 8]
    assert [int(each) for _, targets in batches for each in targets] == [labelled.labels[row] for row in rows]


def test_moments_are_those_of_the_labelled_rows_alone(labelled):
    numbers = np.random.default_rng(0).standard_normal((ROWS, 3, 2)).astype(np.float32) + 1000
    numbers[:, 1, 1] = 0.1
    mean, deviation = FeatureSet(numbers, labelled).moments(size=4)
    own = numbers[[0, 1, 4, 5, 6, 8]].astype(np.float64)
    expected = own.std(0)
    expected[1, 1] = 1
    assert mean.numpy() == pytest.approx(own.mean(0), rel=1e-6)
    assert deviation.numpy() == pytest.approx(expected, rel=1e-4)


def test_features_of_a_part_are_those_of_its_rows(labelled):
    part = FeatureSet(np.arange(ROWS)[:, None], labelled).part(replace(labelled, rows=np.array([4, 6])))
    numbers, targets = part.whole()
    assert numbers.tolist() == [[4], [6]]
    assert targets.tolist() == [1, 1]
