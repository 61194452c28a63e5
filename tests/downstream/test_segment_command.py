"""`seitpp segment`: the classes of the pixels of new images, as index PNGs and overlays."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import tiny
from seitpp.downstream.segmentation import predict_command as stage
from seitpp.downstream.segmentation.heads import HeadConfig
from seitpp.downstream.segmentation.palette import coloured, palette_of, voc_colour
from seitpp.downstream.segmentation.segmenter import Segmenter, read_segmenter, save_segmenter
from seitpp.mtm.encoder import EncoderConfig
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tokenizer of 16 x 24 pixels, a segmenter with random weights, images of several sizes and kinds."""
    folder = tmp_path_factory.mktemp("segment")
    tokenizer = load_tokenizer(tiny.make_tokenizer(folder / "tokenizer"))
    torch.manual_seed(4)
    segmenter = Segmenter(
        EncoderConfig(width=24, depth=2, heads=3, embedding_std=1.0), HeadConfig(channels=12, auxiliary_channels=8),
        view=tiny.GRID, codebook_size=tiny.CODES, embedding_dim=5, classes=5,
    )  # fmt: skip
    torch.nn.init.normal_(segmenter.head.classify[1].weight)
    save_segmenter(
        folder / "run" / "weights", segmenter, tokenizer=tokenizer.fingerprint, mask_classes=list("abcde"),
        windows={"size": [16, 24], "stride": [16, 24], "short_side": None, "tile": [16, 24]},
        origin={"init": "scratch", "augmentation": ""},
    )  # fmt: skip
    random = np.random.default_rng(0)
    (folder / "photos" / "inside").mkdir(parents=True)
    sizes = {"window.png": (16, 24), "odd.png": (21, 37), "inside/tall.png": (40, 9)}
    for name, size in sizes.items():
        Image.fromarray(random.integers(256, size=(*size, 3), dtype=np.uint8)).save(folder / "photos" / name)
    Image.fromarray(random.integers(256, size=(18, 30), dtype=np.uint8)).save(folder / "photos" / "grey.png")
    return folder


def segment(world, output, *files, **fields):
    stage.segment(
        stage.SegmentConfig(
            files=tuple(map(str, files or (world / "photos",))), weights=str(world / "run"),
            tokenizer=str(world / "tokenizer"), output_dir=str(output), mixed_precision="no", **fields,
        )
    )  # fmt: skip


def by_hand(world, file):
    """Labels of an image of a window's size."""
    tokenizer, segmenter = load_tokenizer(world / "tokenizer"), read_segmenter(world / "run")
    pixels = torch.from_numpy(np.asarray(Image.open(file)).copy()).movedim(-1, 0)[None].float() / 255
    with torch.no_grad():
        logits = segmenter(tokenizer.encode(pixels))
    return F.interpolate(logits, size=(16, 24), mode="bilinear", align_corners=False)[0].argmax(0).numpy()


def test_each_image_gets_its_classes_at_its_own_size_and_an_overlay(world, tmp_path):
    segment(world, tmp_path / "out")
    found = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png"))
    names = ["grey", "inside/tall", "odd", "window"]
    assert found == sorted(f"{name}.{kind}.png" for name in names for kind in ("classes", "overlay"))
    for name in names:
        sizes = {
            np.asarray(Image.open(path)).shape[:2]
            for path in (world / "photos" / f"{name}.png", *(tmp_path / "out").glob(f"{name}.*.png"))
        }
        assert len(sizes) == 1
    index = Image.open(tmp_path / "out" / "window.classes.png")
    assert index.mode == "P"
    labels = by_hand(world, world / "photos" / "window.png")
    assert len(np.unique(labels)) > 1
    assert np.array_equal(np.asarray(index), labels)
    assert np.array_equal(np.asarray(index.convert("RGB")), coloured(labels.astype(np.uint8), 5))


@pytest.mark.parametrize("opacity", [0.0, 1.0])
def test_the_overlay_lies_between_the_image_and_its_colours(world, tmp_path, opacity):
    file = world / "photos" / "window.png"
    segment(world, tmp_path / "out", file, opacity=opacity)
    overlay = np.asarray(Image.open(tmp_path / "out" / "window.overlay.png"))
    colours = coloured(by_hand(world, file).astype(np.uint8), 5)
    assert np.array_equal(overlay, colours if opacity else np.asarray(Image.open(file)))


def test_the_batch_size_changes_nothing_and_stride_and_flips_do(world, tmp_path):
    kinds = {"usual": {}, "single": {"batch_size": 1}, "denser": {"stride": 3}, "flipped": {"flip": True}}
    for name, fields in kinds.items():
        segment(world, tmp_path / name, world / "photos" / "odd.png", **fields)
    usual, *others = (np.asarray(Image.open(tmp_path / name / "odd.classes.png")) for name in kinds)
    assert [np.array_equal(usual, other) for other in others] == [True, False, False]


def test_the_same_command_again_replaces_its_pictures_and_nothing_else(world, tmp_path):
    file = world / "photos" / "window.png"
    segment(world, tmp_path / "out", file)
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    segment(world, tmp_path / "out", file)
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    foreign = tmp_path / "out" / "window.classes.png"
    Image.new("L", (3, 3)).save(foreign)
    mine = foreign.read_bytes()
    with pytest.raises(UserError, match="is there already and is not a picture of seitpp segment"):
        segment(world, tmp_path / "out", file)
    assert foreign.read_bytes() == mine


def test_an_image_that_is_broken_is_one_line_and_the_others_go_on(world, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with pytest.raises(SystemExit) as stopped:
        segment(world, tmp_path / "out", tmp_path / "broken.png", world / "photos" / "window.png")
    assert stopped.value.code == 1
    said = capsys.readouterr()
    errors = [line for line in said.err.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert "broken.png" in errors[0]
    assert "1 of 2 images" in said.out
    assert (tmp_path / "out" / "window.overlay.png").is_file()


def test_what_can_not_be_drawn_is_refused_before_anything_is_written(world, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "window.png").write_bytes((world / "photos" / "window.png").read_bytes())
    with pytest.raises(UserError, match="would both be"):
        segment(world, tmp_path / "out", world / "photos" / "window.png", tmp_path / "more" / "window.png")
    with pytest.raises(UserError, match="there is no file or folder"):
        segment(world, tmp_path / "out", tmp_path / "nowhere.png")
    with pytest.raises(UserError, match="stride"):
        segment(world, tmp_path / "out", stride=40)
    other = tiny.make_tokenizer(tmp_path / "tokenizer", seed=1)
    with pytest.raises(UserError, match="tokenizer"):
        stage.segment(
            stage.SegmentConfig(
                files=(str(world / "photos"),), weights=str(world / "run"), tokenizer=str(other),
                output_dir=str(tmp_path / "out"),
            )
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_colours_are_ade20ks_own_for_150_classes_and_differ_for_any_number():
    ade = palette_of(150)
    assert [ade[number].tolist() for number in (0, 1, 2, 149)] == [
        [120, 120, 120], [180, 120, 120], [6, 230, 230], [92, 0, 255]
    ]  # wall, building, sky, flag  # fmt: skip
    assert [voc_colour(number) for number in (0, 1, 2, 3, 8, 15, 20)] == [
        (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (64, 0, 0), (192, 128, 128), (0, 64, 128)
    ]  # background, aeroplane, bicycle, bird, cat, person, tvmonitor  # fmt: skip
    assert len(np.unique(palette_of(255), axis=0)) == 255
