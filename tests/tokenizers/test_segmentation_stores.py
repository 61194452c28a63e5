"""Segmentation stores: images with label maps become windows of tokens and masks, the same ones after any kill."""

import csv
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange

import segmentation_layouts as layouts
import tiny
from seitpp.runtime.command import run_command
from seitpp.runtime.errors import UserError
from seitpp.store_cli import InfoConfig, info
from seitpp.tokenizers import tokenize as stage
from seitpp.tokenizers.networks.vit_vqgan import TransformerConfig, ViTVQGAN, ViTVQGANConfig
from seitpp.tokenizers.segmentation import window_rows
from seitpp.tokenizers.segmentation.images import read_whole
from seitpp.tokenizers.segmentation.layouts import open_segmentation
from seitpp.tokenizers.segmentation.tiles import tiling_of_store
from seitpp.tokenizers.segmentation.windowing import Windowing, resize_image
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.format.windows import Windows
from seitpp.tokens.store import TokenStore

WINDOW = 48


@pytest.fixture(scope="module")
def ade(tmp_path_factory):
    """The miniature of ADE20K: (its folder, {key: label map})."""
    root = tmp_path_factory.mktemp("ade") / "ADEChallengeData2016"
    return root, layouts.write_ade20k(root)


@pytest.fixture
def config(tmp_path, ade, tokenizer_folder):
    def make(output="store", **fields):
        fields = {
            "images": str(ade[0]), "tokenizer": str(tokenizer_folder), "targets": "masks", "window": WINDOW,
            "short_side": WINDOW, "rows_per_shard": 2, "batch_size": 12, **fields,
        }  # fmt: skip
        return stage.TokenizeConfig(output_dir=str(tmp_path / output), **fields)

    return make


@pytest.fixture
def tokenise(config):
    def start(output="store", **fields):
        stage.main(made := config(output, **fields))
        return TokenStore(made.output_dir)

    return start


def content(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if not path.name.startswith(".")}


def put_together(store):
    """{key of an image: its resized label map}, put together from the store's rows alone; every pixel is written."""
    places, masks, whole = Windows(store.windows_at(range(len(store)))), store.masks_at(range(len(store))), {}
    for row, key in enumerate(store.keys()):
        name, _, place = key.rpartition("#")
        top, left = int(places.top[row]), int(places.left[row])
        assert place == f"{top},{left}"
        height, width = places.resized[row].tolist()
        found = whole.setdefault(name, np.full((height, width), 77, np.uint8))
        part = masks[row][: height - top, : width - left]
        found[top : top + part.shape[0], left : left + part.shape[1]] = part
    return whole


# What a store holds


@pytest.mark.parametrize("layout", ["ade20k", "cityscapes", "voc", "folders"])
def test_label_maps_of_every_layout_can_be_put_together_again(tokenise, tmp_path, layout):
    root = tmp_path / "data"
    truth = getattr(layouts, f"write_{layout}")(root)
    fields = {"images": str(root)}
    if layout == "folders":
        fields = {
            "images": str(root / "images"), "masks": str(root / "masks"), "mask_classes": str(root / "classes.txt")
        }  # fmt: skip
    store = tokenise(**fields)
    store.verify()
    truth = {key: mask for key, mask in truth.items() if "/validation/" not in key}
    whole = put_together(store)
    assert sorted(whole) == sorted(truth)
    for key, mask in truth.items():
        assert np.array_equal(whole[key], layouts.seen(mask, whole[key].shape)), key
        assert min(whole[key].shape) == WINDOW
    originals = {tuple(size) for size in Windows(store.windows_at(range(len(store)))).original.tolist()}
    assert originals == {mask.shape for mask in truth.values()}


def test_images_that_keep_their_size_are_padded_where_they_are_smaller_than_a_window(tokenise, ade):
    store = tokenise(short_side=0)
    truth = {key: mask for key, mask in ade[1].items() if "/training/" in key}
    whole = put_together(store)
    assert all(np.array_equal(whole[key], mask) for key, mask in truth.items())
    small = store.keys().index("images/training/ADE_train_00000003.jpg#0,0")  # of 29 x 37 pixels
    mask = store.masks_at([small])[0]
    assert mask.shape == (WINDOW, WINDOW)
    assert (mask[29:] == 255).all()
    assert (mask[:, 37:] == 255).all()


