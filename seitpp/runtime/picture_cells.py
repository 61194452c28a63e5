"""Where the images lie in a picture of many, kept in the PNG: what shows it elsewhere can take them out again."""

import json
from dataclasses import asdict, dataclass

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from seitpp.runtime.schema import integer, listing, record

_KEY = "seitpp-cells"
_PAIR = listing(integer(0, 1 << 24), 2)
_CELLS = record(
    {"count": integer(1, 1 << 24), "columns": integer(1, 1 << 24), "first": _PAIR, "size": _PAIR, "step": _PAIR}
)


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Images of one size in rows, from left to right and from the top.

    Attributes:
        count: how many.
        columns: in a row.
        first: (left, top) of the first, in pixels.
        size: (width, height) of each.
        step: (width, height) from one to the next.
    """

    count: int
    columns: int
    first: tuple[int, int]
    size: tuple[int, int]
    step: tuple[int, int]

    def box(self, place: int) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of an image."""
        left = self.first[0] + place % self.columns * self.step[0]
        top = self.first[1] + place // self.columns * self.step[1]
        return left, top, left + self.size[0], top + self.size[1]

    def png_text(self) -> PngInfo:
        """What says it in a PNG: `pnginfo` of `Image.save`."""
        text = PngInfo()
        text.add_text(_KEY, json.dumps(asdict(self)))
        return text


def cells_of(picture: Image.Image) -> Cells | None:
    """What an opened PNG says of its cells; None if it says nothing.

    Raises: ValueError if that is no such text, or cells overlap or lie outside the picture.
    """
    text = getattr(picture, "text", {}).get(_KEY)
    if text is None:
        return None
    content = json.loads(text)
    _CELLS(content, "its cells")
    pairs = {name: tuple(content[name]) for name in ("first", "size", "step")}
    cells = Cells(count=content["count"], columns=content["columns"], **pairs)
    if any(step < size for step, size in zip(cells.step, cells.size, strict=True)):
        raise ValueError("its cells overlap")
    last = [cells.box(min(cells.count, cells.columns) - 1), cells.box(cells.count - 1)]
    if min(cells.size) < 1 or any(right > picture.width or bottom > picture.height for _, _, right, bottom in last):
        raise ValueError("its cells lie outside of it")
    return cells
