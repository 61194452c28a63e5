"""From drawn images and label maps to mIoU: the commands of the documentation on a tiny form of the drawn set."""

import sys

import numpy as np
import pytest
from PIL import Image

import tiny
from seitpp.downstream.segmentation import predict_command
from seitpp.downstream.segmentation.heads import HeadConfig
from seitpp.downstream.segmentation.scores import Confusion, count_pixels
from seitpp.downstream.segmentation.train import SegmentationConfig, segmentation
from seitpp.downstream.segmentation.views import ViewsConfig
from seitpp.mtm.encoder import EncoderConfig
from seitpp.runtime.results import read_results
from seitpp.tokenizers.tokenize import TokenizeConfig
from seitpp.tokenizers.tokenize import main as tokenize
from seitpp.tokens.store import open_store


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A set of 60 and 8 images with few emoji, and stores of it by an untrained tokenizer of 8 x 8 pixels a token."""
    folder = tmp_path_factory.mktemp("drawn")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(tiny.ROOT / "examples"), *sys.path])
        from segmentation_set import draw_set

        draw_set(folder / "set", {"training": 60, "validation": 8}, few=8)
    tokenizer = tiny.make_tokenizer(folder / "tokenizer", image_size=(64, 64), codes=64)
    for split, stride in (("train", 32), ("val", 48)):
        tokenize(
            TokenizeConfig(
                images=str(folder / "set"), tokenizer=str(tokenizer), output_dir=str(folder / split), targets="masks",
                layout="ade20k", mask_classes=str(folder / "set" / "classes.txt"), short_side=0, window=64,
                window_stride=stride, split=split,
            )
        )  # fmt: skip
    return folder


def test_drawn_label_maps_have_every_class_and_differ_from_image_to_image(drawn):
    names = (drawn / "set" / "classes.txt").read_text().split()
    assert names[0] == "ground"
    maps = [np.asarray(Image.open(path)) for path in sorted((drawn / "set" / "annotations").rglob("*.png"))]
    assert set(np.unique(np.concatenate([each.ravel() for each in maps]))) == set(range(len(names) + 1))
    sizes = {each.shape for each in maps}
    assert any(height > width for height, width in sizes)
    assert any(height < width for height, width in sizes)
    shares = [np.mean(each == 1) for each in maps]
    assert 0.2 < np.mean(shares) < 0.95


@pytest.mark.slow
def test_a_trained_segmenter_beats_each_tokens_commonest_class_on_drawn_images(drawn, tmp_path):
    store = open_store(drawn / "train")
    config = SegmentationConfig(
        store=str(drawn / "train"), eval_store=str(drawn / "val"), output_dir=str(tmp_path / "run"), dataset="drawn",
        encoder=EncoderConfig(width=48, depth=4, heads=3, embedding_std=0.4, token_dropout=0.0, patch_size=2),
        head=HeadConfig(channels=24, auxiliary_channels=16), steps=220, batch_size=16, lr=4e-3, warmup_steps=20,
        layer_decay=1.0, drop_path=0.0, baseline=True, mixed_precision="no", pictures=4, clip_grad=3.0,
        augment=ViewsConfig(scale=(1.0, 1.0)), tokenizer=str(drawn / "tokenizer"),
    )  # fmt: skip
    segmentation(config)
    results = read_results([tmp_path / "run"])
    mious = results[results.metric == "miou"].set_index("protocol").value
    assert mious["upernet"] > mious["token_majority"] + 0.02, mious
    with Image.open(tmp_path / "run" / "seed-0" / "segmentation.png") as picture:
        assert picture.size[1] == 3 * 64 + 2 * 2  # decoded tokens, truth, answer
    assert "#" in store.keys(range(0, 1))[0]

    # The command for new images says what the evaluation measured: the same windows, tokens and label maps.
    predict_command.segment(
        predict_command.SegmentConfig(
            files=(str(drawn / "set" / "images" / "validation"),), weights=str(tmp_path / "run"),
            tokenizer=str(drawn / "tokenizer"), output_dir=str(tmp_path / "pictures"), stride=48,
            mixed_precision="no",
        )
    )  # fmt: skip
    counts = 0
    for file in sorted((drawn / "set" / "annotations" / "validation").glob("*.png")):
        truth = np.asarray(Image.open(file)).astype(np.int64) - 1
        truth[truth < 0] = 255
        answer = np.asarray(Image.open(tmp_path / "pictures" / f"{file.stem}.classes.png"))
        counts = counts + count_pixels(truth.astype(np.uint8), answer, len(store.manifest["mask"]["classes"]))
    assert Confusion(counts).measures()["miou"] == pytest.approx(mious["upernet"], abs=1e-3)
