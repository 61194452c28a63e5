"""Images kept as JPEGs: of which form, within how many bytes, and that they are read back as they were written."""

import io

import numpy as np
import pyarrow as pa
import pytest
from einops import rearrange
from PIL import Image

import tiny
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import read_json
from seitpp.tokenizers.sources.decoding.jpeg import to_jpeg
from seitpp.tokenizers.sources.images import open_image_folder
from seitpp.tokenizers.sources.jpegs.jpeg_file import JpegImages, has_jpegs, write_jpegs
from seitpp.tokenizers.sources.jpegs.storage import QUALITIES, Encoder, JpegForm, choose_form, forms_of
from seitpp.tokenizers.sources.scaled import ScaledImages

PLAIN = JpegForm(quality=75)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """9 + 6 images of 16 x 24 pixels."""
    folder = tiny.make_images(tmp_path_factory.mktemp("jpegs") / "images", {"ant": 9, "bee": 6}, seed=4)
    return Encoder(open_image_folder(folder), tiny.IMAGE_SIZE)


def cost(encoder, row, form=PLAIN):
    """Bytes of one image by hand: the JPEG's and the key's, 4 each for their offsets, 4 for the label."""
    return len(encoder.encode(row, form)) + len(encoder.images.keys[row].encode()) + 12


def write(folder, encoder, budget, form=PLAIN, ranked=None):
    ranked = np.arange(len(encoder.images)) if ranked is None else ranked
    write_jpegs(folder, encoder, ranked, encoder.images.labels, encoder.images.classes, form, budget)
    return JpegImages(folder)


@pytest.mark.parametrize(
    ("storage", "first", "last", "count"),
    [
        ("jpeg75", JpegForm(quality=75), JpegForm(quality=75), 1),
        ("jpeg9_side12", JpegForm(quality=9, side=12), JpegForm(quality=9, side=12), 1),
        ("jpeg_fit", JpegForm(quality=95), JpegForm(quality=1), len(QUALITIES)),
        ("jpeg60_side_fit", JpegForm(quality=60, side=16), JpegForm(quality=60, side=2), 8),
    ],
)
def test_a_name_says_which_forms_there_are_the_best_first(storage, first, last, count):
    forms = forms_of(storage, (16, 24))
    assert (forms[0], forms[-1], len(forms)) == (first, last, count)


@pytest.mark.parametrize("storage", ["png", "jpeg", "jpeg0", "jpeg96", "jpeg75_fit", "jpeg75_side0", "jpeg75_side", ""])
def test_another_name_is_refused(storage):
    with pytest.raises(UserError, match=f"'{storage}'"):
        forms_of(storage, (16, 24))


@pytest.mark.parametrize(
    ("side", "size"), [(None, (16, 24)), (8, (8, 12)), (16, (16, 24)), (40, (16, 24)), (5, (5, 8))]
)
def test_the_shorter_side_is_scaled_down_and_never_up(side, size):
    assert JpegForm(quality=75, side=side).size((16, 24)) == size


@pytest.mark.parametrize("images", [1, 4, 14])
@pytest.mark.parametrize("spare", [0, 1])
def test_as_many_as_fit_are_kept_in_the_order_given_and_the_budget_too(tmp_path, encoder, images, spare):
    ranked = np.array([8, 2, 14, 0, 11, 5, 1, 13, 3, 9, 4, 12, 6, 10, 7])
    costs = [cost(encoder, row) for row in ranked]
    budget = sum(costs[:images]) + spare * (costs[images] - 1)
    found = write(tmp_path, encoder, budget, ranked=ranked)
    assert found.keys == [encoder.images.keys[row] for row in ranked[:images]]
    assert sum(read_json(tmp_path / "jpegs.json")["content"].values()) == sum(costs[:images]) <= budget


def test_bytes_are_those_of_the_files_on_disk(tmp_path, encoder):
    write(tmp_path, encoder, None)
    described = read_json(tmp_path / "jpegs.json")
    table = pa.ipc.open_file(tmp_path / "jpegs.arrow").read_all().to_pylist()
    assert described["content"] == {
        "jpeg": sum(len(row["jpeg"]) + 4 for row in table), "label": 4 * 15,
        "key": sum(len(row["key"]) + 4 for row in table),
    }  # fmt: skip
    assert described["bytes"] == (tmp_path / "jpegs.arrow").stat().st_size
    assert 0 < described["bytes"] - sum(described["content"].values()) < 2000  # what Arrow adds


