"""Listing a folder of images: what is an image and a class is found by any way to it, and all else is said."""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.images import open_image_folder
from seitpp.tokenizers.sources.listing.folder import list_images
from seitpp.tokenizers.sources.listing.left_out import LeftOut, counted, read_skipped, sentence, write_skipped
from seitpp.tokenizers.sources.source import open_source


def touch(folder, *names):
    """Empty files: listing looks at names alone."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def left_out(folder):
    return {each.file: each.kind for each in list_images(folder).left_out}


# Images and classes


def test_keys_are_sorted_as_paths_are(tmp_path):
    names = ["a/z.png", "a b/1.png", "a/b/c.png", "a.png", "Z/1.png", "a/b.png"]
    assert list_images(touch(tmp_path, *names)).keys == [
        path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path / name for name in names)
    ]


@pytest.mark.parametrize(
    "ending", ["png", "JPG", "jpeg", "jfif", "jpe", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm", "pnm", "jp2",
               "tga", "qoi", "ico", "dds", "psd", "mpo", "apng"]
)  # fmt: skip
def test_every_ending_of_a_format_that_is_decoded_is_an_image(tmp_path, ending):
    assert list_images(touch(tmp_path, f"ant/a.{ending}")).keys == [f"ant/a.{ending}"]


def test_other_files_are_left_out_by_their_ending(tmp_path):
    touch(tmp_path, "ant/a.png", "ant/b.xyz", "ant/c.XYZ", "ant/d", "ant/e.eps", "ant/f.pdf")
    assert counted(list_images(tmp_path).left_out) == (
        "2 of unknown format .xyz, 1 without an ending, 1 of unknown format .eps, 1 of unknown format .pdf"
    )


def test_a_class_folder_whose_files_are_all_left_out_is_said(tmp_path):
    touch(tmp_path, "ant/a.png", "bee/b.heic", "cow/notes.txt")
    (tmp_path / "dog").mkdir()
    folder = open_image_folder(tmp_path)
    assert folder.classes == ["ant"]
    assert counted(folder.left_out).startswith("3 class folders without images, ")
    assert {each.file for each in folder.left_out} == {"bee", "bee/b.heic", "cow", "cow/notes.txt", "dog"}


def test_nothing_but_images_leaves_nothing_out(tmp_path):
    folder = open_image_folder(touch(tmp_path, "ant/a.png", "bee/sub/b.jpg", "c.png"))
    assert folder.left_out == []
    assert sentence(folder.left_out) == ""


# Hidden and system names


@pytest.mark.parametrize(
    "name", [".ipynb_checkpoints", "@eaDir", "__MACOSX", ".Trash-1000", "#recycle", "$RECYCLE.BIN", "lost+found",
             "System Volume Information"]
)  # fmt: skip
def test_hidden_and_system_folders_are_no_classes_wherever_they_lie(tmp_path, name):
    touch(tmp_path, "ant/a.png", f"{name}/a.png", f"ant/{name}/deep/a.png", "zoo/z.png")
    folder = open_image_folder(tmp_path)
    assert folder.keys == ["ant/a.png", "zoo/z.png"]
    assert folder.classes == ["ant", "zoo"]
    assert counted(folder.left_out) == "2 hidden or system folders"
    assert {each.file for each in folder.left_out} == {name, f"ant/{name}"}


def test_hidden_files_are_no_images(tmp_path):
    touch(tmp_path, "ant/a.png", "ant/._a.png", "ant/Thumbs.db", ".DS_Store", "ant/desktop.ini")
    assert list_images(tmp_path).keys == ["ant/a.png"]
    assert counted(list_images(tmp_path).left_out) == "4 hidden or system files"


def test_the_roots_own_name_may_be_hidden(tmp_path):
    assert list_images(touch(tmp_path / ".cache", "ant/a.png")).keys == ["ant/a.png"]


# Links


def test_class_folders_and_images_that_are_links_are_followed(tmp_path):
    touch(tmp_path / "elsewhere", "many/1.png", "many/sub/2.png", "3.png")
    root = touch(tmp_path / "root", "ant/a.png")
    (root / "bee").symlink_to(tmp_path / "elsewhere" / "many")
    (root / "ant" / "b.png").symlink_to(tmp_path / "elsewhere" / "3.png")
    folder = open_image_folder(root)
    assert folder.keys == ["ant/a.png", "ant/b.png", "bee/1.png", "bee/sub/2.png"]
    assert folder.classes == ["ant", "bee"]
    assert folder.left_out == []


def test_the_root_may_be_a_link(tmp_path):
    touch(tmp_path / "root", "ant/a.png")
    (tmp_path / "link").symlink_to("root")
    assert list_images(tmp_path / "link").keys == ["ant/a.png"]


@pytest.mark.parametrize("target", [".", "..", "ant", "ant/sub"])
def test_links_that_lead_in_a_circle_end(tmp_path, target):
    root = touch(tmp_path / "outer" / "root", "ant/a.png", "ant/sub/b.png", "cow/c.png")
    (root / "cow" / "again").symlink_to((root / target).resolve())
    assert list_images(root).keys == ["ant/a.png", "ant/sub/b.png", "cow/c.png"]
    assert "link to what is listed already" in left_out(root).values()


def test_a_folder_reached_by_two_links_is_listed_by_the_first(tmp_path):
    touch(tmp_path / "elsewhere", "1.png")
    touch(tmp_path / "root", "ant/a.png")
    for name in ("bee", "cow"):
        (tmp_path / "root" / name).symlink_to(tmp_path / "elsewhere")
    assert list_images(tmp_path / "root").keys == ["ant/a.png", "bee/1.png"]
    assert left_out(tmp_path / "root") == {"cow": "link to what is listed already"}


def test_thirty_folders_with_two_links_each_to_the_next_are_walked_once(tmp_path):
    """By every way to it the last would be listed 2^29 times."""
    for number in range(30):
        touch(tmp_path / f"{number:02d}", "a.png")
        for name in ("x", "y") if number < 29 else ():
            (tmp_path / f"{number:02d}" / name).symlink_to(tmp_path / f"{number + 1:02d}")
    assert len(list_images(tmp_path).keys) == 30


def test_broken_links_and_special_files_are_said(tmp_path):
    touch(tmp_path, "ant/a.png")
    (tmp_path / "ant" / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "bee").symlink_to("nowhere")
    (tmp_path / "self.png").symlink_to("self.png")
    os.mkfifo(tmp_path / "ant" / "pipe.png")
    assert left_out(tmp_path) == {
        "ant/gone.png": "broken link", "bee": "broken link", "self.png": "broken link",
        "ant/pipe.png": "no regular file",
    }  # fmt: skip


# What is refused


@contextmanager
def without_rights():
    """Act as a user whom permissions bind: root passes them all."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("linked", [False, True])
