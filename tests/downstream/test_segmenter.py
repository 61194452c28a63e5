"""The segmentation model: four depths, a pyramid, heads; frozen encoders; weights to a folder and back."""

import pytest
import torch
from einops import reduce

import tiny
import tiny_segmentation
from seitpp.downstream.segmentation.heads import FeaturePyramid, HeadConfig, LinearHead, depths_of
from seitpp.downstream.segmentation.segmenter import Segmenter, read_segmenter, save_segmenter
from seitpp.downstream.segmentation.start import start_of, start_segmenter
from seitpp.finetune.classifier import Classifier, save_classifier
from seitpp.mtm.encoder import EncoderConfig
from seitpp.mtm.model import load_model
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import read_json, write_json
from seitpp.tokens.store import open_store
from seitpp.training.optimizer import parameter_groups

ENCODER = EncoderConfig(width=24, depth=3, heads=3, token_dropout=0.2, embedding_std=0.5)
SMALL = {"channels": 12, "auxiliary_channels": 7}
SIZES = {"view": (4, 6), "codebook_size": tiny.CODES, "embedding_dim": 5, "classes": 3}
WINDOWS = {"size": [16, 24], "stride": [16, 24], "short_side": 16, "tile": [16, 24]}


def make_segmenter(kind="upernet", seed=0, **fields):
    torch.manual_seed(seed)
    return Segmenter(ENCODER, HeadConfig(kind=kind, **SMALL), **{**SIZES, **fields})


def ids(count=4, grid=(4, 6)):
    return tiny.random_ids(count, tiny.CODES, grid)


def test_features_are_taken_at_each_quarter_of_the_depth():
    assert depths_of(12) == [2, 5, 8, 11]
    assert depths_of(24) == [5, 11, 17, 23]
    assert depths_of(2) == [0, 0, 1, 1]
    assert depths_of(6) == [1, 2, 4, 5]


def test_the_pyramid_has_four_resolutions_the_third_as_it_comes():
    features = [torch.randn(2, 8, 3, 5) for _ in range(4)]
    levels = FeaturePyramid(8).eval()(features)
    assert [tuple(level.shape) for level in levels] == [(2, 8, 12, 20), (2, 8, 6, 10), (2, 8, 3, 5), (2, 8, 2, 3)]
    assert torch.equal(levels[2], features[2])
    assert torch.equal(levels[3][..., :1, :2], reduce(features[3][..., :2, :4], "b c (h p) (w q) -> b c h w", "max",
                                                      p=2, q=2))  # fmt: skip


def test_logits_are_at_four_times_the_patch_grid_and_the_auxiliary_ones_at_the_grid():
    segmenter = make_segmenter()
    logits, second = segmenter.train()(ids())
    assert (logits.shape, second.shape) == ((4, 3, 8, 12), (4, 3, 2, 3))
    assert segmenter.eval()(ids()).shape == (4, 3, 8, 12)
    assert make_segmenter("linear").eval()(ids()).shape == (4, 3, 2, 3)


def test_every_part_of_upernet_learns():
    segmenter = make_segmenter().train()
    logits, second = segmenter(ids())
    (logits.square().sum() + second.square().sum()).backward()
    # The last block's output before a norm that is not there, and the cls token's, feed nothing but patches.
    still = [name for name, each in segmenter.named_parameters() if each.grad is None or not each.grad.abs().sum() > 0]
    assert [name for name in still if "pos_embed" not in name] == []


def test_a_linear_head_leaves_the_encoder_as_it_is_and_without_dropout():
    segmenter = make_segmenter("linear").train()
    assert not segmenter.encoder.training
    assert not any(each.requires_grad for each in segmenter.encoder.parameters())
    one, other = (segmenter.encoder.pooled(ids()) for _ in range(2))
    assert torch.equal(one, other)
    logits, second = segmenter(ids())
    logits.square().sum().backward()
    assert second is None
    assert all(each.grad is not None for each in segmenter.head.parameters())


def test_the_linear_head_is_batch_norm_and_one_product():
    head = LinearHead(HeadConfig(kind="linear"), width=5, classes=3).eval()
    head.norm.running_mean.copy_(torch.arange(5.0))
    head.norm.running_var.fill_(4.0)
    features = torch.randn(2, 5, 3, 2)
    normed = (features - torch.arange(5.0)[:, None, None]) / (4.0 + head.norm.eps) ** 0.5
    layer = head.classify[1]
    expected = torch.einsum("b d h w, k d -> b k h w", normed, layer.weight[:, :, 0, 0]) + layer.bias[:, None, None]
    assert head([features])[0].detach().numpy() == pytest.approx(expected.detach().numpy(), abs=1e-5)


def test_learning_rates_fall_from_the_head_to_the_stem():
    segmenter = make_segmenter()
    assert segmenter.layer_of("encoder.stem.patches.weight") == 0
    assert segmenter.layer_of("encoder.blocks.2.norm1.weight") == 3
    assert segmenter.layer_of("head.pyramid.levels.0.0.weight") == segmenter.layers == 4
    groups = parameter_groups(
        segmenter, weight_decay=0.05, layer_decay=0.5, layers=segmenter.layers, layer_of=segmenter.layer_of
    )
    assert {group["lr_scale"] for group in groups} == {1.0, 0.5, 0.25, 0.125, 0.0625}
    assert sum(len(group["params"]) for group in groups) == len(list(segmenter.parameters()))


