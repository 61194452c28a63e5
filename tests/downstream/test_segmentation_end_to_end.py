"""From drawn images and label maps to mIoU: the commands of the documentation on a tiny form of the drawn set."""

import sys

import numpy as np
import pytest
from PIL import Image

import tiny
import tiny_segmentation
from seitpp.downstream.segmentation import predict_command
from seitpp.downstream.segmentation.heads import HeadConfig
from seitpp.downstream.segmentation.scores import Confusion, count_pixels
from seitpp.downstream.segmentation.train import SegmentationConfig, segmentation
from seitpp.downstream.segmentation.views import ViewsConfig
from seitpp.mtm.encoder import EncoderConfig
from seitpp.runtime.results import read_results
from seitpp.tokenizers.tokenize import TokenizeConfig
from seitpp.tokenizers.tokenize import main as tokenize


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A set of 12 and 6 images with two emoji, and stores of it by an untrained tokenizer of 8 x 8 pixels a token."""
    folder = tmp_path_factory.mktemp("drawn")
    _drawing().draw_set(folder / "set", {"training": 12, "validation": 6}, few=2)
    _tokenize(folder, tiny.make_tokenizer(folder / "tokenizer", image_size=(64, 64), codes=64), strides=(32, 48))
    return folder


def _drawing():
    """The module of examples/ that draws the set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(tiny.ROOT / "examples"), *sys.path])
        import segmentation_set

        return segmentation_set


def _tokenize(folder, tokenizer, *, strides):
    """Stores FOLDER/train and FOLDER/val of FOLDER/set."""
    for split, stride in zip(("train", "val"), strides, strict=True):
        tokenize(
            TokenizeConfig(
                images=str(folder / "set"), tokenizer=str(tokenizer), output_dir=str(folder / split), targets="masks",
                layout="ade20k", mask_classes=str(folder / "set" / "classes.txt"), short_side=0, window=64,
                window_stride=stride, split=split,
            )
        )  # fmt: skip


def test_drawn_label_maps_have_their_emojis_classes_on_grounds_of_many_sizes(drawn):
    names = (drawn / "set" / "classes.txt").read_text().split()
    assert names[0] == "ground"
    assert len(names) == 9
    maps = [np.asarray(Image.open(path)) for path in sorted((drawn / "set" / "annotations").rglob("*.png"))]
    assert set(np.unique(np.concatenate([each.ravel() for each in maps]))) == {0, 1, 2, 3}  # ground, two emoji, edges
    assert any(each.shape[0] > each.shape[1] for each in maps)
    assert any(each.shape[0] < each.shape[1] for each in maps)
    assert 0.4 < np.mean([np.mean(each == 1) for each in maps]) < 0.95


def test_new_images_are_segmented_as_the_evaluation_measures_them(drawn, tmp_path):
    """The same windows, tokens and answers, at the images' own size: the pictures' mIoU is the result's."""
    config = SegmentationConfig(
        store=str(drawn / "train"), eval_store=str(drawn / "val"), output_dir=str(tmp_path / "run"), dataset="drawn",
        encoder=EncoderConfig(width=24, depth=2, heads=3, embedding_std=0.4, token_dropout=0.0),
        head=HeadConfig(channels=12, auxiliary_channels=8), steps=6, batch_size=8, lr=4e-3, mixed_precision="no",
        class_weights=(0.1, *[1.0] * 8), pictures=4, tokenizer=str(drawn / "tokenizer"),
    )  # fmt: skip
    segmentation(config)
    results = read_results([tmp_path / "run"])
    miou = results[results.metric == "miou"].value.item()
    with Image.open(tmp_path / "run" / "seed-0" / "segmentation.png") as picture:
        assert picture.size[1] == 3 * 64 + 2 * 2  # decoded tokens, truth, answer
    predict_command.segment(
        predict_command.SegmentConfig(
            files=(str(drawn / "set" / "images" / "validation"),), weights=str(tmp_path / "run"),
            tokenizer=str(drawn / "tokenizer"), output_dir=str(tmp_path / "pictures"), stride=48,
            mixed_precision="no",
        )
    )  # fmt: skip
    counts = np.zeros((9, 9), np.int64)
    for file in sorted((drawn / "set" / "annotations" / "validation").glob("*.png")):
        values = np.asarray(Image.open(file))
        truth = np.where(values == 0, 255, values - 1).astype(np.uint8)
        answer = np.asarray(Image.open(tmp_path / "pictures" / f"{file.stem}.classes.png"))
        counts += count_pixels(truth, answer, 9)
    assert Confusion(counts).measures()["miou"] == pytest.approx(miou, abs=1e-3)


