"""Decoding: which formats, no program started, depth and transparency, sizes; what is broken is the image's fault."""

import errno
import io
import logging
import struct
import subprocess
import sys
import tarfile
import zlib

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

import tiny
from seitpp.demo.image_split import prepare_folder
from seitpp.finetune.probing.features import pixels as pixel_features
from seitpp.report.picture_rows import picture_rows
from seitpp.report.storage import storage_table
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.decoding.formats import readable_formats
from seitpp.tokenizers.sources.decoding.resize import RESIZES
from seitpp.tokenizers.sources.given import GivenImages
from seitpp.tokenizers.sources.images import ImageBatches, open_image_folder, read_all
from seitpp.tokenizers.sources.pixels import BrokenImage, image_faults, quiet_decoding, read_image
from seitpp.tokenizers.sources.source import open_source
from seitpp.tokenizers.sources.tolerant_reader import TolerantReader
from seitpp.tokenizers.tokenize import TokenizeConfig
from seitpp.tokenizers.tokenize import main as tokenize
from seitpp.tokenizers.tokenize_images import tokenize_images
from seitpp.tokens.store import open_store

SIZE = (6, 10)
EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 20 20
%%EndComments
0 0 20 20 rectfill showpage
%%EOF
"""


def encoded(image, kind, **options):
    """Bytes of an image, of an array too."""
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def only_colour(content, size=SIZE):
    """The one colour of encoded bytes after reading."""
    pixels = read_image(io.BytesIO(content), size)
    colours = {tuple(colour) for colour in pixels.reshape(3, -1).T.tolist()}
    assert len(colours) == 1
    return colours.pop()


def make_png(bits, kind, value, transparent):
    """A PNG of 8 x 8 equal pixels with a transparent colour; Pillow writes none below 8 bits or with 16."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    samples = value if isinstance(value, tuple) else (value,)
    line = "".join(f"{sample:0{bits}b}" for sample in samples) * 8
    lines = (b"\0" + int(line, 2).to_bytes(len(line) // 8, "big")) * 8
    colour = struct.pack(f">{len(samples)}H", *(transparent if isinstance(transparent, tuple) else (transparent,)))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, bits, kind, 0, 0, 0))
        + chunk(b"tRNS", colour) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    )  # fmt: skip


# Formats


@pytest.mark.parametrize(
    ("kind", "mode"), [("PNG", "RGB"), ("JPEG", "RGB"), ("WEBP", "RGB"), ("AVIF", "RGB"), ("JPEG2000", "RGB"),
                       ("GIF", "RGB"), ("TIFF", "RGB"), ("BMP", "RGB"), ("PPM", "RGB"), ("PPM", "L"), ("QOI", "RGB"),
                       ("MPO", "RGB"), ("TGA", "RGB"), ("SGI", "RGB"), ("PCX", "RGB"), ("DDS", "RGB"), ("ICO", "RGBA")]
)  # fmt: skip
def test_formats_are_told_by_their_content_whatever_the_ending(tmp_path, kind, mode):
    if kind not in (*readable_formats(), "MPO"):
        pytest.skip(f"this Pillow lacks {kind}")
    (tmp_path / "a.png").write_bytes(encoded(Image.new("RGB", (32, 32), (80, 160, 240)).convert(mode), kind))
    colour = (80, 160, 240) if mode != "L" else (145,) * 3
    assert np.abs(read_image(tmp_path / "a.png", SIZE).mean((1, 2)) - colour).max() < 4


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """A folder that holds a `gs` which leaves a file there when it is started; first in PATH."""
    spy = tmp_path / "bin" / "gs"
    spy.parent.mkdir()
    spy.write_text(f"#!/bin/sh\necho \"$@\" >> '{spy.parent}/started'\nexit 1\n")
    spy.chmod(0o755)
    monkeypatch.setenv("PATH", f"{spy.parent}:/usr/bin:/bin")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    return spy.parent / "started"


def test_the_spy_sees_pillow_start_ghostscript(ghostscript):
    with pytest.raises(Exception, match="gs"), Image.open(io.BytesIO(EPS)) as image:
        image.load()
    assert ghostscript.exists()


def photos(folder, content, broken=1):
    """Class folders of good images and of files named .png that hold `content`."""
    tiny.make_images(folder, {"ant": 12, "bee": 12})
    for number in range(broken):
        (folder / "bee" / f"x{number}.png").write_bytes(content)
    return folder