def test_tokens_are_those_of_the_windows_pixels(tokenise, tokenizer_folder, ade):
    store, tokenizer = tokenise(window_stride=20), load_tokenizer(tokenizer_folder)
    assert store.grid == (12, 12)
    places = Windows(store.windows_at(range(len(store))))
    for row, key in enumerate(store.keys()):
        pixels = resize_image(read_whole(ade[0] / key.rpartition("#")[0]), tuple(places.resized[row].tolist()))
        top, left = int(places.top[row]), int(places.left[row])
        window = torch.from_numpy(pixels[top : top + WINDOW, left : left + WINDOW].copy())
        expected = tokenizer.encode(rearrange(window, "h w c -> 1 c h w") / 255.0)
        assert torch.equal(store.ids([row]), expected), key
    assert len(store) > 5 * 2


def test_the_manifest_says_how_the_windows_were_made(tokenise):
    store = tokenise(window_stride=20)
    manifest = store.manifest
    assert manifest["windows"] == {
        "size": [48, 48], "stride": [20, 20], "short_side": 48, "tile": [48, 48]
    }  # fmt: skip
    assert Windowing.of(manifest) == Windowing(size=(48, 48), stride=(20, 20), short_side=48)
    assert manifest["mask"]["ignore"] == 255
    assert (len(manifest["mask"]["classes"]), manifest["mask"]["classes"][1]) == (150, "building")
    assert manifest["preprocessing"]["resize"] == "bicubic, short side, windows"
    assert (store.classes, set(store.labels.tolist())) == ([], {-1})
    assert store.columns == ("tokens", "label", "key", "mask", "window")


def test_label_maps_at_their_own_size_are_kept_unless_the_images_are_for_training(tokenise, ade):
    train, val = tokenise("train"), tokenise("val", split="val")
    assert "truth" not in train.columns
    val.verify()
    places, truths = Windows(val.windows_at(range(len(val)))), val.truths_at(range(len(val)))
    first = places.image_bounds()[:-1].tolist()
    assert [row for row, each in enumerate(truths) if each is not None] == first
    for row in first:
        key = val.keys(range(row, row + 1))[0].rpartition("#")[0]
        assert np.array_equal(truths[row], ade[1][key]), key
    assert "truth" in tokenise("kept", own_size=True).columns
    assert val.size.masks == sum(val.content(range(len(val)))[name].sum() for name in ("mask", "truth"))


def test_tiles_of_the_tokenizers_size_are_encoded_where_they_are_asked_for(tokenise, tokenizer_folder):
    whole, tiled = tokenise("whole"), tokenise("tiled", tiles=True)
    assert tiled.manifest["windows"]["tile"] == [16, 24]
    assert tiled.keys() == whole.keys()
    assert not torch.equal(tiled.ids(range(len(tiled))), whole.ids(range(len(whole))))


def test_other_splits_hold_other_images_and_the_same_classes(tokenise):
    train, val = tokenise("train"), tokenise("val", split="val")
    assert val.manifest["mask"] == train.manifest["mask"]
    assert all(key.startswith("images/validation/ADE_val_") for key in val.keys())  # noqa: SIM118 (not a dict)


def test_a_tokenizer_of_fixed_size_gives_the_grid_of_its_tiles(tokenise, tmp_path):
    torch.manual_seed(3)
    shape = TransformerConfig(width=32, depth=1, heads=1, mlp=32)
    config = ViTVQGANConfig(image_size=(16, 24), patch_size=4, encoder=shape, decoder=shape, codebook_size=37)
    ViTVQGAN(config).save(tmp_path / "fixed")
    store = tokenise(tokenizer=str(tmp_path / "fixed"))
    store.verify()
    assert (store.grid, store.manifest["windows"]["tile"]) == ((12, 12), [16, 24])
    tiling = tiling_of_store(load_tokenizer(tmp_path / "fixed"), store.manifest)
    images = tiling.decode(store.ids([0, 1]))
    assert images.shape == (2, 3, 48, 48)
    assert torch.allclose(images[1, :, 32:, :24], tiling.tokenizer.decode(store.ids([1])[:, 8:, :6])[0], atol=1e-5)


