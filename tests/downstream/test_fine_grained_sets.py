"""Benchmarks: each is read from its official files, in its official split, and what is missing is said first."""

import hashlib
import http.server
import json
import pickle
import re
import shutil
import tarfile
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from miniatures import fine_grained as miniatures
from PIL import Image
from torchvision import datasets

import tiny
from seitpp.downstream.benchmarks import download as downloading
from seitpp.downstream.benchmarks.checked import open_sets
from seitpp.downstream.benchmarks.download import Archive, download
from seitpp.downstream.benchmarks.layouts.known import LAYOUTS
from seitpp.downstream.benchmarks.sets import choose_sets, read_sets
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.source import source_fingerprint


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder of all miniatures, {name: Written}, table of their counts)."""
    data = tmp_path_factory.mktemp("data")
    written = {name: make(data) for name, make in miniatures.MAKERS.items()}
    return data, written, miniatures.table_of(tmp_path_factory.mktemp("table") / "sets.csv", written)


def opened(data, table, *names, **own):
    return open_sets(choose_sets(names, read_sets(table)), data, own)


def listed(images):
    """(key, class name) of an ImageSource."""
    return [(key, images.classes[label]) for key, label in zip(images.keys, images.labels, strict=True)]


# The table


def test_the_table_has_every_set_that_the_command_names():
    sets = read_sets()
    assert list(sets) == list(miniatures.MAKERS)
    assert {each.layout for each in sets.values()} == set(LAYOUTS)
    assert [name for name, each in sets.items() if each.metric == "mean_per_class"] == [
        "flowers", "aircraft", "pets", "caltech101"
    ]  # fmt: skip


KNOWN = {  # classes, training and test images: Kornblith et al. (arXiv 1805.08974), table 1, and the sets' own pages
    "cub": (200, 5994, 5794), "flowers": (102, 2040, 6149), "cars": (196, 8144, 8041), "aircraft": (100, 6667, 3333),
    "pets": (37, 3680, 3669), "food101": (101, 75750, 25250), "dtd": (47, 3760, 1880), "sun397": (397, 19850, 19850),
    "caltech101": (102, 3060, 6084), "inat2018": (8142, 437513, 24426), "inat2019": (1010, 265213, 3030),
    "cifar10": (10, 50000, 10000), "cifar100": (100, 50000, 10000),
}  # fmt: skip


def test_the_tables_counts_are_those_of_the_literature():
    sets = read_sets()
    assert {name: (each.classes, each.train_images, each.test_images) for name, each in sets.items()} == KNOWN


@pytest.mark.parametrize(
    ("change", "matters"),
    [
        (("accuracy", "top1"), "line 2: metric is 'top1', expected accuracy or mean_per_class"),
        ((",cub,", ",cbu,"), "line 2: layout is 'cbu'; did you mean cub"),
        ((",2,", ",many,"), "line 2: classes is 'many', expected a whole number above 0"),
        (("cub,", "../cub,"), r"line 2: name is '\.\./cub'"),
    ],
)
def test_a_table_of_ones_own_is_refused_by_its_line(tmp_path, made, change, matters):
    text = Path(made[2]).read_text()
    (tmp_path / "sets.csv").write_text(text.replace(*change, 1))
    with pytest.raises(UserError, match=matters):
        read_sets(tmp_path / "sets.csv")


def test_a_set_that_nobody_knows_is_named_with_the_nearest():
    with pytest.raises(UserError, match="--sets has 'flower': did you mean flowers"):
        choose_sets(["flower"], read_sets())


# Reading


@pytest.mark.parametrize("name", [name for name in miniatures.MAKERS if name != "caltech101"])
def test_a_set_is_read_from_its_official_files_in_its_official_split(made, name):
    data, written, table = made
    (found,) = opened(data, table, name)
    expected = written[name]
    assert found.images.train.classes == found.images.test.classes == expected.classes
    assert listed(found.images.train) == expected.train
    assert listed(found.images.test) == expected.test
    for images in (found.images.train, found.images.test):
        assert images.labels.dtype == np.int32
        assert images.read(len(images) - 1, (16, 24)).shape == (3, 16, 24)
        assert (images.sizes(range(len(images))) > 0).all()


TORCHVISION = {
    "cars": ("StanfordCars", ["train"], ["test"]), "aircraft": ("FGVCAircraft", ["trainval"], ["test"]),
    "pets": ("OxfordIIITPet", ["trainval"], ["test"]), "food101": ("Food101", ["train"], ["test"]),
    "dtd": ("DTD", ["train", "val"], ["test"]), "flowers": ("Flowers102", ["train", "val"], ["test"]),
}  # fmt: skip


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_own_class_reads_the_same_images_and_classes(made, name, monkeypatch):
    """It checks that the annotations of flowers are the published bytes, which a miniature's are not."""
    data, _, table = made
    monkeypatch.setattr(datasets.Flowers102, "_check_integrity", lambda self: True)
    (found,) = opened(data, table, name)
    class_name, *parts = TORCHVISION[name]
    for images, splits in zip((found.images.train, found.images.test), parts, strict=True):
        theirs = []
        for split in splits:
            dataset = getattr(datasets, class_name)(str(data), split=split)
            if hasattr(dataset, "_samples"):
                theirs += dataset._samples
            else:
                files = dataset._images if hasattr(dataset, "_images") else dataset._image_files
                theirs += list(zip(files, dataset._labels, strict=True))
        ours = [(images.where(row), int(label)) for row, label in enumerate(images.labels)]
        assert sorted(ours) == sorted((str(file), int(label)) for file, label in theirs)