def test_a_trained_segmenter_beats_each_tokens_commonest_class_where_labels_depend_on_place(tmp_path, monkeypatch):
    """Four classes, of which tokens tell two pairs apart, and the half of the image the members of a pair."""
    of_mask = tiny_segmentation.token_ids
    monkeypatch.setattr(
        tiny_segmentation, "token_ids", lambda mask, **more: of_mask(np.where(mask == 255, 255, mask % 2), **more)
    )
    for name, seed, count in (("train", 0, 48), ("val", 500, 12)):
        pairs = [tiny_segmentation.make_scene(16, 24, seed=seed + place, classes=2) for place in range(count)]
        right = np.arange(24) >= 12
        masks = [np.where(pair == 255, pair, pair + 2 * right).astype(np.uint8) for pair in pairs]
        tiny_segmentation.make_segmentation_store(
            tmp_path / name, [(16, 24)] * count, masks=masks, classes=("a", "b", "c", "d"), images_per_shard=20
        )
    config = SegmentationConfig(
        store=str(tmp_path / "train"), eval_store=str(tmp_path / "val"), output_dir=str(tmp_path / "run"),
        encoder=EncoderConfig(width=24, depth=2, heads=3, embedding_std=0.5, token_dropout=0.0),
        head=HeadConfig(channels=16, auxiliary_channels=8), steps=100, batch_size=12, lr=4e-3, layer_decay=1.0,
        drop_path=0.0, baseline=True, mixed_precision="no", pictures=0, augment=ViewsConfig(scale=(1.0, 1.0), flip=0.0),
    )  # fmt: skip
    segmentation(config)
    results = read_results([tmp_path / "run"])
    mious = results[results.metric == "miou"].set_index("protocol").value
    assert mious["token_majority"] < 0.45
    assert mious["upernet"] > mious["token_majority"] + 0.1, mious


@pytest.mark.slow
def test_on_the_easy_drawn_set_a_segmenter_learns_what_tokens_alone_do_not_tell(tmp_path):
    """Eight emoji of four categories; the tokenizer is untrained, so that its codes say less than a trained one's."""
    drawing = _drawing()
    drawing.draw_set(tmp_path / "set", {"training": 50, "validation": 12}, few=drawing.FEW, style=drawing.EASY)
    maps = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "set" / "images").rglob("*.png"))]
    assert {side % 16 for each in maps for side in each.shape[:2]} == {0}
    _tokenize(
        tmp_path, tiny.make_tokenizer(tmp_path / "tokenizer", image_size=(64, 64), codes=64), strides=(None, None)
    )
    config = SegmentationConfig(
        store=str(tmp_path / "train"), eval_store=str(tmp_path / "val"), output_dir=str(tmp_path / "run"),
        encoder=EncoderConfig(width=64, depth=4, heads=4, embedding_std=0.2, token_dropout=0.1),
        head=HeadConfig(channels=32, auxiliary_channels=32), steps=150, batch_size=12, lr=2e-3, warmup_steps=15,
        clip_grad=3.0, layer_decay=1.0, baseline=True, mixed_precision="no", pictures=0,
        class_weights=(0.3, *[1.0] * 4), augment=ViewsConfig(scale=(1.0, 1.0)),
    )  # fmt: skip
    segmentation(config)
    results = read_results([tmp_path / "run"])
    mious = results[results.metric == "miou"].set_index("protocol").value
    assert mious["upernet"] > mious["token_majority"] + 0.03, mious