def test_a_test_set_has_the_classes_of_its_training_set(tokenise, tmp_path):
    train = tokenise("train")
    assert len(tokenise("val", split="val", like=str(train.folder)))
    layouts.write_voc(tmp_path / "voc")
    plain = tiny.make_store(tmp_path / "plain", tiny.random_ids(3, tiny.CODES, tiny.GRID))
    for like, words in (
        (train.folder, "has 150 classes, the masks have 21 others"),
        (plain, "is no segmentation store"),
    ):
        with pytest.raises(UserError, match=words):
            tokenise("other", images=str(tmp_path / "voc"), like=str(like))


def test_a_coded_store_has_the_same_rows(tokenise):
    plain, coded = tokenise("plain", rows_per_shard=60), tokenise("coded", rows_per_shard=60, coding="auto")
    coded.verify()
    rows = range(len(plain))
    assert torch.equal(coded.ids(rows), plain.ids(rows))
    assert np.array_equal(coded.windows_at(rows), plain.windows_at(rows))
    assert all(np.array_equal(*pair) for pair in zip(coded.masks_at(rows), plain.masks_at(rows), strict=True))


def test_the_last_line_counts_images_and_windows(tokenise, capsys):
    store = tokenise()
    assert capsys.readouterr().out.endswith(f"store: 5 images, {len(store)} windows, 0 skipped\n")


def test_info_tells_bytes_of_masks_apart(tokenise, capsys):
    store = tokenise()
    capsys.readouterr()
    info(InfoConfig(store=str(store.folder)))
    said = capsys.readouterr().out
    assert f"tokens {144 * len(store):,}, " in said
    assert f"masks {sum(store.content(range(len(store)))['mask']):,}, " in said
    assert f"windows     {len(store)} of 48 x 48 pixels" in said
    assert "masks       150: wall, building, sky, class 4, class 5, …; 255 is ignored" in said


# Kills, processes, memory


def test_shards_and_batches_do_not_change_what_is_stored(tokenise):
    one, other = tokenise("one", rows_per_shard=60, batch_size=64), tokenise("other", rows_per_shard=1, batch_size=1)
    assert one.keys() == other.keys()
    rows = range(len(one))
    assert torch.equal(one.ids(rows), other.ids(rows))
    assert np.array_equal(one.windows_at(rows), other.windows_at(rows))


def test_a_started_store_is_finished_with_the_same_bytes(tokenise, config, tmp_path):
    tokenise("whole")
    tokenise("cut")
    for name in ("shard-00001.arrow", "shard-00002.json", "store.json"):
        (tmp_path / "cut" / name).unlink()
    stage.main(config("cut"))
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


@pytest.mark.parametrize(
    "fields",
    [{"window_stride": 20}, {"short_side": 60}, {"window": 96}, {"tiles": True}, {"split": "val"}, {"own_size": True}],
)
def test_a_store_of_other_windows_is_refused(tokenise, fields):
    tokenise()
    with pytest.raises(UserError, match="holds a store of other input"):
        tokenise(**fields)


def test_a_store_whose_annotations_changed_their_size_is_refused(tokenise, tmp_path):
    layouts.write_voc(tmp_path / "voc")
    tokenise(images=str(tmp_path / "voc"))
    layouts.write_mask(
        tmp_path / "voc" / "SegmentationClass" / "2007_000000.png", np.zeros((61, 97), np.uint8), palette=True
    )
    with pytest.raises(UserError, match="have other sizes now"):
        tokenise(images=str(tmp_path / "voc"))


@pytest.mark.slow
def test_killed_at_random_moments_the_store_is_that_of_an_uninterrupted_run(config, tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["seitpp.tokenizers.tokenize", "accelerate", "diffusers.models.autoencoders.vq_model"]
    )
    root = tmp_path / "many"
    layouts.write_voc(root, layouts.scenes(layouts.SIZES * 8, classes=21))
    killed = config("killed", images=str(root), rows_per_shard=1)
    for shards in (3, 17):
        process = context.Process(target=stage.main, args=(killed,))
        process.start()
        while len(list(Path(killed.output_dir).glob("shard-*.json"))) < shards and process.is_alive():
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    stage.main(killed)
    stage.main(config("whole", images=str(root), rows_per_shard=1))
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