def test_of_caltech_30_images_a_class_are_drawn_and_the_others_measured_on(made):
    data, _, table = made
    (found,) = opened(data, table, "caltech101")
    train, test = found.images.train, found.images.test
    assert np.bincount(train.labels).tolist() == [30, 30]
    assert np.bincount(test.labels).tolist() == [3, 1]
    assert len({*train.keys, *test.keys}) == 64
    assert "accordion/image_0001.jpg" in train.keys + test.keys
    assert train.keys != sorted([*train.keys, *test.keys])[:60]
    (again,) = opened(data, table, "caltech101")
    assert again.images.test.keys == test.keys


def test_a_record_of_cifar_gives_its_own_pixels(made):
    data, _, table = made
    for name in ("cifar10", "cifar100"):
        (found,) = opened(data, table, name)
        images = found.images.train
        row = 4  # of cifar10 the third of the second file
        pixels = images.read(row, (32, 32))
        number = int(images.keys[row].split("/")[1])
        assert np.unique(pixels[0]).tolist() == [images.labels[row]]
        assert np.unique(pixels[1]).tolist() == [number]
        assert np.unique(pixels[2]).tolist() == [7]
        assert images.where(row).endswith(f"{images.keys[row].split('/')[0]}, image {number}")


def test_food_is_read_from_its_texts_where_there_is_no_json(made, tmp_path):
    data, written, table = made
    shutil.copytree(data / "food-101", tmp_path / "food-101")
    for part in ("train", "test"):
        (tmp_path / "food-101" / "meta" / f"{part}.json").unlink()
    (found,) = opened(tmp_path, table, "food101")
    assert listed(found.images.train) == written["food101"].train


def test_lists_of_sun_and_test_labels_of_cars_may_lie_in_folders_of_their_own(made, tmp_path):
    data, written, table = made
    for name in ("SUN397", "stanford_cars"):
        shutil.copytree(data / name, tmp_path / name)
    (tmp_path / "SUN397" / "Partitions").mkdir()
    for name in ("ClassName.txt", "Training_01.txt", "Testing_01.txt"):
        (tmp_path / "SUN397" / name).rename(tmp_path / "SUN397" / "Partitions" / name)
    annotations = "cars_test_annos_withlabels.mat"
    (tmp_path / "stanford_cars" / annotations).rename(tmp_path / "stanford_cars" / "devkit" / annotations)
    sun, cars = opened(tmp_path, table, "sun397", "cars")
    assert listed(sun.images.test) == written["sun397"].test
    assert listed(cars.images.test) == written["cars"].test


def test_folders_of_ones_own_keep_the_classes_of_the_training_part(tmp_path):
    train = tiny.make_images(tmp_path / "train", {"ant": 3, "bee": 2, "cow": 2})
    test = tiny.make_images(tmp_path / "test", {"cow": 1, "bee": 2}, seed=1)
    Image.new("RGB", (24, 16)).save(test / "unlabelled.png")
    (found,) = opened(None, None, mine=(str(train), str(test)))
    assert (found.name, found.metric) == ("mine", "accuracy")
    assert found.images.test.classes == ["ant", "bee", "cow"]
    assert listed(found.images.test) == [("bee/000.png", "bee"), ("bee/001.png", "bee"), ("cow/000.png", "cow")]