def test_images_come_back_as_their_jpegs_decode_with_labels_and_keys(tmp_path, encoder):
    found = write(tmp_path, encoder, None)
    assert (found.keys, found.classes) == (encoder.images.keys, ["ant", "bee"])
    assert found.labels.tolist() == [0] * 9 + [1] * 6
    for row in (0, 14):
        jpeg = to_jpeg(encoder.images.read(row, (16, 24)), 75, optimize=True)
        assert found.jpeg(row) == jpeg
        expected = np.asarray(Image.open(io.BytesIO(jpeg)))
        np.testing.assert_array_equal(rearrange(found.read(row, (16, 24)), "c h w -> h w c"), expected)


def test_images_kept_small_are_read_large(tmp_path, encoder):
    found = write(tmp_path, encoder, None, JpegForm(quality=75, side=8))
    assert found.described["size"] == [8, 12]
    assert Image.open(io.BytesIO(found.jpeg(3))).size == (12, 8)
    assert found.read(3, (16, 24)).shape == (3, 16, 24)


def test_many_images_lie_in_several_record_batches(tmp_path, encoder):
    ranked = np.resize(np.arange(15), 600)
    found = write(tmp_path, encoder, None, ranked=ranked)
    assert len(found) == 600
    for place in (0, 255, 256, 511, 512, 599):
        assert found.jpeg(place) == encoder.encode(int(ranked[place]), PLAIN)


@pytest.mark.parametrize("quality", [95, 45, 5])
def test_the_quality_is_the_best_at_which_all_images_fit(encoder, quality):
    ranked = np.arange(15)
    total = sum(cost(encoder, row, JpegForm(quality=quality)) for row in ranked)
    assert choose_form("jpeg_fit", encoder, ranked, total) == JpegForm(quality=quality)
    assert choose_form("jpeg_fit", encoder, ranked, 1) == JpegForm(quality=1)
    assert choose_form("jpeg_fit", encoder, ranked, None) == JpegForm(quality=95)


def test_the_side_is_the_largest_at_which_all_images_fit(encoder):
    ranked = np.arange(15)
    total = sum(cost(encoder, row, JpegForm(quality=75, side=10)) for row in ranked)
    assert choose_form("jpeg75_side_fit", encoder, ranked, total) == JpegForm(quality=75, side=10)


def test_not_even_one_image_is_one_line_and_leaves_nothing(tmp_path, encoder):
    with pytest.raises(UserError, match=r"not one image fits into 50 bytes as a JPEG: allow more$"):
        write(tmp_path / "store", encoder, 50)
    assert not has_jpegs(tmp_path / "store")
    assert not list(tmp_path.rglob("*.arrow"))


def test_a_broken_image_is_named(tmp_path):
    folder = tiny.make_images(tmp_path / "images", {"ant": 2})
    (folder / "ant" / "001.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"ant/001\.png can't be decoded .*: mend it or remove it"):
        write(tmp_path / "store", Encoder(open_image_folder(folder), tiny.IMAGE_SIZE), None)


@pytest.mark.parametrize("fault", ["cut", "gone", "another"])
def test_a_damaged_file_is_one_line_that_says_what_to_do(tmp_path, encoder, fault):
    write(tmp_path, encoder, None)
    file = tmp_path / "jpegs.arrow"
    if fault == "gone":
        file.unlink()
    elif fault == "cut":
        file.write_bytes(file.read_bytes()[:900])
    else:
        content = file.read_bytes()
        write(tmp_path / "other", encoder, 3000)
        file.write_bytes((tmp_path / "other" / "jpegs.arrow").read_bytes())
        assert file.read_bytes() != content
    with pytest.raises(UserError, match=r"jpegs\.arrow is .*: run the command that made it again") as caught:
        JpegImages(tmp_path)
    assert "\n" not in str(caught.value)


def test_scaled_images_go_down_and_up_again(encoder):
    scaled = ScaledImages(encoder.images, (8, 12))
    with Image.open(encoder.images.folder / encoder.images.keys[5]) as image:
        small = image.convert("RGB").resize((12, 8), Image.Resampling.BICUBIC)
    expected = np.asarray(small.resize((24, 16), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(rearrange(scaled.read(5, (16, 24)), "c h w -> h w c"), expected)
    assert (len(scaled), scaled.keys, scaled.classes) == (15, encoder.images.keys, ["ant", "bee"])