def store_of(images, tmp_path, tokenizer_folder, **fields):
    config = TokenizeConfig(
        images=str(images), tokenizer=str(tokenizer_folder), output_dir=str(tmp_path / "store"), **fields
    )
    tokenize(config)
    return open_store(config.output_dir)


def test_tokenising_starts_no_program(tmp_path, tokenizer_folder, ghostscript):
    """Of folders; for tars, lists and data sets see below."""
    store = store_of(photos(tmp_path / "photos", EPS), tmp_path, tokenizer_folder, max_skipped=0.5)
    assert len(store) == 24
    assert "x0.png,not decodable: it is no image of a format that is read" in (store.folder / "skipped.csv").read_text()
    assert not ghostscript.exists()


def test_no_source_starts_a_program(tmp_path, tokenizer_folder, ghostscript):
    folder = photos(tmp_path / "photos" / "train", EPS)
    place = folder / "bee" / "x0.png"
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(place, arcname="bee/x0.png")
    sources = [
        open_source(tmp_path / "a.tar"), GivenImages([place]),
        open_image_folder(folder), open_source("torch/image_folder", split="train", root=str(tmp_path / "photos")),
    ]  # fmt: skip
    for source in sources:
        index = next(row for row, key in enumerate(source.keys) if key.endswith("x0.png"))
        with pytest.raises(BrokenImage, match="no image of a format"):
            source.read(index, SIZE)
        with pytest.raises(UserError, match=r"x0\.png can't be decoded"):
            read_all(source, [index], SIZE)
        with pytest.raises(UserError, match=r"x0\.png can't be decoded"):
            ImageBatches(TolerantReader(source, SIZE), np.array([index]), 1, seed=0)(0)
    with pytest.raises(UserError, match=r"x0\.png can't be decoded"):
        tokenize_images([place], tokenizer_folder)
    assert not ghostscript.exists()


def test_a_hugging_face_row_starts_no_program(ghostscript):
    datasets = pytest.importorskip("datasets")
    from seitpp.tokenizers.sources.timm_images import from_hugging_face

    features = datasets.Features({"image": datasets.Image()})
    source = from_hugging_face(datasets.Dataset.from_dict({"image": [{"bytes": EPS, "path": None}]}, features=features))
    with pytest.raises(BrokenImage, match="no image of a format"):
        source.read(0, SIZE)
    assert not ghostscript.exists()


def test_the_demo_the_probe_of_pixels_and_the_report_start_no_program(tmp_path, tokenizer_folder, ghostscript):
    folder = photos(tmp_path / "photos", EPS)
    said = prepare_folder(folder, tmp_path / "images", size=16)
    assert said == "1 not decodable"
    store = store_of(folder, tmp_path, tokenizer_folder, max_skipped=0.5)
    (folder / "ant" / "000.png").write_bytes(EPS)
    with pytest.raises(UserError, match=r"ant/000\.png can't be decoded"):
        pixel_features(folder, store).make(np.arange(len(store)))
    with pytest.raises(UserError, match=r"ant/000\.png can't be decoded"):
        storage_table([store.folder], folder)
    (tmp_path / "reconstructions.png").write_bytes(EPS)
    with pytest.raises(UserError, match=r"reconstructions\.png"):
        picture_rows(tmp_path, "reconstructions.png")
    assert not ghostscript.exists()


# What is broken


class Decoder:
    """A decoder that raises an error of its own."""

    def __init__(self, error):
        self.error = error

    def load(self):
        raise self.error


@pytest.mark.parametrize(
    "error", [RuntimeError("Failed to decode\nimage"), KeyError("x"), OSError("cut off"), RecursionError(), Exception(),
              OSError(errno.EINVAL, "Invalid argument"), UnicodeDecodeError("ascii", b"x", 0, 1, "no")]
)  # fmt: skip
def test_whatever_a_decoder_raises_is_the_images_fault_in_one_line(error):
    with pytest.raises(BrokenImage) as broken, image_faults():
        Decoder(error).load()
    assert tiny.one_line(str(broken.value))


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "Input/output error"), OSError(errno.ESTALE, "Stale file handle"), MemoryError(),
              UserError("said"), KeyboardInterrupt()]
)  # fmt: skip
def test_what_the_disk_or_the_user_does_is_not_the_images_fault(error):
    with pytest.raises(type(error)) as raised, image_faults():
        Decoder(error).load()
    assert raised.value is error


