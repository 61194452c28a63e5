"""The classifier of SeiT++: what it computes, where its weights come from, how it is kept."""

import numpy as np
import pytest
import torch

import published
import tiny
from seitpp.finetune.classifier import Classifier, classifier_from_pretraining, load_classifier, save_classifier
from seitpp.mtm.encoder import EncoderConfig
from seitpp.mtm.model import load_model

ENCODER = EncoderConfig(width=24, depth=2, heads=3, patch_size=2, token_dropout=0.0, embedding_std=0.5)
PARTS = [
    ("token_emb.word_embeddings", "encoder.embeddings"),
    ("token_emb.LayerNorm", "encoder.embedding_norm"),
    ("patch_embed.proj", "encoder.patches"),
]


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
