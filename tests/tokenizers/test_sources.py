"""Sources of images: folders, tar files and data sets are read by the same rules, in any order, by many threads."""

import gzip
import io
import os
import pickle
import shutil
import struct
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

import tiny
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.given import GivenImages
from seitpp.tokenizers.sources.images import open_image_folder
from seitpp.tokenizers.sources.pixels import read_image
from seitpp.tokenizers.sources.selected import SelectedImages
from seitpp.tokenizers.sources.source import open_source, source_fingerprint

SIZE = tiny.IMAGE_SIZE


def png(seed, size=(9, 7)):
    """Bytes of a PNG of random pixels, (height, width)."""
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(256, size=(*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_tar(path, members, mode="w"):
    """Write {name: bytes} as a tar; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def labelled(source):
    """{key: class name}, None where unlabelled."""
    names = [*source.classes, None]
    return {key: names[label] for key, label in zip(source.keys, source.labels, strict=True)}


def assert_reads(source, index, content):
    """The pixels of one image are those of the encoded bytes."""
    assert source.read(index, SIZE).tolist() == read_image(io.BytesIO(content), SIZE).tolist()


def assert_fulfils_the_contract(source, count):
    assert len(source) == len(source.keys) == len(source.labels) == count
    assert len(set(source.keys)) == count
    assert all(isinstance(key, str) for key in source.keys[: count // 2])
    assert source.labels.dtype == np.int32
    assert source.labels.min() >= -1
    assert source.labels.max() < max(1, len(source.classes))
    assert source.read(count - 1, SIZE).shape == (3, *SIZE)
    assert source.read(count - 1, SIZE).dtype == np.uint8
    assert source.where(0)


# Folders


def test_a_folder_is_a_source(images):
    source = open_source(images)
    assert_fulfils_the_contract(source, 30)
    assert source.where(29) == str(images / "cow/007.png")


def test_a_source_is_known_by_the_names_classes_and_sizes_of_its_images(tmp_path):
    folder = tiny.make_images(tmp_path / "photos", {"ant": 3, "bee": 2})
    known = source_fingerprint(open_source(folder))
    copy = shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)  # with times of its own
    assert source_fingerprint(open_source(copy)) == known
    changes = {
        "content": lambda path: (path / "ant/000.png").write_bytes(png(1)),
        "added": lambda path: shutil.copy(path / "ant/000.png", path / "ant/zzz.png"),
        "removed": lambda path: (path / "bee/000.png").unlink(),
        "name": lambda path: (path / "bee/000.png").rename(path / "bee/00.png"),
        "class": lambda path: (path / "bee").rename(path / "cow"),
    }
    found = {known}
    for name, change in changes.items():
        other = shutil.copytree(folder, tmp_path / name)
        change(other)
        found.add(source_fingerprint(open_source(other)))
    assert len(found) == 1 + len(changes)


def test_sizes_are_those_of_the_encoded_images(tmp_path):
    content = {"ant/a.png": png(1), "bee/b.png": png(2, (3, 4)), "bee/c.png": png(3, (12, 4))}
    for name, image in content.items():
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(image)
    sizes = [len(image) for image in content.values()]
    folder = open_source(tmp_path / "photos")
    tar = open_source(write_tar(tmp_path / "photos.tar", content))
    for source in (folder, tar):
        assert source.sizes([2, 0]).tolist() == [sizes[2], sizes[0]]
        assert SelectedImages(source, np.array([1, 2])).sizes([1, 0]).tolist() == [sizes[2], sizes[1]]
        assert source.sizes(range(0)).tolist() == []
    assert GivenImages([str(tmp_path / "photos/ant/a.png")]).sizes([0]).tolist() == [0]  # nobody says


# Tar files


def test_class_folders_inside_a_tar_are_its_classes(tmp_path):
    members = {
        "ant/b.png": png(1),
        "ant/sub/a.PNG": png(2),
        "root.png": png(3),
        "cow/x.y.png": png(4),
        "notes.txt": b"x",
    }
    source = open_source(write_tar(tmp_path / "photos.tar", members))
    assert_fulfils_the_contract(source, 4)
    assert labelled(source) == {"ant/b.png": "ant", "ant/sub/a.PNG": "ant", "root.png": None, "cow/x.y.png": "cow"}
    for index, key in enumerate(source.keys):
        assert_reads(source, index, members[key])
    assert source.where(3) == f"{tmp_path / 'photos.tar'}, cow/x.y.png"


@pytest.mark.parametrize("around", ["", "./", "photos/", "./data/photos/"])
def test_folders_around_everything_are_no_class(tmp_path, around):
    members = {f"{around}{name}": png(0) for name in ("ant/1.png", "bee/2.png")}
    source = open_source(write_tar(tmp_path / "a.tar", members))
    assert source.classes == ["ant", "bee"]
    assert source.keys == [name.removeprefix("./") for name in members]


def test_a_tar_made_by_packing_a_folder_holds_the_same_images_and_labels(images, tmp_path):
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        tar.add(images, arcname=".")
    packed, folder = open_source(tmp_path / "all.tar"), open_image_folder(images)
    assert labelled(packed) == labelled(folder)
    order = [packed.keys.index(key) for key in folder.keys]
    for index, place in enumerate(order):
        assert packed.read(place, SIZE).tolist() == folder.read(index, SIZE).tolist()


def test_numbers_beside_images_are_their_classes(tmp_path):
    members = {
        "s/0001.png": png(1), "s/0001.cls": b"2", "s/0001.seg.png": png(9), "s/0002.png": png(2), "s/0002.cls": b"0\n",
        "s/0003.png": png(3), "s/0003.json": b"{}", "s/0004.cls": b"1",
    }  # fmt: skip
    source = open_source(write_tar(tmp_path / "a.tar", members))
    assert labelled(source) == {"s/0001.png": "2", "s/0002.png": "0", "s/0003.png": None}
    assert source.classes == ["0", "1", "2"]
    named = open_source(tmp_path / "a.tar", classes=["ant", "bee", "cow", "dog"])
    assert labelled(named) == {"s/0001.png": "cow", "s/0002.png": "ant", "s/0003.png": None}


def test_names_with_dots_have_their_own_class_numbers(tmp_path):
    members = {"a.v2.png": png(1), "a.v2.cls": b"1", "a.v3.png": png(2), "a.v3.cls": b"0", "b.c.d.png": png(3)}
    source = open_source(write_tar(tmp_path / "a.tar", members))
    assert labelled(source) == {"a.v2.png": "1", "a.v3.png": "0", "b.c.d.png": None}
    assert source.left_out == []
    for index, key in enumerate(source.keys):
        assert_reads(source, index, members[key])


def test_the_only_image_of_a_sample_is_its_image_whatever_its_name(tmp_path):
    members = {"1.cls": b"1", "1.img.png": png(1), "2.cls": b"0", "2.left.png": png(2), "2.right.png": png(3)}
    source = open_source(write_tar(tmp_path / "a.tar", members))
    assert labelled(source) == {"1.img.png": "1"}
    assert {each.file: each.kind for each in source.left_out} == {
        "2.left.png": "another image of a sample", "2.right.png": "another image of a sample"
    }  # fmt: skip


def test_what_a_tar_holds_besides_is_said(tmp_path):
    members = {
        "ant/a.png": png(1), "ant/._a.png": b"x", "__MACOSX/ant/b.png": b"x", "@eaDir/c.png": b"x", "ant/d.xyz": b"x"
    }  # fmt: skip
    path = write_tar(tmp_path / "a.tar", members)
    with tarfile.open(path, "a") as tar:
        for name, kind, target in (
            ("bee/hard.png", tarfile.LNKTYPE, "ant/a.png"), ("bee/soft.png", tarfile.SYMTYPE, "../ant/a.png"),
            ("bee/gone.png", tarfile.SYMTYPE, "nowhere.png"), ("bee/pipe.png", tarfile.FIFOTYPE, ""),
        ):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    source = open_source(path)
    assert labelled(source) == {"ant/a.png": "ant", "bee/hard.png": "bee", "bee/soft.png": "bee"}
    for index in range(3):
        assert_reads(source, index, png(1))
    assert {each.file: each.kind for each in source.left_out} == {
        "ant/._a.png": "hidden or system file", "__MACOSX/ant/b.png": "hidden or system file",
        "@eaDir/c.png": "hidden or system file", "ant/d.xyz": "of unknown format .xyz", "bee/gone.png": "broken link",
        "bee/pipe.png": "no regular file",
    }  # fmt: skip


def test_texts_beside_numbered_images_are_parts_of_their_samples(tmp_path):
    members = {"1.png": png(1), "1.cls": b"0", "1.json": b"{}", "1.txt": b"x", "2.json": b"{}"}
    source = open_source(write_tar(tmp_path / "a.tar", members))
    assert [(each.file, each.kind) for each in source.left_out] == [("2.json", "of unknown format .json")]


@pytest.mark.parametrize("spec", ["a.tar", "*.tar", "{a..a}.tar", "", "b{1..2}.tar"])
def test_tars_in_a_folder_with_brackets_in_its_name_are_found(tmp_path, spec):
    folder = tmp_path / "d [1] {0..1} *"
    name = "b{1..2}.tar" if spec.startswith("b") else "a.tar"
    write_tar(folder / name, {"x.png": png(0)})
    if "a..a" in spec:
        with pytest.raises(UserError, match="does not exist"):
            open_source(folder / spec)
    else:
        assert open_source(f"{folder}/{spec}").keys == ["x.png"]


def test_files_beside_tars_are_left_out_and_system_folders_do_no_harm(tmp_path):
    write_tar(tmp_path / "0.tar", {"x.png": png(0)})
    (tmp_path / "y.png").write_bytes(png(1))
    (tmp_path / "@eaDir").mkdir()
    source = open_source(tmp_path)
    assert source.keys == ["x.png"]
    assert [(each.file, each.kind) for each in source.left_out] == [("y.png", "beside tar files")]


def test_a_tar_of_parts_or_with_names_that_are_not_utf8_is_refused(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"photos/train/ant/1.png": png(0), "photos/test/ant/2.png": png(1)})
    with pytest.raises(UserError, match=r"a\.tar is split already \(test, train\)"):
        open_source(path)
    with tarfile.open(tmp_path / "b.tar", "w", encoding="latin-1", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("caf\xe9.png"))
    with pytest.raises(UserError, match=r"b\.tar: the name of caf\\xe9\.png is not UTF-8"):
        open_source(tmp_path / "b.tar")


def test_the_class_number_may_come_before_the_image(tmp_path):
    members = {"7.cls": b"1", "7.png": png(1), "8.png": png(2), "8.cls": b"0"}
    assert open_source(write_tar(tmp_path / "a.tar", members)).labels.tolist() == [1, 0]


@pytest.mark.parametrize("spec", ["{0008..0011}.tar", "*.tar", "{0008..0009}.tar + folder", ""])
def test_several_tars_are_one_source_in_the_order_of_their_names(tmp_path, spec):
    contents = {}
    for number in range(8, 12):
        members = {f"{name}.png": png(10 * number + name) for name in range(number - 7)}
        contents |= {f"{number:04d}/{name}": content for name, content in members.items()}
        write_tar(tmp_path / "train" / f"{number:04d}.tar", members)
    if "+" in spec:
        spec = "{0008..0011}.tar"
        (tmp_path / "train" / "more").mkdir()
    source = open_source(f"{tmp_path}/train/{spec}".rstrip("/"))
    assert source.keys == list(contents)
    assert source.classes == []
    assert source.labels.tolist() == [-1] * 10
    for index, content in enumerate(contents.values()):
        assert_reads(source, index, content)
    assert source.where(9) == f"{tmp_path}/train/0011.tar, 3.png"


def test_tars_of_one_name_are_told_apart_by_their_folders(tmp_path):
    for name in ("a", "b"):
        write_tar(tmp_path / name / "0.tar", {"x.png": png(0)})
    assert open_source(f"{tmp_path}/*/0.tar").keys == ["a/0/x.png", "b/0/x.png"]


def test_a_member_written_twice_is_the_later_one(tmp_path):
    write_tar(tmp_path / "a.tar", {"x.png": png(1)})
    with tarfile.open(tmp_path / "a.tar", "a") as tar:
        info = tarfile.TarInfo("x.png")
        info.size = len(png(2))
        tar.addfile(info, io.BytesIO(png(2)))
    source = open_source(tmp_path / "a.tar")
    assert source.keys == ["x.png"]
    assert_reads(source, 0, png(2))


def test_shards_that_webdataset_wrote_are_read(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.ShardWriter(str(tmp_path / "%03d.tar"), maxcount=3, verbose=0) as sink:
        for index in range(7):
            sink.write({"__key__": f"part{index % 2}/{index:03d}", "png": png(index), "cls": index % 4})
    source = open_source(tmp_path)
    assert source.keys == [f"{index // 3:03d}/part{index % 2}/{index:03d}.png" for index in range(7)]
    assert source.labels.tolist() == [0, 1, 2, 3, 0, 1, 2]
    for index in range(7):
        assert_reads(source, index, png(index))


def test_threads_and_other_processes_read_a_tar_without_getting_in_each_others_way(tmp_path):
    members = {f"{index}.png": png(index, size=(40, 40)) for index in range(12)}
    source = pickle.loads(pickle.dumps(open_source(write_tar(tmp_path / "a.tar", members))))
    order = np.random.default_rng(0).integers(12, size=400).tolist()
    expected = [read_image(io.BytesIO(content), SIZE) for content in members.values()]
    with ThreadPoolExecutor(8) as threads:
        read = list(threads.map(lambda index: source.read(index, SIZE), order))
    assert all((pixels == expected[index]).all() for index, pixels in zip(order, read, strict=True))


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_tar_is_refused_with_the_command_that_mends_it(tmp_path, mode):
    path = write_tar(tmp_path / f"a.tar.{mode[2:]}", {"x.png": png(1)}, mode)
    with pytest.raises(UserError, match=rf"a\.tar\.{mode[2:]} is compressed.*: (gunzip|bunzip2|unxz) it first$"):
        open_source(path)


def test_what_is_wrong_with_a_tar_is_said_in_one_line(tmp_path):
    whole = write_tar(tmp_path / "a.tar", {"x.png": png(1), "y.png": png(2), "z.png": png(3)}).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:700])
    (tmp_path / "text.tar").write_text("no tar at all")
    second = 512 + 512 * -(-len(png(1)) // 512)
    (tmp_path / "broken.tar").write_bytes(whole[:second] + b"\xff" * 512 + whole[second + 512 :])
    write_tar(tmp_path / "none.tar", {"a.txt": b"x"})
    write_tar(tmp_path / "word.tar", {"a.png": png(1), "a.cls": b"dog"})
    write_tar(tmp_path / "minus.tar", {"a.png": png(1), "a.cls": b"-2"})
    messages = {
        "cut": "is no tar, or cut off", "text": "is no tar, or cut off", "broken": f"is broken at byte {second}",
        "none": "no images", "word": "the .cls beside a.png holds 'dog', expected a number", "minus": "class number -2",
        "missing": "does not exist", "{3..1}": "counts backwards", "[0-9]": "no file fits",
    }  # fmt: skip
    for name, message in messages.items():
        with pytest.raises(UserError) as error:
            open_source(f"{tmp_path}/{name}.tar")
        assert message in tiny.one_line(str(error.value))


def test_a_class_number_beyond_the_known_classes_is_refused(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"a.png": png(1), "a.cls": b"3"})
    with pytest.raises(UserError, match=r"class number 3: expected numbers from -1 \(unknown\) to 2"):
        open_source(path, classes=["ant", "bee", "cow"])


def test_tars_beside_folders_are_refused_as_it_is_unclear_which_are_meant(tmp_path):
    write_tar(tmp_path / "a.tar", {"a.png": png(1)})
    (tmp_path / "ant").mkdir()
    with pytest.raises(UserError, match="holds tar files and folders"):
        open_source(tmp_path)


# Data sets


@pytest.fixture
def offline(monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("layout", ["images", "parquet"])
def test_a_hugging_face_data_set_is_read_like_the_folder_it_was_made_of(images, tmp_path, offline, layout):
    import datasets

    path = images
    if layout == "parquet":
        made = datasets.load_dataset("imagefolder", data_dir=str(images), cache_dir=str(tmp_path / "a"), split="train")
        path = tmp_path / "rows"
        path.mkdir()
        made.rename_columns({"image": "img", "label": "kind"}).to_parquet(path / "train.parquet")
    columns = {"image_column": "img", "label_column": "kind"} if layout == "parquet" else {}
    source = open_source(f"hfds/{path}", root=str(tmp_path / "cache"), **columns)
    assert_fulfils_the_contract(source, 30)
    folder = open_image_folder(images)
    assert source.classes == folder.classes
    assert source.labels.tolist() == folder.labels.tolist()
    assert source.keys[:2] == ["train/0000000", "train/0000001"]
    for index in (0, 17, 29):
        assert source.read(index, SIZE).tolist() == folder.read(index, SIZE).tolist()
    kept = open_source(f"hfds/{path}", ["zoo", "cow", "bee", "ant"], root=str(tmp_path / "cache"), **columns)
    assert kept.labels[[0, 29]].tolist() == [3, 1]


def test_columns_of_texts_and_numbers_and_none_at_all_are_labels_too(tmp_path, offline):
    import datasets

    rows = {
        "image": [{"bytes": png(index), "path": None} for index in range(3)],
        "word": ["b", "a", "b"],
        "number": [2, 0, -1],
    }
    features = datasets.Features(
        {"image": datasets.Image(), "word": datasets.Value("string"), "number": datasets.Value("int64")}
    )
    (tmp_path / "rows").mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "rows" / "validation.parquet")

    def opened(label_column):
        return open_source(
            f"hfds/{tmp_path / 'rows'}", split="validation", root=str(tmp_path / "cache"), label_column=label_column
        )

    assert labelled(opened("word")) == dict(zip(opened("word").keys, ["b", "a", "b"], strict=True))
    assert labelled(opened("number")) == dict(zip(opened("number").keys, ["2", "0", None], strict=True))
    assert opened(None).labels.tolist() == [-1, -1, -1]
    assert_reads(opened(None), 1, png(1))
    with pytest.raises(UserError, match="no column 'kind': --label_column must be one of image, word, number"):
        opened("kind")


def idx_file(array):
    """MNIST's own format: two zero bytes, the type (8: uint8), the number of axes, their lengths, the values."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def test_mnist_in_its_official_files_is_read_through_torchvision(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    random, expected = np.random.default_rng(0), {}
    for part, split, count in (("train", "train", 4), ("t10k", "validation", 3)):
        digits, labels = (
            random.integers(256, size=(count, 28, 28), dtype=np.uint8),
            np.arange(count, dtype=np.uint8) + 5,
        )
        expected[split] = digits, labels
        for name, array in (("images-idx3", digits), ("labels-idx1", labels)):
            (raw / f"{part}-{name}-ubyte").write_bytes(idx_file(array))
            (raw / f"{part}-{name}-ubyte.gz").write_bytes(gzip.compress(idx_file(array)))
    for split, (digits, labels) in expected.items():
        source = open_source("torch/mnist", split=split, root=str(tmp_path))
        assert_fulfils_the_contract(source, len(labels))
        assert source.labels.tolist() == labels.tolist()
        assert source.classes[5] == "5 - five"
        assert source.read(1, (28, 28)).tolist() == np.stack([digits[1]] * 3).tolist()


def test_torchvisions_image_folder_follows_our_rules_for_transparency_and_depth(tmp_path):
    (tmp_path / "train" / "ant").mkdir(parents=True)
    Image.new("RGBA", (24, 16), (10, 20, 30, 0)).save(tmp_path / "train/ant/clear.png")
    Image.fromarray(np.full((16, 24), 257 * 90, np.uint16)).save(tmp_path / "train/ant/deep.png")
    source = open_source("torch/image_folder", split="train", root=str(tmp_path))
    assert source.keys == ["ant/clear.png", "ant/deep.png"]
    assert set(source.read(0, SIZE).reshape(-1).tolist()) == {255}
    assert set(source.read(1, SIZE).reshape(-1).tolist()) == {90}


def test_data_sets_that_can_not_be_opened_are_one_line_that_says_what_to_check(tmp_path, offline):
    cases = [
        ("torch/mnist", None, "needs --root"),
        ("torch/mnist", tmp_path, "--root"),
        ("torch/nothing", tmp_path, "Unknown torchvision dataset nothing"),
        (f"hfds/{tmp_path / 'nothing'}", tmp_path, "--images, --split, --image_column"),
        ("hfids/cifar10", None, "hfds/NAME opens the same data set"),
        ("wds/photos", None, "name the .tar files themselves"),
        ("tfds/cifar10", None, "export its images"),
        (tmp_path / "nothing", None, "is not a folder of images"),
    ]
    for spec, root, message in cases:
        with pytest.raises(UserError) as error:
            open_source(spec, root=root and str(root))
        assert message in tiny.one_line(str(error.value))


def test_a_pipe_that_is_called_a_tar_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "images.tar")
    with pytest.raises(UserError, match=r"images\.tar is no file but a folder, pipe or device"):
        open_source(tmp_path / "images.tar")