def test_a_spoilt_avif_named_jpg_is_skipped_by_its_name(tmp_path, tokenizer_folder):
    if "AVIF" not in readable_formats():
        pytest.skip("this Pillow lacks AVIF")
    noise = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    whole = encoded(noise, "AVIF")
    start = whole.index(b"mdat") + 4
    spoilt = whole[:start] + bytes(len(whole) - start)
    with pytest.raises(RuntimeError), Image.open(io.BytesIO(spoilt)) as image:  # what Pillow makes of it
        image.load()
    folder = photos(tmp_path / "photos", spoilt)
    (folder / "bee" / "x0.png").rename(folder / "bee" / "x0.jpg")
    store = store_of(folder, tmp_path, tokenizer_folder, max_skipped=0.5)
    assert len(store) == 24
    assert "bee/x0.jpg," in (store.folder / "skipped.csv").read_text()


def test_an_image_that_needs_too_much_memory_ends_the_job_with_its_name(tmp_path, tokenizer_folder, monkeypatch):
    monkeypatch.setattr(Image.Image, "crop", lambda *_: (_ for _ in ()).throw(MemoryError()))
    folder = photos(tmp_path / "photos", b"", broken=0)
    with pytest.raises(UserError, match=r"ant/000\.png needs more memory than there is"):
        store_of(folder, tmp_path, tokenizer_folder)


def test_pillow_and_libtiff_say_nothing_to_the_user(tmp_path):
    """In a process of its own, as libtiff writes past Python."""
    whole = encoded(np.random.default_rng(0).integers(256, size=(20, 20, 3), dtype=np.uint8), "TIFF",
                    compression="tiff_deflate")  # fmt: skip
    (tmp_path / "spoilt.tif").write_bytes(whole[:30] + bytes(40) + whole[70:])
    entry = struct.pack("<HHII", 0x115, 3, 1, 9)  # samples per pixel: 9
    place = whole.index(struct.pack("<HH", 0x115, 3))
    (tmp_path / "nine.tif").write_bytes(whole[:place] + entry + whole[place + 12 :])
    Image.new("1", (9500, 9500)).save(tmp_path / "large.png")
    code = f"""
import logging, warnings
from seitpp.tokenizers.sources.pixels import BrokenImage, quiet_decoding, read_image
with quiet_decoding():
    for name in ("spoilt.tif", "nine.tif", "large.png"):
        try:
            read_image({str(tmp_path)!r} + "/" + name, (4, 4))
        except BrokenImage as error:
            print(name, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tiny.ROOT)
    assert done.stderr == ""
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["spoilt.tif", "nine.tif"]


def test_quiet_decoding_leaves_logging_as_it_was():
    level = logging.getLogger("PIL").level
    with quiet_decoding():
        assert not logging.getLogger("PIL.TiffImagePlugin").isEnabledFor(logging.ERROR)
    assert logging.getLogger("PIL").level == level


# Depth


@pytest.mark.parametrize(
    ("values", "grey"), [((0.0, 1.0), (0, 255)), ((0.25, 0.75), (64, 191)), ((0.0, 255.0), (0, 255)),
                         ((64.0, 191.0), (64, 191)), ((0.0, 65535.0), (0, 255)), ((np.nan, 1.0), (0, 255)),
                         ((-0.01, 1.05), (0, 255))]
)  # fmt: skip
def test_floats_are_scaled_by_the_range_that_holds_them(values, grey):
    pixels = np.repeat(np.repeat(np.array([values], np.float32), 3, 0), 3, 1)
    read = read_image(io.BytesIO(encoded(pixels, "TIFF")), (3, 6))
    assert read[:, 0, [0, 5]].tolist() == [list(grey)] * 3


@pytest.mark.parametrize("values", [(-1.0, 1.0), (0.0, 1.7), (0.0, 1e6), (0.0, np.inf)])
def test_floats_of_an_unknown_range_are_broken_and_said(values):
    with pytest.raises(BrokenImage, match=r"its floats run from .* to .*, expected 0 to 1"):
        read_image(io.BytesIO(encoded(np.array([values], np.float32), "TIFF")), (1, 2))


def test_greys_beyond_16_bits_are_broken_and_said():
    with pytest.raises(BrokenImage, match="its greys run from 0 to 70000"):
        read_image(io.BytesIO(encoded(np.array([[0, 70000]], np.int32), "TIFF")), (1, 2))


@pytest.mark.parametrize(
    ("bits", "value", "seen"), [(1, 0, 0), (1, 1, 255), (2, 1, 85), (2, 3, 255), (4, 7, 119), (8, 9, 9),
                                (16, 257 * 9, 9), (16, 65535, 255)]
)  # fmt: skip
def test_a_transparent_grey_of_any_depth_is_white_and_others_are_not(bits, value, seen):
    assert only_colour(make_png(bits, 0, value, value)) == (255, 255, 255)
    assert only_colour(make_png(bits, 0, value, 1 - value if bits == 1 else value - 1)) == (seen,) * 3


@pytest.mark.parametrize(("bits", "colour"), [(8, (9, 8, 7)), (16, (257 * 9, 257 * 8 + 5, 257 * 7))])
def test_a_transparent_colour_of_any_depth_is_white_and_others_are_not(bits, colour):
    assert only_colour(make_png(bits, 2, colour, colour)) == (255, 255, 255)
    assert only_colour(make_png(bits, 2, colour, (0, 0, 0))) == (9, 8, 7)


# Sizes


def halves(height, width):
    """Left half red, right half blue, (height, width)."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2], pixels[:, width // 2 :] = (255, 0, 0), (0, 0, 255)
    return encoded(pixels, "PNG")


