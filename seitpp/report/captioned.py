"""The images of a picture of many that says where they lie in it, one by one, as data URIs: the page captions them."""

import base64
import io
from pathlib import Path

from PIL import Image

from seitpp.report.found_runs import reading
from seitpp.runtime.picture_cells import cells_of

SIDE = 112
"""pixels of the longer side: twice what is seen, for fine screens"""
_QUALITY = 85


def cut_images(path: str | Path, *, side: int = SIDE) -> list[str]:
    """Each image of a picture.

    Args:
        path: a PNG of `seitpp.finetune.evaluation_pictures.captioned_images`.
        side: pixels of the longer side; smaller images stay as they are.
    Returns: data URIs (JPEG), in order; none if there is no such file, or it does not say where its images lie.
    Raises: UserError if it is no picture.
    """
    path = Path(path)
    if not path.is_file():
        return []
    with reading(path):
        try:
            with Image.open(path, formats=("PNG",)) as picture:
                cells = cells_of(picture)
                pixels = picture.convert("RGB") if cells else None
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError("no picture") from error
    if cells is None or pixels is None:
        return []
    return [_uri(pixels.crop(cells.box(place)), side) for place in range(cells.count)]


def _uri(image, side):
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
