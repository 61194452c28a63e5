"""`seitpp split`: every image on one side, with all that look like it; the source stays as it is."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

import tiny
from seitpp.pipeline.leak_free import divide, merge_near_duplicates
from seitpp.pipeline.split import SplitConfig, main
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.source import open_source


def noisy_images(folder, counts, *, seed=0):
    """Class folders of PNGs of noise in large squares, no two alike."""
    random = np.random.default_rng(seed)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            squares = random.integers(0, 256, size=(4, 5, 3), dtype=np.uint8)
            Image.fromarray(squares).resize((40, 32), Image.Resampling.NEAREST).save(folder / name / f"{index:02d}.png")
    return folder


def split(source, folder, **fields):
    main(SplitConfig(images=(str(source),), output_dir=str(folder), **fields))
    return folder


def names_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def rows_of(table):
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# Which images


def test_a_fifth_of_each_class_is_tested_and_groups_stay_whole():
    groups = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 11, 11, 11])
    classes = ["a"] * 10 + ["b"] * 2 + ["c"] * 4
    names = [f"{index:02d}" for index in range(16)]
    is_test = divide(groups, classes, names, test_part=0.2)
    for group in set(groups.tolist()):
        assert len(set(is_test[groups == group].tolist())) == 1
    assert int(is_test[:10].sum()) == 2
    assert int(is_test[10:12].sum()) == 1
    assert not is_test[12:].any()  # all alike: too small


def test_unlabelled_images_are_for_training_unless_none_has_a_class_or_they_look_like_a_test_image():
    names = [f"{index:02d}" for index in range(12)]
    groups = np.array([0, 1, 2, 3, 0, 1, 2, 3, 8, 9, 10, 11])
    classes = ["a", "a", "b", "b"] + [None] * 8
    is_test = divide(groups, classes, names, test_part=0.5)
    assert is_test[:4].tolist() == is_test[4:8].tolist()
    assert int(is_test[:4].sum()) == 2
    assert not is_test[8:].any()
    assert int(divide(np.arange(12), [None] * 12, names, test_part=0.25).sum()) == 3


def test_another_seed_gives_another_split_and_the_order_of_the_images_none():
    names, classes = [f"{index:02d}" for index in range(40)], ["a"] * 40
    first = divide(np.arange(40), classes, names, test_part=0.3)
    turned = divide(np.arange(40), classes, names[::-1], test_part=0.3)
    assert first.tolist() == turned.tolist()[::-1]
    assert first.tolist() != divide(np.arange(40), classes, names, test_part=0.3, seed=1).tolist()


def test_thumbnails_of_bytes_join_as_those_of_numbers_do():
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (700, 4, 4, 3), dtype=np.uint8)
    pixels[600:] = np.clip(pixels[:100].astype(int) + random.integers(-13, 14, (100, 4, 4, 3)), 0, 255)
    by_bytes = merge_near_duplicates(pixels)
    assert 600 < len(set(by_bytes.tolist())) < 700
    assert by_bytes.tolist() == merge_near_duplicates(pixels / 255).tolist()


# What is written


def test_a_split_links_every_image_once_and_leaves_the_source_alone(tmp_path, capsys):
    photos = noisy_images(tmp_path / "photos", {"drei ecken": 10, "äpfel/rot": 5, "one": 1})
    Image.open(photos / "drei ecken" / "03.png").save(photos / "drei ecken" / "copy of 03.png")
    (photos / "drei ecken" / "broken.png").write_bytes(b"no image")
    (photos / "empty").mkdir()
    before = names_in(photos)
    folder = split(photos, tmp_path / "split", test=0.2)
    assert names_in(photos) == before
    both = [*names_in(folder / "train"), *names_in(folder / "test")]
    assert sorted(both) == [name for name in before if "broken" not in name]
    part = {row["key"]: row["part"] for row in rows_of(folder / "split.csv")}
    assert part["drei ecken/03.png"] == part["drei ecken/copy of 03.png"]
    counts = json.loads((folder / "split.json").read_text())["classes"]
    assert {name: sum(of) for name, of in counts.items()} == {"drei ecken": 11, "one": 1, "äpfel": 5}
    assert counts["äpfel"] == [4, 1]
    said = capsys.readouterr().out
    assert "look-alikes: 1 groups of 2 images" in said
    assert "too small to be tested (one image, or all alike): one" in said
    assert "1 not decodable" in said
    assert "1 class folder without images" in said
    assert {row["file"] for row in rows_of(folder / "skipped.csv")} == {"drei ecken/broken.png", "empty"}


def test_lists_are_read_as_images_with_the_same_names_and_labels(tmp_path):
    photos = noisy_images(tmp_path / "photos", {"ant": 6, "bee": 6})
    links = split(photos, tmp_path / "links")
    lists = split(photos, tmp_path / "lists", form="lists")
    for part in ("train", "test"):
        linked, listed = open_source(links / part), open_source(lists / f"{part}.csv")
        assert listed.keys == linked.keys
        assert listed.labels.tolist() == linked.labels.tolist()
        assert (listed.read(1, (8, 8)) == linked.read(1, (8, 8))).all()
        assert listed.sizes([0]).tolist() == linked.sizes([0]).tolist()


def test_a_table_gives_the_classes_and_what_it_lacks_or_names_in_vain_is_kept_or_said(tmp_path, capsys):
    photos = noisy_images(tmp_path / "photos", {"2024": 6, "2025": 6})
    rows = [f"2024/{index:02d}.png,heron" for index in range(6)] + [f"2025/{index:02d}.png,egret" for index in range(4)]
    (tmp_path / "birds.csv").write_text("\n".join(["key,label", *rows, "2025/gone.png,egret"]))
    folder = split(photos, tmp_path / "split", labels=str(tmp_path / "birds.csv"), test=0.5)
    found = names_in(folder / "train") + names_in(folder / "test")
    assert sum(name.startswith("heron/2024/") for name in found) == 6
    assert sum(name.startswith("egret/2025/") for name in found) == 4
    assert {"2025__04.png", "2025__05.png"} <= set(names_in(folder / "train"))
    assert "1 in the table of labels, but not there" in capsys.readouterr().out


def test_classes_may_be_folders_further_down(tmp_path, capsys):
    photos = noisy_images(tmp_path / "photos", {"2024/ant": 4, "2024/bee": 4, "2025/ant": 4})
    folder = split(photos, tmp_path / "split", class_level=1, test=0.25)
    counts = json.loads((folder / "split.json").read_text())["classes"]
    assert counts == {"ant": [6, 2], "bee": [3, 1]}
    assert all(name.startswith(("ant/202", "bee/2024/")) for name in names_in(folder / "train"))
    split(noisy_images(tmp_path / "other", {"all/ant": 4, "all/bee": 4}), tmp_path / "other-split")
    assert "are the folders in it the classes? --class_level 1" in capsys.readouterr().out


def test_folders_that_are_no_classes_make_one_flat_folder(tmp_path):
    photos = noisy_images(tmp_path / "photos", {"a/b": 8})
    folder = split(photos, tmp_path / "split", unlabelled=True, test=0.25)
    assert len(names_in(folder / "train")) == 6
    assert all(name.startswith("a__b__") for name in names_in(folder / "test"))


def test_the_same_command_again_changes_nothing_and_another_split_is_refused(tmp_path):
    photos = noisy_images(tmp_path / "photos", {"ant": 6, "bee": 6})
    folder = split(photos, tmp_path / "split")
    before = {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}
    split(photos, folder)
    assert {path: path.lstat().st_mtime_ns for path in folder.rglob("*")} == before
    with pytest.raises(UserError, match=r"holds another split \(seed differ\)"):
        split(photos, folder, seed=1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds notes\.txt and is no split"):
        split(photos, tmp_path / "mine")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("ant/00.png,a/b", "line 2: the label 'a/b' can't be a folder's name"),
        ("ant/00.png,a\nant/00.png,b", "line 3: ant/00.png is 'b' here and 'a' in line 2"),
        ("gone.png,a", "names no row of"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_in_one_line(tmp_path, lines, message):
    photos = noisy_images(tmp_path / "photos", {"ant": 3})
    (tmp_path / "labels.csv").write_text(f"key,label\n{lines}\n")
    with pytest.raises(UserError, match=message) as refused:
        split(photos, tmp_path / "split", labels=str(tmp_path / "labels.csv"))
    tiny.one_line(str(refused.value))
    assert not (tmp_path / "split").exists()


def test_a_list_whose_files_are_gone_is_refused_and_a_few_are_counted(tmp_path):
    photos = noisy_images(tmp_path / "photos", {"ant": 3})
    table = photos / "images.csv"
    table.write_text("key,label\nant/00.png,ant\nant/gone.png,ant\nant/01.png,\n")
    images = open_source(table)
    assert images.keys == ["ant/00.png", "ant/01.png"]
    assert images.labels.tolist() == [0, -1]
    assert [each.file for each in images.left_out] == ["ant/gone.png"]
    table.write_text("key,label\nant/gone.png,ant\n")
    with pytest.raises(UserError, match="none of its 1 files is there"):
        open_source(table)