def columns(pixels):
    """A letter a column of its middle row: r(ed), b(lue), w(hite)."""
    letters = {(255, 0, 0): "r", (0, 0, 255): "b", (255, 255, 255): "w"}
    return "".join(letters.get(tuple(colour), "?") for colour in pixels[:, pixels.shape[1] // 2].T.tolist())


def test_crop_keeps_the_centre_pad_the_whole_and_squash_fills_the_frame():
    read = {resize: read_image(io.BytesIO(halves(8, 32)), (16, 16), resize) for resize in RESIZES}
    assert columns(read["crop"])[:5] + columns(read["crop"])[-5:] == "rrrrrbbbbb"
    assert columns(read["squash"])[:5] + columns(read["squash"])[-5:] == "rrrrrbbbbb"
    assert columns(read["pad"])[:5] + columns(read["pad"])[-5:] == "rrrrrbbbbb"
    white = [bool((read["pad"][:, row] == 255).all()) for row in range(16)]
    assert white == [True] * 6 + [False] * 4 + [True] * 6
    assert not (read["squash"] == 255).all(0).any()


def test_pad_puts_the_border_at_both_sides_of_a_tall_image():
    tall = encoded(np.full((40, 10, 3), (10, 20, 30), np.uint8), "PNG")
    read = read_image(io.BytesIO(tall), (8, 12), "pad")
    assert [bool((read[:, :, column] == 255).all()) for column in range(12)] == [True] * 5 + [False] * 2 + [True] * 5


@pytest.mark.parametrize("resize", RESIZES)
def test_an_image_of_the_right_shape_is_the_same_however_it_is_resized(resize):
    content = encoded(np.random.default_rng(0).integers(256, size=(12, 20, 3), dtype=np.uint8), "PNG")
    assert np.array_equal(read_image(io.BytesIO(content), SIZE, resize), read_image(io.BytesIO(content), SIZE))


@pytest.mark.parametrize("resize", ["pad", "squash"])
@pytest.mark.parametrize("size", [(1, 60001), (60001, 1), (1, 1), (3, 2)])
def test_images_of_any_shape_are_padded_and_squashed(resize, size):
    content = encoded(np.full((*size, 3), (10, 20, 30), np.uint8), "PNG")
    read = read_image(io.BytesIO(content), (16, 24), resize)
    assert read.shape == (3, 16, 24)
    assert (read == np.array([10, 20, 30])[:, None, None]).all(0).any()
    if resize == "squash":
        assert (read == np.array([10, 20, 30])[:, None, None]).all()


def test_squash_is_the_published_preprocessing():
    """A resize of both sides, as torchvision's Resize((256, 256), BICUBIC) does on an image of Pillow's."""
    content = encoded(np.random.default_rng(0).integers(256, size=(30, 50, 3), dtype=np.uint8), "PNG")
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(image.resize((24, 16), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert np.array_equal(read_image(io.BytesIO(content), (16, 24), "squash"), expected)