@pytest.mark.slow
def test_two_processes_make_the_store_that_one_makes(config, tokenise, tmp_path):
    several = config("several", rows_per_shard=1)
    words = [word for name, value in vars(several).items() if value is not None for word in (f"--{name}", str(value))]
    done = tiny.run(
        "-m", "torch.distributed.run", "--nproc_per_node", 2, "--master_port", 0, "--standalone",
        "-m", "seitpp.tokenizers.tokenize", *words, ACCELERATE_USE_CPU="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    tokenise("one", rows_per_shard=1)
    assert content(tmp_path / "several") == content(tmp_path / "one")


def test_few_images_are_in_memory_at_a_time(config, tmp_path, monkeypatch):
    """The most that is open is that of the images ahead, however many there are."""
    root, open_now, most = tmp_path / "many", set(), []
    layouts.write_voc(root, layouts.scenes([(48, 48)] * 40, classes=21))
    images = open_segmentation(root)
    rows = window_rows.window_rows(
        images, load_tokenizer(config().tokenizer), Windowing(size=(48, 48), stride=(48, 48))
    )
    read = type(images).read_pair

    def counted(self, index):
        open_now.add(index)
        return read(self, index)

    monkeypatch.setattr(type(images), "read_pair", counted)
    with stage.ThreadPoolExecutor(2) as threads:
        for block in rows.blocks(images, range(40), torch.device("cpu"), threads, 12):
            most.append(len(open_now))
            open_now -= set(block.kept)
    assert max(most) <= window_rows.IMAGES_AHEAD + 4
    assert not open_now


# What is wrong


def test_an_image_that_is_broken_is_skipped_and_one_whose_annotation_is_ends_the_job(
    tokenise, config, tmp_path, capsys
):
    root = tmp_path / "voc"
    layouts.write_voc(root)
    image = root / "JPEGImages" / "2007_000001.jpg"
    whole = image.read_bytes()
    image.write_bytes(whole[:100])
    store = tokenise(images=str(root), max_skipped=0.5)
    rows = list(csv.reader((store.folder / "skipped.csv").read_text().splitlines()))
    assert [row[0] for row in rows] == ["file", "JPEGImages/2007_000001.jpg"]
    assert sorted(set(Windows(store.windows_at(range(len(store)))).image.tolist())) == [0, 2, 3, 4]
    image.write_bytes(whole)
    layouts.write_mask(root / "SegmentationClass" / "2007_000001.png", np.full((83, 50), 33, np.uint8), palette=True)
    fields = vars(config("other", images=str(root)))
    words = [f"--{name}={value}" for name, value in fields.items() if value is not None]
    with pytest.raises(SystemExit) as ended:
        run_command(stage.main, stage.TokenizeConfig, recipes="tokenize", argv=words)
    assert ended.value.code == 1
    assert "2007_000001.png has the value 33" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "other" / "store.json").exists()


def test_an_image_that_is_a_line_is_skipped(tokenise, tmp_path):
    root = tmp_path / "voc"
    layouts.write_voc(root, [*layouts.scenes(classes=21), np.zeros((4, 200), np.uint8)])
    store = tokenise(images=str(root), max_skipped=0.5)
    assert "longer than 32 times" in (store.folder / "skipped.csv").read_text()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"window": 50}, "windows of 50 x 50 pixels are no multiple of 4 x 4"),
        ({"window": 64, "tiles": True}, "no multiple of 16 x 24"),
        ({"window_stride": 49}, "window_stride = 49 must lie between 1 and --window"),
        ({"short_side": -1}, "short_side = -1"),
        ({"mask_ignore": 0}, "--mask_ignore is for --layout folders"),
        ({"layout": "voc"}, "no folders JPEGImages"),
        ({"layout": "voc", "masks": "x"}, "--masks x is for --layout folders"),
        ({"targets": "labels", "layout": "voc"}, "layout = 'voc' is for --targets masks"),
        ({"split": "test"}, "choose --split among training, validation"),
    ],
)
def test_flags_that_do_not_fit_are_refused_before_anything_is_written(config, tmp_path, fields, words):
    with pytest.raises(UserError, match=words) as raised:
        stage.main(config(**fields))
    tiny.one_line(str(raised.value))
    assert not (tmp_path / "store").exists()
