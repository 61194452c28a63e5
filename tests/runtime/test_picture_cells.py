"""Where images lie in a picture of many: what was written is read, and what cannot be is refused."""

import json

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from seitpp.runtime.picture_cells import Cells, cells_of

CELLS = Cells(count=5, columns=3, first=(2, 4), size=(10, 8), step=(13, 20))


def write(path, size, text):
    Image.new("RGB", size).save(path, pnginfo=text)
    return Image.open(path)


def test_cells_are_read_as_they_were_written(tmp_path):
    with write(tmp_path / "it.png", (60, 60), CELLS.png_text()) as picture:
        assert cells_of(picture) == CELLS
    assert CELLS.box(0) == (2, 4, 12, 12)
    assert CELLS.box(4) == (2 + 13, 4 + 20, 25, 32)


def test_a_picture_that_says_nothing_has_no_cells(tmp_path):
    with write(tmp_path / "it.png", (60, 60), None) as picture:
        assert cells_of(picture) is None


def test_cells_outside_of_the_picture_are_refused(tmp_path):
    for size in ((37, 60), (60, 31)):
        with write(tmp_path / "it.png", size, CELLS.png_text()) as picture, pytest.raises(ValueError, match="outside"):
            cells_of(picture)


@pytest.mark.parametrize(
    "content", ["[", "[]", {"count": 0}, {"columns": 0}, {"first": [1]}, {"size": [0, 8]}, {"step": [0, 20]}]
)
def test_a_text_that_cannot_be_is_refused(tmp_path, content):
    fields = {"count": 5, "columns": 3, "first": [2, 4], "size": [10, 8], "step": [13, 20]}
    text = PngInfo()
    text.add_text("seitpp-cells", content if isinstance(content, str) else json.dumps(fields | content))
    with write(tmp_path / "it.png", (60, 60), text) as picture, pytest.raises(ValueError, match=r"cells|Expecting"):
        cells_of(picture)