def test_parts_of_a_set_have_fingerprints_of_their_own(made):
    data, _, table = made
    found = opened(data, table, *miniatures.MAKERS)
    prints = {source_fingerprint(part) for each in found for part in (each.images.train, each.images.test)}
    assert len(prints) == 2 * len(found)


# What is missing


def refused(data, table, *names, **own):
    with pytest.raises(UserError) as caught:
        opened(data, table, *names, **own)
    return tiny.one_line(str(caught.value))


def test_counts_that_are_not_the_official_ones_are_said(made):
    said = refused(made[0], None, "cub", "cifar100")
    assert "cub: " in said
    assert "CUB_200_2011: it has 2 classes instead of 200, 10 training images instead of 5,994, 6 test images" in said
    assert "cifar100: " in said
    assert "3 classes instead of 100" in said


def test_every_missing_set_and_part_is_said_at_once(made, tmp_path):
    data, _, table = made
    for name in ("flowers-102", "oxford-iiit-pet"):
        shutil.copytree(data / name, tmp_path / name)
    (tmp_path / "flowers-102" / "setid.mat").unlink()
    shutil.rmtree(tmp_path / "flowers-102" / "jpg")
    said = refused(tmp_path, table, "flowers", "pets", "food101")
    assert said.startswith("2 of 3 sets can't be used, and nothing was begun: flowers: ")
    assert "flowers-102 lacks jpg (comes in 102flowers.tgz), setid.mat (comes in setid.mat): unpack it there" in said
    assert f"food101: {tmp_path}/food-101 is not there: unpack food-101.tar.gz there" in said
    assert "pets:" not in said
    official = refused(tmp_path, None, "food101")
    assert "(https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/, 5 GB)" in official


@pytest.mark.parametrize("name", [name for name in miniatures.MAKERS if name not in ("cifar10", "cifar100")])
def test_an_image_that_a_half_unpacked_archive_lacks_is_named(made, tmp_path, name):
    data, written, table = made
    folder = written[name].folder
    shutil.copytree(data / folder, tmp_path / folder)
    gone = sorted((tmp_path / folder).rglob("*.jpg"))[0]
    if name == "caltech101":  # it has no list: its images are counted
        gone.unlink()
        assert "instead of 4" in refused(tmp_path, table, name)
        return
    key = written[name].train[0][0]
    (tmp_path / folder / key).unlink()
    total = len(written[name].train) + len(written[name].test)
    said = refused(tmp_path, table, name)
    assert f"1 of {total} listed images are not there (first: {key}): an archive was not unpacked whole" in said


@pytest.mark.parametrize(
    ("name", "gone", "matters"),
    [
        ("food101", "images/waffles", "7 of 14 listed images are not there (first: images/waffles/1001.jpg)"),
        ("sun397", "z", "5 of 15 listed images are not there (first: z/zen_garden/sun_a1.jpg)"),
    ],
)
def test_a_whole_folder_of_images_that_is_missing_is_counted(made, tmp_path, name, gone, matters):
    data, written, table = made
    shutil.copytree(data / written[name].folder, tmp_path / written[name].folder)
    shutil.rmtree(tmp_path / written[name].folder / gone)
    assert matters in refused(tmp_path, table, name)


@pytest.mark.parametrize(
    ("name", "folder"),
    [("cub", "images/003.Sooty"), ("food101", "images/pie"), ("sun397", "a/athletic_field/indoor"), ("dtd", "images/x"),
     ("inat2018", "train_val2018/Aves/9")],
)  # fmt: skip
def test_a_folder_of_no_known_class_is_named(made, tmp_path, name, folder):
    data, written, table = made
    shutil.copytree(data / written[name].folder, tmp_path / written[name].folder)
    miniatures.picture(tmp_path / written[name].folder / folder / "1.jpg", 0)
    (tmp_path / written[name].folder / folder).with_name(".hidden").mkdir()
    assert f"{folder} is the folder of no class of the set: move it elsewhere" in refused(tmp_path, table, name)


def test_a_class_folder_that_only_the_test_part_has_is_named(tmp_path):
    train = tiny.make_images(tmp_path / "train", {"ant": 2, "bee": 2})
    test = tiny.make_images(tmp_path / "test", {"ant": 1, "yak": 1})
    said = refused(None, None, mine=(str(train), str(test)))
    assert f"mine: {test} has a class folder 'yak' that {train} lacks" in said


