"""Data sets with label maps are read in the layouts of their archives, and what is wrong in them is named in a line."""

import shutil

import numpy as np
import pytest
from PIL import Image

import segmentation_layouts as layouts
import tiny
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.segmentation.layouts import open_segmentation

NAMES = ["sky", "grass", "road", "sand", "sea", "snow"]


@pytest.fixture
def folders(tmp_path):
    """Two folders of five images and masks; returns how to open them."""
    layouts.write_folders(tmp_path / "set")

    def opened(**fields):
        fields = {"masks": tmp_path / "set" / "masks", "classes": NAMES, **fields}
        return open_segmentation(tmp_path / "set" / "images", **fields)

    return opened


def refused(call, words):
    with pytest.raises(UserError, match=words) as raised:
        call()
    return tiny.one_line(str(raised.value))


def same_truth(images, truth):
    assert images.keys == list(truth)
    for row, (key, mask) in enumerate(truth.items()):
        pixels, found = images.read_pair(row)
        assert pixels.shape == (*mask.shape, 3), key
        assert found.dtype == np.uint8
        assert np.array_equal(found, mask), key
    return images


# Layouts


@pytest.mark.parametrize("layout", [None, "ade20k"])
def test_ade20k_is_read_with_its_names_and_0_is_ignored(tmp_path, layout):
    truth = layouts.write_ade20k(tmp_path / "ADEChallengeData2016")
    for split, part in (("train", "training"), ("val", "validation"), ("validation", "validation")):
        images = open_segmentation(tmp_path / "ADEChallengeData2016", layout=layout, split=split)
        same_truth(images, {key: mask for key, mask in truth.items() if f"/{part}/" in key})
    assert images.layout == "ade20k"
    assert images.meaning.classes[:4] == ["wall", "building", "sky", "class 4"]
    assert (len(images.meaning.classes), images.meaning.ignore, images.classes) == (150, 255, [])
    assert images.labels.tolist() == [-1] * 5


def test_names_that_share_their_first_word_are_kept_whole(tmp_path):
    layouts.write_ade20k(tmp_path)
    file = tmp_path / "objectInfo150.txt"
    file.write_text(file.read_text().replace("building, edifice", "wall, of another kind"))
    assert open_segmentation(tmp_path).meaning.classes[:3] == ["wall", "wall, of another kind", "sky"]


def test_cityscapes_ids_become_the_19_train_ids(tmp_path):
    truth = layouts.write_cityscapes(tmp_path / "city")
    images = same_truth(open_segmentation(tmp_path / "city"), dict(sorted(truth.items())))
    assert images.layout == "cityscapes"
    assert [images.meaning.numbers[value] for value in (7, 8, 26, 33, 0, 6, 29, 30, 255)] == [0, 1, 13, 18, *[-1] * 5]
    assert (images.meaning.classes[13], images.meaning.classes[18]) == ("car", "bicycle")


def test_voc_reads_the_indices_of_palettes_and_the_images_of_its_list(tmp_path):
    truth = layouts.write_voc(tmp_path / "VOCdevkit" / "VOC2012")
    images = same_truth(open_segmentation(tmp_path), truth)
    assert (images.layout, len(images.meaning.classes), images.meaning.classes[20]) == ("voc", 21, "tvmonitor")
    assert open_segmentation(tmp_path, split="val").keys == [list(truth)[1]]


def test_any_two_folders_are_read_with_a_list_of_names(folders, tmp_path):
    truth = layouts.write_folders(tmp_path / "again")
    assert same_truth(folders(), truth).layout == "folders"


def test_names_are_those_of_the_values_that_are_not_ignored(folders, tmp_path):
    mask = np.array([[0, 1], [2, 6]], np.uint8)
    layouts.write_image(tmp_path / "set" / "images" / "a.png", mask)
    layouts.write_mask(tmp_path / "set" / "masks" / "a.png", mask)
    images = folders(ignore=0)
    row = images.keys.index("a.png")
    assert images.read_pair(row)[1].tolist() == [[255, 0], [1, 5]]


