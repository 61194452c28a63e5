"""The published classifiers of SeiT and SeiT++: read, written, refused where they are something else."""

import pytest
import torch

import published
import tiny
from seitpp.finetune.classifier import Classifier
from seitpp.finetune.published import from_published, to_published
from seitpp.mtm.encoder import EncoderConfig
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.positions import sincos_positions

ENCODER = EncoderConfig(width=24, depth=2, heads=3, token_dropout=0.0, embedding_std=0.5)
KINDS = {"classifier": ("patches", "ids"), "stem_adapter_classifier": ("adapter", "embedding")}


def make_classifier(**fields):
    torch.manual_seed(0)
    shape = {"view": (4, 6), "codebook_size": tiny.CODES, "embedding_dim": 5, "classes": 3}
    return Classifier(ENCODER, **{**shape, **fields}).eval()


@pytest.fixture(params=KINDS)
def release(request):
    """(published weights, recording, what it reads, the stem) of a classifier."""
    stem, inputs = KINDS[request.param]
    recorded = published.recording(request.param)
    return published.published_weights(request.param), recorded, recorded[inputs], stem


@torch.no_grad()
def test_parity_of_the_published_classifiers_features_and_logits(release):
    weights, recorded, inputs, stem = release
    classifier = from_published(weights, "it", heads=3)
    assert classifier.described["stem"] == stem
    assert published.largest_difference(classifier.features(inputs), recorded["features"]) < 1e-4
    assert published.largest_difference(classifier(inputs), recorded["logits"]) < 1e-4


@torch.no_grad()
def test_parity_of_a_classifier_that_went_to_published_names_and_back(release):
    weights, recorded, inputs, _ = release
    names = {name: tensor.clone() for name, tensor in weights.items()}
    classifier = from_published(weights, "it", heads=3)
    assert all(torch.equal(weights[name], tensor) for name, tensor in names.items())
    written = to_published(classifier)
    assert written.keys() == weights.keys()
    assert {name: each.shape for name, each in written.items()} == {name: each.shape for name, each in weights.items()}
    for name in weights.keys() - {"cls_token", "pos_embed"}:
        assert torch.equal(written[name], weights[name]), name
    # The position of the cls token is part of it: their sum is what the model reads.
    cls = [each["cls_token"] + each["pos_embed"][:, :1] for each in (written, weights)]
    assert torch.equal(*cls)
    assert torch.equal(written["pos_embed"][:, 1:], weights["pos_embed"][:, 1:])
    again = from_published(written, "it", heads=3)
    assert torch.equal(again(inputs), classifier(inputs))
    assert published.largest_difference(again(inputs), recorded["logits"]) < 1e-4


@torch.no_grad()
def test_a_classifier_of_ours_becomes_a_published_one_with_its_positions_as_a_table():
    classifier, ids = make_classifier(view=(4, 4)), tiny.random_ids(2, tiny.CODES, (4, 4))
    weights = to_published(classifier)
    assert torch.equal(weights["pos_embed"][0, 1:], sincos_positions(24, (2, 2)))
    assert not weights["pos_embed"][0, 0].any()
    read = from_published(weights, "it", heads=3)
    assert read.encoder.learned_positions
    assert torch.equal(read(ids), classifier(ids))


def test_parity_recordings_with_a_frozen_token_adapt_beside_them_load_as_well(release):
    weights, _, inputs, _ = release
    whole = weights | published.published_weights("tokenadapt")
    assert torch.equal(from_published(whole, "it", heads=3)(inputs), from_published(weights, "it", heads=3)(inputs))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda w: w.pop("head.weight"), "'head.weight' is missing"),
        (lambda w: w.pop("norm.bias"), r"lacks norm.bias"),
        (lambda w: w.update(mask_token_label=torch.zeros(1, 1, 24)), "unknown mask_token_label"),
        (lambda w: w.pop("token_emb.word_embeddings.weight"), r"2 x 2, expected 4 x 4"),
        (lambda w: w.update(pos_embed=w["pos_embed"][:, :4]), "3 patches are no square"),
        (lambda w: w.update(pos_embed=w["pos_embed"][0]), "odd shape"),
    ],
)
def test_weights_of_another_model_are_refused_in_one_line(spoil, message):
    weights = to_published(make_classifier(view=(4, 4)))
    spoil(weights)
    with pytest.raises(UserError, match=message) as refused:
        from_published(weights, "it.pth", heads=3)
    assert "it.pth" in tiny.one_line(str(refused.value))


def test_heads_that_do_not_follow_from_the_width_are_asked_for():
    with pytest.raises(UserError, match=r"width 24.*--heads"):
        from_published(to_published(make_classifier(view=(4, 4))), "it")


def test_what_the_published_classifiers_lack_is_not_exported_in_silence():
    with pytest.raises(UserError, match="pools by cls, the published ones by mean"):
        to_published(make_classifier(pooling="cls"))
    classifier = make_classifier()
    classifier.encoder.register_tokens = torch.nn.Parameter(torch.zeros(1, 1, 24))
    with pytest.raises(UserError, match=r"encoder\.register_tokens"):
        to_published(classifier)