def test_the_python_version_of_cifar_is_never_opened(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(pickle.dumps({"data": [1]}))
    said = refused(tmp_path, None, "cifar10")
    assert "holds the Python version, which is pickled and is not read: get the binary version" in said
    assert "cifar-10-binary.tar.gz" in said


def broken(data, tmp_path, folder, file, content):
    shutil.copytree(data / folder, tmp_path / folder, dirs_exist_ok=True)
    (tmp_path / folder / file).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "file", "content", "matters"),
    [
        ("cub", "images.txt", b"1 a.jpg\nx b.jpg\n", r"images\.txt: 'x' is no whole number"),
        ("cub", "images.txt", b"1\n", r"images\.txt, line 1 of those not empty: 1 fields, expected 2"),
        ("cub", "image_class_labels.txt", b"1 1\n", r"image_class_labels\.txt is of other images than"),
        ("cub", "classes.txt", b"7 one\n8 two\n", "is of none of the 2 classes that the set names"),
        ("flowers", "setid.mat", b"no MATLAB", r"setid\.mat can't be read as a MATLAB file"),
        ("cars", "devkit/cars_meta.mat", b"", r"cars_meta\.mat can't be read as a MATLAB file"),
        ("aircraft", "data/variants.txt", b"707-320\nF/A-18\n", "is of none of the 2 classes that the set names"),
        ("pets", "annotations/test.txt", b"Birman_1 1 1 1\n", "breed 1 is Birman and Abyssinian"),
        ("food101", "meta/train.json", b"[1]", r"train\.json: the content is \[1\], expected an object"),
        ("dtd", "labels/val1.txt", b"\xff\xfe", r"val1\.txt, line 1: .* is not UTF-8"),
        ("inat2018", "val2018.json", b"{}", r"val2018\.json: it lacks 'images'"),
        ("cifar10", "test_batch.bin", b"\0" * 3072, r"test_batch\.bin is no whole number of records of 3073 bytes"),
        ("cifar100", "fine_label_names.txt", b"apple\n", "has images of class 2, of 1"),
    ],
)
def test_official_files_that_can_not_be_read_are_named(made, tmp_path, name, file, content, matters):
    data, written, table = made
    broken(data, tmp_path, written[name].folder, file, content)
    assert re.search(matters, refused(tmp_path, table, name))


def test_lists_may_not_lead_out_of_the_set(made, tmp_path):
    data, _, table = made
    train = json.loads((data / "food-101" / "meta" / "train.json").read_text())
    train["apple_pie"][0] = "apple_pie/../../../secret"
    broken(data, tmp_path, "food-101", "meta/train.json", json.dumps(train).encode())
    assert "which lies elsewhere: get it anew" in refused(tmp_path, table, "food101")


# Downloads


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def address(tmp_path, monkeypatch):
    """A web server of tmp_path."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=tmp_path)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_missing_set_is_fetched_and_unpacked_and_one_that_is_there_is_not(
    made, tmp_path, monkeypatch, capsys, address
):
    data, _, table = made
    archive = tmp_path / "CUB_200_2011.tgz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(data / "CUB_200_2011", "CUB_200_2011")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    sets = choose_sets(["cub"], read_sets(table))
    monkeypatch.setitem(downloading.ARCHIVES, "cub", Archive(url=f"{address}/{archive.name}", sha256=digest))
    download(sets, tmp_path / "data")
    assert "cub: downloading to" in capsys.readouterr().out
    opened(tmp_path / "data", table, "cub")
    download(sets, tmp_path / "data")
    assert capsys.readouterr().out == ""


def test_an_archive_that_is_not_the_published_one_is_not_unpacked(made, tmp_path, monkeypatch, address):
    (tmp_path / "CUB_200_2011.tgz").write_bytes(b"something else")
    sets = choose_sets(["cub"], read_sets(made[2]))
    monkeypatch.setitem(
        downloading.ARCHIVES, "cub", Archive(url=f"{address}/CUB_200_2011.tgz", sha256="0" * 64)
    )  # fmt: skip
    with pytest.raises(UserError, match="is not what its authors published"):
        download(sets, tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["CUB_200_2011.tgz"]


def test_a_set_that_must_be_got_by_hand_is_said_before_any_is_fetched(tmp_path):
    sets = choose_sets(["cub", "cars", "inat2018"], read_sets())
    with pytest.raises(UserError, match=r"cars can't be downloaded by this command: get it by hand, https://ai\.stan"):
        download(sets, tmp_path / "data")
    assert not (tmp_path / "data").exists()