@pytest.mark.parametrize("kind", ["upernet", "linear"])
def test_weights_come_back_from_a_folder(tmp_path, kind):
    segmenter = make_segmenter(kind).eval()
    with torch.no_grad():
        for buffer in segmenter.head.buffers():
            buffer.add_(1)  # statistics of batch norms are part of it
    save(tmp_path / "run" / "weights", segmenter)
    again = read_segmenter(tmp_path / "run")
    assert torch.equal(again(ids()), segmenter(ids()))
    assert (again.mask_classes, again.tokenizer) == (["a", "b", "c"], "a" * 64)
    assert again.windows == WINDOWS
    assert again.origin == {"init": "mtm", "augmentation": ""}
    assert again.frozen == (kind == "linear")


def save(folder, segmenter, classes="abc"):
    save_segmenter(
        folder, segmenter, tokenizer="a" * 64, mask_classes=list(classes), windows=WINDOWS,
        origin={"init": "mtm", "augmentation": ""},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("classes", 300, "classes is 300"),
        ("mask_classes", ["a"], "mask_classes has 1 names for 3 classes"),
        ("view", [4], "view"),
        ("segmenter", {"kind": "psp"}, "HeadConfig"),
        ("windows", {"size": [0, 1], "stride": [1, 1], "short_side": None}, "windows"),
        ("codebook_size", 12, "is not of the model that it says"),
    ],
)
def test_a_config_that_says_something_else_is_refused_in_one_line(tmp_path, field, value, said):
    save(tmp_path / "weights", make_segmenter())
    content = read_json(tmp_path / "weights" / "config.json")
    write_json(tmp_path / "weights" / "config.json", {**content, field: value})
    with pytest.raises(UserError, match=said) as refused:
        read_segmenter(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Windows of 8 x 12 tokens, larger than what the weights of `tiny.make_mtm` have seen."""
    folder = tmp_path_factory.mktemp("start") / "store"
    tiny_segmentation.make_segmentation_store(folder, window=(32, 48), short_side=32)
    return open_store(folder)


def start(store, weights, head="upernet", classes=tiny_segmentation.CLASSES):
    return start_segmenter(
        store, list(classes), HeadConfig(kind=head, **SMALL), weights=weights and str(weights), encoder=ENCODER,
        stem="patches", learned_positions=False, token_dropout=None, drop_path=0.1,
    )  # fmt: skip


def test_a_pre_trained_encoder_sees_the_whole_window_with_its_positions_between(store, tmp_path):
    weights = tiny.make_mtm(tmp_path / "mtm")
    segmenter = start(store, weights)
    trained = load_model(weights)[0].encoder
    assert (segmenter.encoder.view, segmenter.encoder.position_view) == ((8, 12), (4, 6))
    for name, tensor in trained.state_dict().items():
        if not name.startswith("norm."):
            assert torch.equal(segmenter.encoder.state_dict()[name], tensor), name
    trained.set_view((8, 12))
    x = ids(2, (8, 12))
    assert torch.equal(segmenter.eval().encoder(x), trained.eval()(x))


def test_a_classifier_and_another_segmenter_are_starts_too(store, tmp_path):
    torch.manual_seed(1)
    classifier = Classifier(ENCODER, view=(4, 6), codebook_size=tiny.CODES, embedding_dim=5, classes=4)
    origin = {"init": "mtm", "augmentation": "tokenadapt"}
    save_classifier(tmp_path / "c" / "weights", classifier, tokenizer="a" * 64, class_names=list("wxyz"), origin=origin)
    first = start(store, tmp_path / "c")
    assert torch.equal(first.encoder.blocks[1].mlp.fc1.weight, classifier.encoder.blocks[1].mlp.fc1.weight)
    save(tmp_path / "s" / "weights", first, tiny_segmentation.CLASSES)
    second = start(store, tmp_path / "s")
    assert all(torch.equal(one, second.state_dict()[name]) for name, one in first.state_dict().items())
    head = HeadConfig()
    assert start_of(str(tmp_path / "c"), head) == {"init": "mtm+supervised", "augmentation": "tokenadapt"}
    assert start_of(str(tmp_path / "s"), head) == {"init": "mtm", "augmentation": ""}
    assert start_of(None, head)["init"] == "scratch"
    assert start_of(None, HeadConfig(kind="linear"))["init"] == "random"


def test_starts_of_other_tokenizers_classes_and_windows_are_refused(store, tmp_path):
    with pytest.raises(UserError, match="tokenizer bbbbbbbbbbbb"):
        start(store, tiny.make_mtm(tmp_path / "other", fingerprint="b" * 64))
    save(tmp_path / "s" / "weights", start(store, None), tiny_segmentation.CLASSES)
    with pytest.raises(UserError, match="knows other classes than"):
        start(store, tmp_path / "s", classes=("sky", "grass", "river"))
    save(tmp_path / "small" / "weights", make_segmenter(), tiny_segmentation.CLASSES)
    with pytest.raises(UserError, match=r"sees windows of \(4, 6\) tokens, .* has \(8, 12\)"):
        start(store, tmp_path / "small")


def test_weights_of_another_kind_are_no_segmenter(tmp_path):
    run = tiny.make_mtm(tmp_path / "mtm")
    with pytest.raises(UserError, match=r"is no segmenter: give a run of seitpp segmentation$"):
        read_segmenter(run)