def test_more_than_255_classes_are_read_from_16_bits(folders, tmp_path):
    mask = np.array([[0, 299], [65535, 255]], np.uint16)
    layouts.write_image(tmp_path / "set" / "images" / "a.png", np.zeros((2, 2), np.uint8))
    layouts.write_mask(tmp_path / "set" / "masks" / "a.png", mask)
    images = folders(classes=[f"class {number}" for number in range(300)])
    found = images.read_pair(images.keys.index("a.png"))[1]
    assert (found.dtype, found.tolist()) == (np.uint16, mask.tolist())


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_the_numbers_of_a_png_of_few_bits_are_not_stretched(folders, tmp_path, bits):
    import struct
    import zlib

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    line = {1: 0b10100000, 2: 0b10010000, 4: 0b00100001}[bits]
    lines = bytes([0, line, 0]) if bits == 4 else bytes([0, line])
    header = struct.pack(">IIBBBBB", 3, 1, bits, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    layouts.write_image(tmp_path / "set" / "images" / "a.png", np.zeros((1, 3), np.uint8))
    (tmp_path / "set" / "masks" / "a.png").write_bytes(content)
    images = folders()
    expected = {1: [1, 0, 1], 2: [2, 1, 0], 4: [2, 1, 0]}[bits]
    assert images.read_pair(images.keys.index("a.png"))[1].tolist() == [expected]


# What is wrong with annotations


def first_mask(tmp_path):
    """The annotation of the first image, of 61 x 97 pixels."""
    return tmp_path / "set" / "masks" / "south" / "0.png"


def read(folders):
    images = folders()
    return images.read_pair(images.keys.index("south/0.png"))


def test_a_missing_annotation_is_named_with_its_image_before_anything_is_read(folders, tmp_path):
    first_mask(tmp_path).unlink()
    assert "south/0.png" in refused(folders, r"masks/south/0\.png is missing, the annotation of .*: add it")
    shutil.rmtree(tmp_path / "set" / "masks" / "north")
    refused(folders, "as 2 others are")


def test_an_annotation_of_another_size_names_both(folders, tmp_path):
    layouts.write_mask(first_mask(tmp_path), np.zeros((97, 61), np.uint8))
    refused(lambda: read(folders), r"0\.png is of 61 x 97 pixels, its image .* of 97 x 61")


def test_a_value_outside_the_classes_is_named_with_its_place(folders, tmp_path):
    mask = np.zeros((61, 97), np.uint8)
    mask[7, 50] = 6
    layouts.write_mask(first_mask(tmp_path), mask)
    refused(lambda: read(folders), r"the value 6 \(column 50, line 7\), which is none of the 6 classes nor ignored")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_a_coloured_annotation_is_refused_with_what_to_do(folders, tmp_path, mode):
    Image.new(mode, (97, 61)).save(first_mask(tmp_path))
    refused(lambda: read(folders), f"is a colour picture .mode {mode}.*: convert its colours to numbers")


def test_a_palette_is_refused_outside_of_voc_with_what_to_do(folders, tmp_path):
    layouts.write_mask(first_mask(tmp_path), np.zeros((61, 97), np.uint8), palette=True)
    refused(lambda: read(folders), r"is a PNG with a palette.*--layout voc.*Image\.fromarray\(numpy\.array\(image\)\)")


def test_an_annotation_that_is_cut_off_or_no_png_is_named(folders, tmp_path):
    whole = first_mask(tmp_path).read_bytes()
    for content in (whole[:60], b"", b"no picture"):
        first_mask(tmp_path).write_bytes(content)
        refused(lambda: read(folders), r"south/0\.png can't be read as PNG")


# What is wrong with folders


def test_a_layout_that_can_not_be_told_is_refused_with_what_to_give(tmp_path):
    tiny.make_images(tmp_path / "plain", {"ant": 1})
    refused(lambda: open_segmentation(tmp_path / "plain"), "neither as ADE20K, Cityscapes nor Pascal VOC: give --masks")
    refused(lambda: open_segmentation(tmp_path / "plain", layout="voc"), "no folders JPEGImages and SegmentationClass")
    refused(lambda: open_segmentation(tmp_path / "none"), "not a folder")


def test_what_the_layout_folders_needs_is_named(folders):
    refused(lambda: folders(masks=None, layout="folders"), "needs --masks")
    refused(lambda: folders(classes=None), "needs --mask_classes")


def test_a_part_that_is_not_there_names_those_that_are(tmp_path):
    layouts.write_ade20k(tmp_path / "ade")
    layouts.write_voc(tmp_path / "voc")
    refused(lambda: open_segmentation(tmp_path / "ade", split="test"), "choose --split among training, validation")
    refused(lambda: open_segmentation(tmp_path / "voc", split="test"), "choose --split among train, val")


def test_a_list_that_names_a_missing_image_is_refused(tmp_path):
    layouts.write_voc(tmp_path)
    (tmp_path / "JPEGImages" / "2007_000001.jpg").unlink()
    refused(
        lambda: open_segmentation(tmp_path), r"2007_000001\.jpg is missing, which ImageSets/Segmentation/train\.txt"
    )


def test_the_names_of_ade20k_must_be_there(tmp_path):
    layouts.write_ade20k(tmp_path)
    (tmp_path / "objectInfo150.txt").unlink()
    refused(lambda: open_segmentation(tmp_path), "objectInfo150.txt is missing.*or give --mask_classes")
    assert open_segmentation(tmp_path, classes=["a", "b", "c", "d", "e", "f"]).meaning.classes == list("abcdef")