def test_a_folder_without_read_permission_is_an_error_with_its_name(linked):
    with tempfile.TemporaryDirectory() as folder:  # tmp_path lies in a folder that only its owner can enter
        place = Path(folder)
        place.chmod(0o755)
        touch(place / "root", "ant/a.png")
        closed = touch(place / "closed" if linked else place / "root" / "bee", "b.png")
        if linked:
            (place / "root" / "bee").symlink_to(closed)
        closed.chmod(0)
        with without_rights(), pytest.raises(UserError, match=r"root/bee can't be read \(no permission\)"):
            list_images(place / "root")
        closed.chmod(0o755)


def test_a_name_that_is_not_utf8_is_an_error_that_shows_it(tmp_path):
    touch(tmp_path, "ant/a.png")
    (tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    touch(tmp_path / os.fsdecode(b"caf\xe9"), "b.png")
    with pytest.raises(UserError, match=r"the name of caf\\xe9/b\.png is not UTF-8: rename it") as error:
        list_images(tmp_path)
    str(error.value).encode()


def test_a_file_that_is_left_out_may_have_any_name(tmp_path):
    touch(tmp_path, "ant/a.png", os.fsdecode(b"caf\xe9.txt"))
    write_skipped(tmp_path / "skipped.csv", list_images(tmp_path).left_out)
    assert (tmp_path / "skipped.csv").read_text(encoding="utf-8").splitlines()[0] == "file,reason"


@pytest.mark.parametrize("parts", [("train", "test"), ("Training", "val"), ("train", "valid", "test"), ("train",)])
def test_a_folder_of_parts_is_refused_with_the_folders_to_give(tmp_path, parts):
    touch(tmp_path, *(f"{part}/ant/a.png" for part in parts), "loose.png")
    with pytest.raises(UserError) as error:
        open_image_folder(tmp_path)
    first = next(part for part in parts if part.lower().startswith("train"))
    assert f"{tmp_path} is split already" in str(error.value)
    assert f": --images {tmp_path}/{first} --output_dir STORES/{first}" in str(error.value)
    others = [part for part in parts if part != first]
    assert all(f"then --images {tmp_path}/{part} --like STORES/{first}" in str(error.value) for part in others)


def test_classes_that_are_called_like_parts_are_classes_where_others_are_too_or_they_are_known(tmp_path):
    assert open_image_folder(touch(tmp_path / "a", "train/1.png", "bus/2.png")).classes == ["bus", "train"]
    assert open_image_folder(touch(tmp_path / "b", "train/1.png")).classes == ["train"]
    touch(tmp_path / "c", "train/x/1.png", "test/2.png")
    assert open_image_folder(tmp_path / "c", ["test", "train", "zoo"]).labels.tolist() == [0, 1]


# Which folder is the class


@pytest.mark.parametrize(
    ("level", "classes", "labels"),
    [
        (0, ["2023", "2024"], [0, 0, 1, 1, -1]),
        (1, ["ant", "bee"], [0, 1, 0, -1, -1]),
        (-1, ["2024", "ant", "far"], [1, 2, 1, 0, -1]),
        (None, [], [-1] * 5),
    ],
)
def test_the_class_is_the_folder_at_a_level(tmp_path, level, classes, labels):
    touch(tmp_path, "2023/ant/1.png", "2023/bee/far/2.png", "2024/ant/3.png", "2024/z.png", "z.png")
    folder = open_image_folder(tmp_path, class_level=level)
    assert (folder.classes, folder.labels.tolist()) == (classes, labels)
    if level == 1:
        assert folder.notices == [
            f"{tmp_path}: 1 of 5 images, the first 2024/z.png, are unlabelled: in too few folders for --class_level 1"
        ]


def test_a_level_that_no_image_has_is_refused_and_one_class_around_all_is_told(tmp_path):
    touch(tmp_path, "birds/ant/1.png", "birds/bee/2.png")
    with pytest.raises(UserError, match="lies in so many folders: --class_level 2 is too deep"):
        open_image_folder(tmp_path, class_level=2)
    assert open_image_folder(tmp_path).notices == [
        f"{tmp_path} has one class, birds; are the folders in it the classes? --class_level 1"
    ]
    assert open_image_folder(tmp_path, class_level=1).notices == []
    with pytest.raises(UserError, match=r"a.tar is no folder of images: --class_level 1"):
        open_source(tmp_path / "a.tar", class_level=1)


def test_the_parts_of_a_split_data_set_may_be_taken_together_by_the_level_of_their_classes(tmp_path):
    touch(tmp_path, "train/ant/1.png", "val/ant/2.png", "val/bee/3.png")
    assert open_image_folder(tmp_path, class_level=-1).classes == ["ant", "bee"]


# The table and the words


def test_what_is_left_out_is_counted_by_kind_the_most_first():
    broken = [LeftOut(f"{number}.png", "broken link") for number in range(8)]
    other = [LeftOut(f"{number}.xyz", "of unknown format .xyz") for number in range(4)]
    assert counted(other + broken) == "8 broken links, 4 of unknown format .xyz"
    assert counted(broken[:1]) == "1 broken link"
    assert sentence(other[:1], "a/skipped.csv") == "; left out: 1 of unknown format .xyz, see a/skipped.csv"


def test_the_table_reads_back(tmp_path):
    rows = [LeftOut("a, b.png", "broken link"), LeftOut('"c"\n.png', "not decodable", "cut off: at byte 3")]
    write_skipped(tmp_path / "new" / "skipped.csv", rows)
    assert read_skipped(tmp_path / "new" / "skipped.csv") == rows
    assert read_skipped(tmp_path / "none.csv") == []


def test_images_are_read_through_links(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root").mkdir()
    Image.new("RGB", (4, 4), (10, 20, 30)).save(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "root" / "ant").symlink_to(tmp_path / "elsewhere")
    assert open_image_folder(tmp_path / "root").read(0, (2, 3))[:, 0, 0].tolist() == [10, 20, 30]
