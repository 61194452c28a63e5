"""The stages' pictures, cut into rows that a page can label, as data URIs.

A stage writes one PNG of equal cells, some white pixels between them (`seitpp.runtime.pictures.image_grid`); what its
rows show is part of the stage's contract and written down here.
"""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from seitpp.report.found_runs import reading

GAP = 2
SHOWN = 12
"""columns of square cells that are shown, of wider ones fewer; more would be too small beside each other"""
ROWS = {
    "reconstructions.png": ("original", "decoded from its tokens"),
    "views.png": (
        "original",
        "truly transformed",
        "naive: embeddings warped",
        "naive: ids warped",
        "TokenAdapt",
        "decode, warp, encode",
    ),
    "completions.png": ("original, decoded from its tokens", "what the model sees", "the model's completion"),
}


@dataclass(frozen=True, kw_only=True)
class PictureRow:
    """One labelled row of a picture.

    Attributes:
        label: what it shows.
        parts: the row in two, side by side on a wide page and one below the other on a narrow one.
        columns: cells in it.
        cell: the row's first cell alone, as a data URI.
    """

    label: str
    parts: tuple["RowPart", ...]
    columns: int
    cell: str


@dataclass(frozen=True, kw_only=True)
class RowPart:
    """Some neighbouring cells of a row.

    Attributes:
        uri: the PNG as a data URI.
        width: in pixels of the page, with cells of `side`.
        columns: cells in it.
    """

    uri: str
    width: int
    columns: int


def picture_rows(folder: str | Path, name: str, *, side: int = 64) -> list[PictureRow]:
    """Cut a run's picture into its rows, at most SHOWN columns of each.

    Args:
        folder: the run.
        name: a key of ROWS.
        side: height of a cell on the page.
    Returns: list of PictureRow; empty if the run has no such picture.
    Raises: UserError if the file is no picture.
    """
    path = Path(folder) / name
    if not path.is_file():
        return []
    with reading(path):
        try:
            with Image.open(path, formats=("PNG",)) as image:
                pixels = np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError("no picture") from error
        labels = ROWS[name]
        height = (pixels.shape[0] + GAP) // len(labels) - GAP
        if height < 1:
            raise ValueError("no picture of rows")
    width = _cell_width(pixels.shape[1], height)
    columns = min((pixels.shape[1] + GAP) // (width + GAP), max(1, SHOWN * height // max(width, height)))
    rows = []
    for index, label in enumerate(labels):
        top = index * (height + GAP)
        strip = pixels[top : top + height, : columns * (width + GAP) - GAP]
        parts = [strip[:, start * (width + GAP) : stop * (width + GAP) - GAP] for start, stop in _halves(columns)]
        rows.append(
            PictureRow(
                label=label, columns=columns, cell=_uri(strip[:, :width]),
                parts=tuple(
                    RowPart(uri=_uri(part), width=round(part.shape[1] * side / height), columns=stop - start)
                    for part, (start, stop) in zip(parts, _halves(columns), strict=True)
                ),
            )
        )  # fmt: skip
    return rows


def _halves(columns):
    """(first, behind the last) column of each part."""
    middle = -(-columns // 2)
    return [(0, middle), (middle, columns)] if columns > 1 else [(0, 1)]


def _cell_width(total, height):
    """Width of a cell in a row of `total` pixels: the one nearest to square that divides it."""
    counts = range(1, (total + GAP) // (GAP + 1) + 1)
    widths = [(total + GAP) // count - GAP for count in counts if (total + GAP) % count == 0]
    return min((width for width in widths if width > 0), key=lambda width: abs(width - height), default=total)


def _uri(pixels):
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
