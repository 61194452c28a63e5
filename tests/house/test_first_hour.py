"""The first hour as the pages print it: their own commands, on a messy folder of photographs made for it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw

import tiny
from first_hour import blocks_of
from seitpp.runtime.results import read_results
from seitpp.tokens.store import open_store

PAGES = {
    "README.md": ("Your own images", "In Python"),
    "docs/first-hour.md": ("Your own images, step by step", "Use the model"),
}
"""The sections that are walked."""
CLASSES = ("Große Eule", "heron")
BROKEN = "photos/train/heron/a broken one.jpg"


def photograph(place, random, number):
    """A small picture of a shape, by its class, on a ground of noise."""
    place.parent.mkdir(parents=True, exist_ok=True)
    pixels = random.integers(60, 120, (48, 64, 3)).astype(np.uint8) + np.array([40, 90, 20], np.uint8)
    image = Image.fromarray(pixels)
    draw, x = ImageDraw.Draw(image), int(random.integers(4, 24))
    box = (x, 6, x + 32, 40)
    (draw.ellipse if CLASSES[0] in str(place) else draw.rectangle)(box, fill=(250 - 9 * number, 60, 7 * number))
    image.save(place)
    return image


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A function that makes the messy folder `photos` and `new/cat.jpg` somewhere."""

    def make(folder):
        random = np.random.default_rng(0)
        for part, count in (("train", 13), ("test", 5)):
            for name in CLASSES:
                for number in range(count):
                    photograph(folder / "photos" / part / name / f"IMG {number:02d}.JPG", random, number)
        heron = folder / "photos" / "train" / "heron"
        picture = photograph(heron / "deeper" / "Löffler (1).png", random, 3)
        picture.convert("RGBA").resize((30, 70)).save(heron / "transparent.png")
        picture.convert("L").save(heron / "grey.png")
        picture.convert("P").save(heron / "palette.gif")
        (heron / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
        (heron / "._IMG 00.JPG").write_bytes(b"\0\5\26\7")
        (heron / "notes.txt").write_text("the second one is blurred")
        (folder / "photos" / "train" / "empty class").mkdir()
        (folder / "photos" / "train" / "Große Eule" / ".ipynb_checkpoints").mkdir()
        (folder / BROKEN).write_bytes((heron / "IMG 00.JPG").read_bytes()[:200])
        photograph(folder / "new" / "cat.jpg", random, 1)
        return folder

    return make


def walked(folder, blocks):
    """What each block did, in a process that is the stranger's shell."""
    done = subprocess.run(
        [sys.executable, str(tiny.TESTS / "first_hour.py"), str(folder)],
        input=json.dumps({"blocks": blocks, "broken": BROKEN}), capture_output=True, text=True, timeout=900,
        check=False, env={**os.environ, "PYTHONPATH": str(tiny.ROOT), "COLUMNS": "80"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_pages_have_commands_to_walk():
    found = {page: blocks_of(page, sections) for page, sections in PAGES.items()}
    stages = {page: [words[0] for kind, words in blocks if kind == "seitpp"] for page, blocks in found.items()}
    assert stages["README.md"][:2] == ["fit", "predict"]
    assert stages["docs/first-hour.md"][:3] == ["train-tokenizer", "tokenize", "tokenize"]
    assert {"pretrain", "report", "predict"} <= set(stages["docs/first-hour.md"])
    assert all(any(kind == "python" for kind, _ in blocks) for blocks in found.values())


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_a_stranger_can_type_what_a_page_says(page, photos, tmp_path):
    photos(tmp_path)
    done = walked(tmp_path, blocks_of(page, PAGES[page]))
    typed = [each for each in done if "left_out" not in each]
    failed = [(each["what"], each["errors"][-600:]) for each in typed if each["code"] != 0]
    assert failed == []
    assert len(typed) >= 4
    assert all(each["said"].strip() for each in typed if each["what"].startswith("seitpp"))
    assert all("Traceback" not in each["errors"] and "Warning" not in each["errors"] for each in typed)
    mended = [each["mended"] for each in typed if each["mended"]]
    assert len(mended) == 1  # it says so once, in one line, and names the file
    assert BROKEN in tiny.one_line(mended[0].split("error: ")[-1])
    if page == "docs/first-hour.md":
        store = open_store(tmp_path / "stores" / "train")
        assert store.classes == list(CLASSES)
        assert np.bincount(store.labels).tolist() == [13, 17]
        left_out = (tmp_path / "stores" / "train" / "skipped.csv").read_text()
        assert all(name in left_out for name in (".DS_Store", "._IMG 00.JPG", "notes.txt", "empty class"))
        results = read_results([tmp_path / "runs" / name for name in ("finetune", "probe")])
        assert {"finetune", "linear", "knn10"} <= set(results["protocol"])
        assert (tmp_path / "report.html").stat().st_size > 10_000
        prediction = next(each["said"] for each in typed if "predict" in each["what"])
        assert any(name in prediction for name in CLASSES)
    assert (tmp_path / "new" / "cat.jpg").is_file()
