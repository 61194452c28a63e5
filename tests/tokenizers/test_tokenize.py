"""Tokenising: a folder of images becomes a store, also when it was stopped, also when images are broken."""

import csv
import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from seitpp.runtime.command import run_command
from seitpp.runtime.errors import UserError
from seitpp.tokenizers import tokenize as stage
from seitpp.tokenizers.sources.images import open_image_folder, read_all
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.store import TokenStore


@pytest.fixture
def tokenise(tmp_path, tokenizer_folder):
    def start(images, output="store", **fields):
        fields = {"tokenizer": str(tokenizer_folder), "rows_per_shard": 8, "batch_size": 3, **fields}
        config = stage.TokenizeConfig(images=str(images), output_dir=str(tmp_path / output), **fields)
        stage.main(config)
        return TokenStore(config.output_dir)

    return start


@pytest.fixture
def own_images(tmp_path):
    """A folder of the test's own: 2 classes of 6 + 4 images and 2 unlabelled ones."""
    folder = tiny.make_images(tmp_path / "own", {"ant": 6, "bee": 4})
    for index in range(2):
        Image.new("RGB", (20, 16), (50, 60 * index, 70)).save(folder / f"root {index}.png")
    return folder


def content(folder):
    """{name: bytes} of a store; hidden names are leftovers that no reader opens."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if not path.name.startswith(".")}


def break_file(path):
    path.write_bytes(path.read_bytes()[:50])


# What a store holds


def test_what_is_left_out_is_counted_on_the_last_line_and_listed(tokenise, own_images, capsys):
    (own_images / "ant" / "a.xyz").touch()
    (own_images / "ant" / "b.png").symlink_to("nowhere")
    (own_images / ".ipynb_checkpoints").mkdir()
    break_file(own_images / "bee" / "001.png")
    store = tokenise(own_images, max_skipped=0.5)
    assert (
        capsys.readouterr()
        .out.splitlines()[-1]
        .endswith(
            "store: 11 images, 2 classes, 1 skipped; left out: 1 hidden or system folder, 1 of unknown format .xyz, "
            f"1 broken link, see {store.folder}/skipped.csv"
        )
    )
    with (Path(store.folder) / "skipped.csv").open() as file:
        rows = {row["file"]: row["reason"] for row in csv.DictReader(file)}
    assert rows.pop("bee/001.png")
    assert rows == {
        ".ipynb_checkpoints": "hidden or system folder", "ant/a.xyz": "of unknown format .xyz",
        "ant/b.png": "broken link",
    }  # fmt: skip


def test_a_store_says_how_its_images_were_resized_and_a_test_set_follows_it(tokenise, images, tokenizer_folder):
    """Without --resize it is what it was before there was one: the same fingerprint, the same words."""
    crop, pad = tokenise(images), tokenise(images, "pad", resize="pad")
    assert crop.manifest["preprocessing"]["resize"] == "bicubic, short side, centre crop"
    assert pad.manifest["preprocessing"]["resize"] == "bicubic, long side, white border"
    assert crop.tokenizer["fingerprint"] == load_tokenizer(tokenizer_folder).fingerprint
    assert pad.tokenizer["fingerprint"] == load_tokenizer(tokenizer_folder, resize="pad").fingerprint
    assert pad.tokenizer != crop.tokenizer
    assert tokenise(images, "test", like=str(pad.folder)).tokenizer == pad.tokenizer
    assert tokenise(images, "other", like=str(pad.folder), resize="crop").tokenizer == crop.tokenizer
    with pytest.raises(UserError, match="their ids mean different things"):
        pad.check_tokenizer(crop.tokenizer["fingerprint"], "the other")


@pytest.mark.parametrize("resize", ["crop", "pad", "squash"])
def test_ids_are_those_of_the_resized_images(tokenise, tmp_path, tokenizer_folder, resize):
    folder = tiny.make_images(tmp_path / "wide", {"ant": 4}, size=(16, 96))
    store, tokenizer = tokenise(folder, resize=resize), load_tokenizer(tokenizer_folder)
    expected = tokenizer.encode(read_all(open_image_folder(folder), range(4), tiny.IMAGE_SIZE, resize))
    assert torch.equal(store.ids(range(4)), expected)


def test_a_store_of_another_resize_is_another_input(tokenise, images):
    tokenise(images)
    with pytest.raises(UserError, match="holds a store of other input"):
        tokenise(images, resize="squash")


def test_ids_are_those_of_the_tokenizer_image_by_image(tokenise, images, tokenizer_folder):
    store = tokenise(images)
    store.verify()
    folder, tokenizer = open_image_folder(images), load_tokenizer(tokenizer_folder)
    assert store.keys() == folder.keys
    for row in range(len(folder)):
        expected = tokenizer.encode(read_all(folder, [row], tiny.IMAGE_SIZE))
        assert torch.equal(store.ids([row]), expected)


def test_labels_are_class_folders_and_minus_one_at_the_root(tokenise, own_images):
    store = tokenise(own_images)
    assert store.classes == ["ant", "bee"]
    assert dict(zip(store.keys(), store.labels.tolist(), strict=True)) == {
        **{f"ant/{index:03d}.png": 0 for index in range(6)},
        **{f"bee/{index:03d}.png": 1 for index in range(4)},
        "root 0.png": -1,
        "root 1.png": -1,
    }


def test_the_store_knows_its_tokenizer(tokenise, images, tokenizer_folder):
    store, tokenizer = tokenise(images), load_tokenizer(tokenizer_folder)
    assert store.tokenizer == {"name": "vq", "fingerprint": tokenizer.fingerprint}
    assert torch.equal(store.codebook, tokenizer.codebook)
    assert store.lookup == tokenizer.lookup
    assert store.grid == tiny.GRID
    assert store.manifest["preprocessing"]["image_size"] == [16, 24]


def test_tars_give_the_store_that_their_folder_gives(tokenise, images, tmp_path):
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        for path in sorted(images.rglob("*.png")):
            tar.add(path, arcname=path.relative_to(images))
    from_tar, from_folder = tokenise(tmp_path / "all.tar", "tar"), tokenise(images, "folder")
    assert content(from_tar.folder) == content(from_folder.folder)


def test_a_data_set_of_torchvision_is_tokenised_by_name(tokenise, images, tmp_path):
    store = tokenise("torch/image_folder", "named", root=str(images))
    assert content(store.folder) == content(tokenise(images, "folder").folder)


@pytest.mark.parametrize("workers", [1, 5])
def test_the_number_of_decoding_threads_changes_nothing(tokenise, images, workers):
    assert content(tokenise(images, "few", workers=workers).folder) == content(tokenise(images, "usual").folder)


@pytest.mark.parametrize("field", [{"workers": 0}, {"batch_size": 0}, {"rows_per_shard": 0}, {"max_skipped": 1.5}])
def test_fields_out_of_range_are_refused_by_name(tokenise, images, field):
    with pytest.raises(UserError, match=f"TokenizeConfig: {next(iter(field))} = "):
        tokenise(images, **field)


@pytest.mark.parametrize(("rows_per_shard", "batch_size"), [(30, 64), (7, 2), (1, 1)])
def test_shards_and_batches_do_not_change_what_is_stored(tokenise, images, rows_per_shard, batch_size):
    usual = tokenise(images, "usual")
    other = tokenise(images, "other", rows_per_shard=rows_per_shard, batch_size=batch_size)
    assert len(other.manifest["shards"]) == -(-30 // rows_per_shard)
    assert torch.equal(other.ids(range(30)), usual.ids(range(30)))


def test_a_test_set_keeps_the_classes_of_its_training_set(tokenise, images, tmp_path):
    tokenise(images, "train")
    few = tiny.make_images(tmp_path / "few", {"cow": 2})
    store = tokenise(few, "test", like=str(tmp_path / "train"))
    assert store.classes == ["ant", "bee", "cow"]
    assert store.labels.tolist() == [2, 2]


def test_unusual_images_are_stored_like_any_other(tokenise, tmp_path):
    folder = tmp_path / "odd" / "ant"
    folder.mkdir(parents=True)
    Image.new("L", (9, 30), 90).save(folder / "grey.png")
    Image.new("RGBA", (50, 20), (1, 2, 3, 100)).save(folder / "transparent.png")
    Image.new("P", (24, 16)).save(folder / "palette.gif")
    Image.fromarray(np.full((20, 20), 40000, np.uint16)).save(folder / "deep.png")
    Image.new("RGB", (1, 1), (9, 9, 9)).save(folder / "one pixel.bmp")
    Image.new("CMYK", (20, 30), (0, 255, 255, 0)).save(folder / "print.jpg")
    Image.new("RGB", (9000, 3), (9, 9, 9)).save(folder / "long.png")
    store = tokenise(tmp_path / "odd")
    assert len(store) == 7
    store.verify()


# Broken images


def test_broken_images_are_skipped_and_listed(tokenise, own_images, tmp_path):
    break_file(own_images / "ant" / "002.png")
    (own_images / "bee" / "000.png").write_text("no image at all")
    Image.new("1", (14000, 14000)).save(own_images / "bee" / "001.png")  # far more pixels than bytes: an attack?
    store = tokenise(own_images, max_skipped=0.3)
    store.verify()
    assert len(store) == 9
    assert not {"ant/002.png", "bee/000.png", "bee/001.png"} & set(store.keys())
    with (tmp_path / "store" / "skipped.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["ant/002.png", "bee/000.png", "bee/001.png"]
    for row, reason in zip(rows, ("truncated", "it is no image of a format", "exceeds limit"), strict=True):
        assert reason in row["reason"]


def test_a_shard_of_nothing_but_broken_images_is_no_harm(tokenise, own_images):
    for index in range(4):
        break_file(own_images / "ant" / f"{index:03d}.png")
    store = tokenise(own_images, max_skipped=0.5, rows_per_shard=4)
    store.verify()
    assert [shard["rows"] for shard in store.manifest["shards"]] == [0, 4, 4]


def test_too_many_broken_images_are_one_line_and_exit_code_1(own_images, tokenizer_folder, tmp_path, capsys):
    break_file(own_images / "ant" / "002.png")
    flags = {"images": own_images, "tokenizer": tokenizer_folder, "output_dir": tmp_path / "store"}
    argv = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    with pytest.raises(SystemExit) as stopped:
        run_command(stage.main, stage.TokenizeConfig, recipes="tokenize", argv=argv)
    assert stopped.value.code == 1
    line = tiny.one_line(capsys.readouterr().err)
    assert line.startswith("error: 1 of 12 images can't be decoded (first: ")
    assert "ant/002.png" in line
    assert line.endswith("skipped.csv): mend them, or raise --max_skipped")
    assert not (tmp_path / "store" / "store.json").exists()


def test_broken_images_that_were_mended_are_read_by_the_same_command(tokenise, own_images):
    path = own_images / "ant" / "002.png"
    whole = path.read_bytes()
    break_file(path)
    with pytest.raises(UserError, match="can't be decoded"):
        tokenise(own_images)
    path.write_bytes(whole)
    assert len(tokenise(own_images)) == 12


def test_a_folder_without_images_is_refused(tokenise, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        tokenise(tmp_path / "empty")


# Stopped and started again


def test_the_same_command_again_changes_nothing(tokenise, images):
    before = content(tokenise(images).folder)
    assert content(tokenise(images).folder) == before


def test_a_shard_that_is_missing_is_made_again(tokenise, images, tmp_path):
    before = content(tokenise(images).folder)
    (tmp_path / "store" / "shard-00002.arrow").unlink()
    with pytest.raises(UserError, match="it makes only this shard"):
        TokenStore(tmp_path / "store")
    assert content(tokenise(images).folder) == before


def test_another_input_in_the_same_folder_is_refused(tokenise, images, test_images, own_images):
    tokenise(images)
    with pytest.raises(UserError, match=r"holds a store of other input \(images differs\).*--resume none"):
        tokenise(test_images)
    with pytest.raises(UserError, match="rows_per_shard differs"):
        tokenise(images, rows_per_shard=9)
    assert len(tokenise(test_images, resume="none")) == 12


def test_a_store_of_another_tokenizer_is_refused(tokenise, images, tmp_path):
    tokenise(images)
    other = tiny.make_tokenizer(tmp_path / "other", seed=9)
    with pytest.raises(UserError, match=r"holds a store of other input \(tokenizer differs\)"):
        tokenise(images, tokenizer=str(other))


def test_the_same_images_with_other_labels_are_refused(tokenise, tmp_path):
    pixels = io.BytesIO()
    Image.new("RGB", (20, 16)).save(pixels, "PNG")
    for name, numbers in (("a", "01"), ("b", "10")):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as tar:
            for row, number in enumerate(numbers):
                for ending, content in (("png", pixels.getvalue()), ("cls", number.encode())):
                    info = tarfile.TarInfo(f"{row}.{ending}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    tokenise(tmp_path / "a.tar")
    with pytest.raises(UserError, match=r"holds a store of other input \(labels differs\)"):
        tokenise(tmp_path / "b.tar")


def test_another_folder_of_as_many_images_is_refused(tokenise, own_images, tmp_path):
    tokenise(own_images)
    (own_images / "ant" / "005.png").rename(own_images / "ant" / "999.png")
    with pytest.raises(UserError, match="holds a store of other input"):
        tokenise(own_images)


def test_images_that_were_replaced_under_their_names_are_other_input(tokenise, own_images):
    tokenise(own_images)
    Image.new("RGB", (64, 64), (1, 2, 3)).save(own_images / "bee" / "001.png")
    with pytest.raises(UserError, match=r"store of other input \(images of shard-00000.arrow have other sizes now\)"):
        tokenise(own_images)
    tokenise(own_images, resume="none").verify()


def test_images_that_are_copied_and_moved_are_the_same_input(tokenise, own_images, tmp_path):
    store = tokenise(own_images)
    moved = shutil.copytree(own_images, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    assert tokenise(moved).fingerprint == store.fingerprint
    assert "sizes" not in store.manifest["shards"][0]


def test_images_that_were_skipped_may_be_mended(tokenise, own_images):
    whole = (own_images / "bee" / "001.png").read_bytes()
    break_file(own_images / "bee" / "001.png")
    store = tokenise(own_images, max_skipped=0.5)
    (own_images / "bee" / "001.png").write_bytes(whole)
    assert tokenise(own_images, max_skipped=0.5).fingerprint == store.fingerprint


def test_shards_of_older_versions_are_believed(tokenise, own_images, tmp_path):
    store = tokenise(own_images)
    for sidecar in (tmp_path / "store").glob("shard-*.json"):
        content = json.loads(sidecar.read_text())
        sidecar.write_text(json.dumps({name: value for name, value in content.items() if name != "sizes"}))
    assert tokenise(own_images).fingerprint == store.fingerprint


# Entropy-coded


def test_a_store_may_be_coded_as_it_is_made(tokenise, tmp_path):
    images = tiny.make_images(tmp_path / "many", {"ant": 70, "bee": 70})
    plain = tokenise(images, "plain", rows_per_shard=60)
    store = tokenise(images, "coded", rows_per_shard=60, coding="auto")
    assert store.manifest["coding"] == "rans"
    assert torch.equal(store.ids(range(140)), plain.ids(range(140)))
    assert store.labels.tolist() == plain.labels.tolist()
    assert store.size.total < plain.size.total
    store.verify()


def test_a_coded_store_is_not_coded_again_and_is_no_store_of_another_coding(tokenise, tmp_path):
    images = tiny.make_images(tmp_path / "many", {"ant": 70, "bee": 70})
    store = tokenise(images, rows_per_shard=60, coding="auto")
    before = {path.name: path.read_bytes() for path in Path(store.folder).iterdir() if path.suffix == ".arrow"}
    (Path(store.folder) / "shard-00001.arrow").unlink()  # made again, and coded as it was
    store = tokenise(images, rows_per_shard=60, coding="auto")
    assert {path.name: path.read_bytes() for path in Path(store.folder).iterdir() if path.suffix == ".arrow"} == before
    with pytest.raises(UserError, match="coding differs"):
        tokenise(images, rows_per_shard=60)
    anew = tokenise(images, rows_per_shard=60, resume="none")
    assert anew.manifest["coding"] == "planes"
    assert not (Path(anew.folder) / "coding.safetensors").exists()


def test_few_images_stay_packed_where_tables_cost_more(tokenise, own_images):
    assert tokenise(own_images, coding="auto").manifest["coding"] == "planes"
