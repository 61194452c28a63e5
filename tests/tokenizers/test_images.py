"""Images: any file that Pillow reads becomes RGB pixels of one size; folders have labels."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from seitpp.runtime.errors import UserError
from seitpp.runtime.pictures import image_grid
from seitpp.tokenizers.sources.images import (
    ImageBatches,
    open_image_folder,
    read_all,
    read_rows,
    say_left_out,
    split_rows,
)
from seitpp.tokenizers.sources.pixels import BrokenImage, quiet_decoding, read_image
from seitpp.tokenizers.sources.tolerant_reader import TolerantReader


def save(folder, name, pixels, mode=None, **options):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def flat(*colour, size=(6, 10)):
    """An image of one colour, (height, width) pixels."""
    return np.full((*size, len(colour)), colour, np.uint8) if len(colour) > 1 else np.full(size, colour[0], np.uint8)


def all_pixels(path, size=(6, 10)):
    """The one colour of an image after reading; it must have no other."""
    pixels = read_image(path, size)
    assert pixels.shape == (3, *size)
    assert pixels.dtype == np.uint8
    colours = {tuple(colour) for colour in pixels.reshape(3, -1).T.tolist()}
    assert len(colours) == 1
    return colours.pop()


# One image


def test_rgb_is_read_as_it_is(tmp_path):
    assert all_pixels(save(tmp_path, "a.png", flat(10, 20, 30))) == (10, 20, 30)


def test_grey_becomes_three_equal_channels(tmp_path):
    assert all_pixels(save(tmp_path, "a.png", flat(77))) == (77, 77, 77)


def test_black_and_white_becomes_black_and_white(tmp_path):
    assert all_pixels(save(tmp_path, "a.png", flat(255), mode="1")) == (255, 255, 255)


@pytest.mark.parametrize(("alpha", "colour"), [(255, (10, 20, 30)), (0, (255, 255, 255)), (51, (206, 208, 210))])
def test_transparency_lies_on_white(tmp_path, alpha, colour):
    assert all_pixels(save(tmp_path, "a.png", flat(10, 20, 30, alpha))) == colour


def test_grey_with_transparency_lies_on_white(tmp_path):
    assert all_pixels(save(tmp_path, "a.png", flat(0, 0, 0, 0), mode="LA")) == (255, 255, 255)


def test_a_palette_gives_its_colours(tmp_path):
    palette = Image.fromarray(flat(1)).convert("P")
    palette.putpalette([0, 0, 0, 9, 8, 7])
    assert all_pixels(save(tmp_path, "a.png", palette)) == (9, 8, 7)


def test_a_palettes_transparent_colour_is_white(tmp_path):
    palette = Image.fromarray(flat(1)).convert("P")
    palette.putpalette([0, 0, 0, 9, 8, 7])
    assert all_pixels(save(tmp_path, "a.png", palette, transparency=1)) == (255, 255, 255)


@pytest.mark.parametrize(("mode", "colour"), [("RGB", (9, 8, 7)), ("L", 9)])
def test_a_transparent_colour_of_a_png_without_alpha_is_white(tmp_path, mode, colour):
    path = save(tmp_path, "a.png", Image.new(mode, (10, 6), colour), transparency=colour)
    assert all_pixels(path) == (255, 255, 255)


@pytest.mark.parametrize(("level", "grey"), [(0, 0), (257 * 90, 90), (65535, 255)])
def test_sixteen_bit_greys_are_scaled_not_clipped(tmp_path, level, grey):
    image = Image.fromarray(np.full((6, 10), level, np.uint16))
    assert image.mode == "I;16"
    assert all_pixels(save(tmp_path, "a.png", image)) == (grey, grey, grey)


def test_cmyk_is_converted(tmp_path):
    path = save(tmp_path, "a.jpg", Image.new("CMYK", (10, 6), (0, 255, 255, 0)))
    red, green, blue = all_pixels(path)
    assert red > 150 > green
    assert blue < 100


def test_an_image_of_one_pixel_fills_the_frame(tmp_path):
    assert all_pixels(save(tmp_path, "a.png", flat(10, 20, 30, size=(1, 1)))) == (10, 20, 30)


def test_the_short_side_fits_and_the_centre_is_kept(tmp_path):
    pixels = np.zeros((6, 40, 3), np.uint8)
    pixels[:, 15:25] = (200, 100, 50)
    assert all_pixels(save(tmp_path, "wide.png", pixels)) == (200, 100, 50)
    pixels = np.zeros((40, 10, 3), np.uint8)
    pixels[17:23] = (200, 100, 50)
    assert all_pixels(save(tmp_path, "tall.png", pixels)) == (200, 100, 50)


def test_an_image_of_the_right_size_is_not_resampled(tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(6, 10, 3), dtype=np.uint8)
    assert read_image(save(tmp_path, "a.png", pixels), (6, 10)).tolist() == pixels.transpose(2, 0, 1).tolist()


def test_a_camera_held_sideways_gives_upright_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(6, 10, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    path = save(tmp_path, "a.png", pixels, exif=exif)
    assert read_image(path, (10, 6)).tolist() == np.rot90(pixels, -1).transpose(2, 0, 1).tolist()


def test_a_large_jpeg_may_be_decoded_at_a_fraction_of_its_size(tmp_path):
    noise = np.random.default_rng(0).integers(256, size=(96, 160, 3), dtype=np.uint8)
    for suffix, same in ((".jpg", False), (".png", True)):
        path = save(tmp_path, f"a{suffix}", noise)
        whole, reduced = read_image(path, (6, 10)), read_image(path, (6, 10), reduced=True)
        assert reduced.shape == (3, 6, 10)
        assert np.array_equal(whole, reduced) == same
        assert np.abs(whole.astype(int) - reduced).max() < 25  # the noise is of 0 to 255


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (10, 6), (0, 0, 40 * index)) for index in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert all_pixels(tmp_path / "a.gif") == (0, 0, 0)


def test_an_extremely_long_image_gives_its_middle_without_being_resized_as_a_whole(tmp_path):
    pixels = np.zeros((1, 60001, 3), np.uint8)
    pixels[:, 29000:31000] = (200, 100, 50)
    assert all_pixels(save(tmp_path, "wide.png", pixels), (256, 256)) == (200, 100, 50)
    assert all_pixels(save(tmp_path, "tall.png", pixels.transpose(1, 0, 2)), (256, 256)) == (200, 100, 50)


def test_an_image_at_the_limit_of_length_is_not_cut(tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(2, 64, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    expected = np.asarray(image.resize((128, 4), Image.Resampling.BICUBIC))[:, 62:66].transpose(2, 0, 1)
    assert read_image(save(tmp_path, "a.png", image), (4, 4)).tolist() == expected.tolist()


def test_broken_exif_leaves_the_pixels_as_they_are(tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(6, 10, 3), dtype=np.uint8)
    for number, exif in enumerate(
        (b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nonsense", b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12")
    ):
        path = save(tmp_path, f"{number}.png", pixels, exif=exif)
        with quiet_decoding():
            assert read_image(path, (6, 10)).tolist() == pixels.transpose(2, 0, 1).tolist()


def test_an_image_so_large_that_it_may_be_an_attack_is_refused(tmp_path):
    path = save(tmp_path, "a.png", Image.new("1", (14000, 14000)))
    assert path.stat().st_size < 100_000
    with quiet_decoding(), pytest.raises(BrokenImage, match="exceeds limit"):
        read_image(path, (6, 10))


def test_a_large_image_is_read_without_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = save(tmp_path, "ant/a.png", flat(10, 20, 30, size=(12, 12)))
    with pytest.warns(Image.DecompressionBombWarning):
        read_image(path, (6, 10))
    read_all(open_image_folder(tmp_path), [0], (6, 10))


def broken_files(folder):
    """Files that are no images, each in another way."""
    jpeg = save(folder, "whole.jpg", np.random.default_rng(0).integers(256, size=(60, 60, 3), dtype=np.uint8))
    content = jpeg.read_bytes()
    jpeg.unlink()
    (folder / "text.jpg").write_text("no image at all")
    (folder / "empty.png").write_bytes(b"")
    (folder / "cut.jpg").write_bytes(content[: len(content) // 2])
    (folder / "head.jpg").write_bytes(content[:30])
    (folder / "png.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    return sorted(folder.iterdir())


def test_what_is_no_image_raises_an_error_of_decoding_that_names_no_place(tmp_path):
    for path in broken_files(tmp_path):
        for file in (path, io.BytesIO(path.read_bytes())):
            with pytest.raises(BrokenImage) as error:
                read_image(file, (6, 10))
            assert str(error.value)
            assert str(tmp_path) not in str(error.value)
            assert " at 0x" not in str(error.value)


# A folder


def test_labels_are_indices_of_sorted_class_folders_and_minus_one_at_the_root(tmp_path):
    for name in ("zoo/b.png", "ant/sub/a.PNG", "ant/z.jpg", "root.png"):
        save(tmp_path, name, flat(9, 9, 9))
    (tmp_path / "ant" / "notes.txt").write_text("no image")
    folder = open_image_folder(tmp_path)
    assert folder.keys == ["ant/sub/a.PNG", "ant/z.jpg", "root.png", "zoo/b.png"]
    assert folder.labels.tolist() == [0, 0, -1, 1]
    assert folder.classes == ["ant", "zoo"]
    assert len(folder) == 4


def test_class_names_of_another_folder_keep_their_indices(tmp_path):
    save(tmp_path, "cow/a.png", flat(9, 9, 9))
    folder = open_image_folder(tmp_path, classes=["ant", "bee", "cow"])
    assert folder.labels.tolist() == [2]
    assert folder.classes == ["ant", "bee", "cow"]
    with pytest.raises(UserError, match="'cow' that the classifier lacks"):
        open_image_folder(tmp_path, classes=["ant", "bee"])


@pytest.mark.parametrize("what", ["missing", "empty", "a file"])
def test_a_folder_without_images_is_refused(tmp_path, what):
    path = tmp_path / "images"
    if what == "empty":
        (path / "ant").mkdir(parents=True)
    elif what == "a file":
        path.write_text("")
    with pytest.raises(UserError, match=r"images (is not a folder of images|holds no images)"):
        open_image_folder(path)


def test_a_broken_image_is_named(tmp_path):
    path = save(tmp_path, "ant/a.png", flat(9, 9, 9))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match=r"ant/a\.png can't be decoded.*remove or mend it"):
        read_all(open_image_folder(tmp_path), [0], (6, 10))


def test_all_pixels_come_in_the_order_asked_for(images):
    folder = open_image_folder(images)
    pixels = read_all(folder, [29, 0, 4], tiny.IMAGE_SIZE)
    assert pixels.dtype == torch.float32
    for row, image in zip([29, 0, 4], pixels, strict=True):
        expected = read_image(images / folder.keys[row], tiny.IMAGE_SIZE) / np.float32(255)
        assert image.numpy() == pytest.approx(expected, abs=1e-6)


# Batches


def test_an_epoch_of_images_visits_every_row_once_divided_among_ranks(images):
    folder, rows = open_image_folder(images), np.arange(3, 27)
    reader = TolerantReader(folder, tiny.IMAGE_SIZE)
    whole = ImageBatches(reader, rows, 12, seed=4)
    parts = [ImageBatches(reader, rows, 3, seed=4, accum_iter=2, rank=rank, world_size=2) for rank in (0, 1)]
    by_row = read_all(folder, rows, tiny.IMAGE_SIZE)
    for epoch in range(2):
        seen = []
        for step in (2 * epoch, 2 * epoch + 1):
            pixels, positions = whole(step)
            assert positions.tolist() == list(range(12))
            divided = {}
            for part in parts:
                for micro in (0, 1):
                    some, places = part(step, micro)
                    divided |= dict(zip(places.tolist(), some, strict=True))
            assert torch.equal(torch.stack([divided[place] for place in range(12)]), pixels)
            seen += [int((by_row - image).abs().sum((1, 2, 3)).argmin()) for image in pixels]
        assert sorted(seen) == list(range(24))


def test_batches_are_the_same_with_and_without_a_cache(images):
    reader = TolerantReader(open_image_folder(images), tiny.IMAGE_SIZE)
    kept = ImageBatches(reader, np.arange(10), 4, seed=0)
    read = ImageBatches(reader, np.arange(10), 4, seed=0, cache_bytes=0)
    for step in (0, 1, 2, 1):
        assert torch.equal(kept(step)[0], read(step)[0])


@pytest.fixture
def with_broken_ones(tmp_path):
    """A folder of 20 images, of which numbers 3 and 4 are cut off."""
    folder = tiny.make_images(tmp_path / "photos", {"ant": 20})
    for number in (3, 4):
        file = folder / "ant" / f"{number:03d}.png"
        file.write_bytes(file.read_bytes()[:50])
    return open_image_folder(folder)


@pytest.mark.parametrize("cache_bytes", [0, 1 << 30])
def test_a_training_goes_on_without_a_few_broken_images_and_names_them(with_broken_ones, cache_bytes, tmp_path, capsys):
    reader = TolerantReader(with_broken_ones, tiny.IMAGE_SIZE, max_skipped=0.1)
    batches = ImageBatches(reader, np.arange(20), 20, seed=0, cache_bytes=cache_bytes)
    chosen, _ = batches.order.at(0, 0)
    whole = read_all(with_broken_ones, [row for row in range(20) if row not in (3, 4)], tiny.IMAGE_SIZE)
    expected = whole[[row if row < 3 else max(row, 5) - 2 for row in chosen]]
    for _ in range(2):
        assert torch.equal(batches(0)[0], expected)
    assert len(read_rows(reader, range(2, 6))) == 2
    say_left_out(tmp_path, reader)
    assert capsys.readouterr().out == f"{tmp_path}: 20 images; left out: 2 not decodable, see {tmp_path}/skipped.csv\n"
    assert "ant/004.png,not decodable: " in (tmp_path / "skipped.csv").read_text()


def test_more_broken_images_than_allowed_end_the_training_with_the_last_ones_name(with_broken_ones):
    for max_skipped, words in (
        (None, r"3\.png .*: remove or mend it$"),
        (0.05, r"4\.png .*, as 1 before it: .*--max_skipped$"),
    ):
        reader = TolerantReader(with_broken_ones, tiny.IMAGE_SIZE, max_skipped=max_skipped)
        with pytest.raises(UserError, match=words):
            [reader.read(row) for row in range(20)]
    with pytest.raises(UserError, match="and the others can't be decoded"):
        read_rows(TolerantReader(with_broken_ones, tiny.IMAGE_SIZE, max_skipped=1.0), [3, 4])
    reader = TolerantReader(with_broken_ones, tiny.IMAGE_SIZE, max_skipped=1.0)
    with pytest.raises(UserError, match="and the others can't be decoded"):
        ImageBatches(reader, np.array([3, 4]), 2, seed=0)(0)


@pytest.mark.parametrize(("count", "share", "held"), [(30, 0.2, 6), (30, 0.01, 1), (2, 0.9, 1), (7, 0.99, 6)])
def test_held_out_images_are_a_share_and_none_is_on_both_sides(count, share, held):
    train, held_out = split_rows(count, share, seed=3)
    assert len(held_out) == held
    assert sorted([*train, *held_out]) == list(range(count))


# Pictures


def test_a_picture_puts_rows_of_images_side_by_side(tmp_path):
    rows = [torch.rand(3, 3, 2, 4) for _ in range(2)]
    image_grid(rows, tmp_path / "grid.png", gap=1)
    with Image.open(tmp_path / "grid.png") as image:
        pixels = np.asarray(image)
    assert pixels.shape == (2 * 2 + 1, 3 * 4 + 2, 3)
    for row in range(2):
        for column in range(3):
            cell = pixels[3 * row : 3 * row + 2, 5 * column : 5 * column + 4]
            assert np.abs(cell / 255 - rows[row][column].permute(1, 2, 0).numpy()).max() < 0.003
    assert (pixels[2] == 255).all()
    assert (pixels[:, 4] == 255).all()
