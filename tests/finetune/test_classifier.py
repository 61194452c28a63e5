"""Classifiers: what they compute, where their weights come from, how they are kept."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tiny
from seitpp.finetune.classifier import Classifier, classifier_from_pretraining, read_classifier, save_classifier
from seitpp.mtm.encoder import EncoderConfig
from seitpp.mtm.model import load_model
from seitpp.tokenizers.positions import sincos_positions

ENCODER = EncoderConfig(width=24, depth=2, heads=3, patch_size=2, token_dropout=0.0, embedding_std=0.5)
FROZEN = Path(__file__).parents[1] / "mtm" / "frozen_weights"  # written by seitpp before the encoder had a stem


def make_classifier(**fields):
    torch.manual_seed(0)
    return Classifier(
        ENCODER, **{"view": (4, 6), "codebook_size": tiny.CODES, "embedding_dim": 5, "classes": 3, **fields}
    )


def embeddings(view=(4, 6)):
    return torch.from_numpy(np.random.default_rng(0).standard_normal((2, 5, *view))).float()


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
    loaded = read_classifier(tmp_path)
    fingerprint, names = loaded.tokenizer, loaded.class_names
    assert torch.equal(loaded(ids), classifier(ids))
    assert (fingerprint, names) == ("f" * 64, ["x", "y", "z"])


@torch.no_grad()
def test_a_classifier_can_read_the_cls_token():
    classifier, ids = make_classifier(pooling="cls").eval(), tiny.random_ids(2, tiny.CODES, (4, 6))
    cls = classifier.encoder(ids)[:, 0].double().numpy()
    normed = (cls - cls.mean(1, keepdims=True)) / np.sqrt(cls.var(1, keepdims=True) + 1e-6)
    assert classifier.features(ids).numpy() == pytest.approx(normed, abs=1e-4)


def test_a_stem_that_is_not_known_or_lacks_its_codes_is_refused():
    for wrong in ({"stem": "convolutions"}, {"codebook_size": None}):
        with pytest.raises(ValueError, match="patches, with a codebook_size, adapter or pixels"):
            make_classifier(**wrong)


@torch.no_grad()
@pytest.mark.parametrize("stem", ["patches", "adapter"])
@pytest.mark.parametrize("learned", [False, True])
def test_a_saved_classifier_of_any_kind_and_view_computes_the_same(tmp_path, stem, learned):
    classifier = make_classifier(stem=stem, learned_positions=learned, pooling="cls").eval()
    if learned:
        torch.nn.init.normal_(classifier.encoder.pos_embed)
    classifier.encoder.set_view((8, 4))
    save_classifier(tmp_path / "weights", classifier, tokenizer="f" * 64, class_names=["x", "y", "z"])
    loaded = read_classifier(tmp_path)
    inputs = embeddings((8, 4)) if stem == "adapter" else tiny.random_ids(2, tiny.CODES, (8, 4))
    assert loaded.described == classifier.described
    assert torch.equal(loaded(inputs), classifier(inputs))


@torch.no_grad()
def test_a_classifier_of_a_larger_view_than_its_pre_training_spans_the_same_positions(tmp_path):
    folder = tiny.make_mtm(tmp_path)
    classifier, _ = classifier_from_pretraining(folder, classes=4, view=(8, 10))
    encoder, ids = load_model(folder)[0].encoder, tiny.random_ids(2, tiny.CODES, (8, 10))
    encoder.set_view((8, 10))
    assert torch.equal(classifier.eval().encoder(ids), encoder(ids))
    assert torch.equal(classifier.encoder.pos_embed, sincos_positions(24, (4, 5), spanning=(2, 3)))


@torch.no_grad()
def test_a_classifier_that_was_written_before_there_were_stems_computes_what_it_did():
    expected = load_file(FROZEN / "expected.safetensors")
    classifier = read_classifier(FROZEN / "classifier")
    fingerprint, names = classifier.tokenizer, classifier.class_names
    assert classifier(expected["ids"]).numpy() == pytest.approx(expected["classes"].numpy(), abs=1e-5)
    assert (fingerprint, names) == ("a" * 64, ["ant", "bee", "cow"])
