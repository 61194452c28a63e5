"""Published classifiers become runs, which read ids and are fine-tuned on."""

import argparse

import pytest
import torch

import published
import tiny
from seitpp.finetune import import_model
from seitpp.finetune.classifier import read_classifier
from seitpp.runtime.errors import UserError
from seitpp.tokens.codebook import nearest_code

KINDS = {"classifier": "ids", "stem_adapter_classifier": "embedding"}


@pytest.fixture
def store(tmp_path):
    codebook = published.recording("codebook")["codebook"]
    classes = [f"c{number}" for number in range(10)]
    ids = tiny.random_ids(3, 391, (28, 28))
    return tiny.make_store(tmp_path / "store", ids, codes=391, codebook=codebook, lookup="cosine", classes=classes)


def import_from(tmp_path, store, content, **fields):
    torch.save(content, tmp_path / "file.pth")
    config = import_model.ImportModelConfig(
        kind="classifier", checkpoint=str(tmp_path / "file.pth"), store=str(store), heads=3,
        output_dir=str(tmp_path / "run"), **fields,
    )  # fmt: skip
    import_model.main(config)
    return read_classifier(tmp_path / "run")


@torch.no_grad()
@pytest.mark.parametrize("name", KINDS)
def test_parity_of_a_published_classifier_that_became_a_run(name, store, tmp_path):
    recorded = published.recording(name)
    content = {"model": published.published_weights(name), "args": argparse.Namespace(lr=1e-3)}
    classifier = import_from(tmp_path, store, content)
    assert published.largest_difference(classifier(recorded[KINDS[name]]), recorded["logits"]) < 1e-4
    assert classifier.class_names[:2] == ["c0", "c1"]


@torch.no_grad()
def test_a_stem_adapter_reads_the_ids_of_the_store_that_it_was_imported_for(store, tmp_path):
    recorded = published.recording("stem_adapter_classifier")
    classifier = import_from(tmp_path, store, {"model": published.published_weights("stem_adapter_classifier")})
    codebook = classifier.encoder.stem.codebook
    ids = nearest_code(recorded["embedding"], codebook)
    looked_up = codebook[ids].permute(0, 3, 1, 2)
    assert torch.equal(classifier(ids), classifier(looked_up))


def test_the_average_beside_the_weights_is_taken_where_it_is_asked_for(store, tmp_path):
    weights = published.published_weights("classifier")
    average = {name: 0.5 * tensor for name, tensor in weights.items()}
    classifier = import_from(tmp_path, store, {"model": weights, "model_ema": average}, ema=True)
    assert torch.equal(classifier.head.weight, 0.5 * weights["head.weight"])


def test_an_average_that_is_not_there_is_said(store, tmp_path):
    with pytest.raises(UserError, match="holds no averaged weights"):
        import_from(tmp_path, store, {"model": published.published_weights("classifier")}, ema=True)
    assert not (tmp_path / "run" / "weights").exists()
