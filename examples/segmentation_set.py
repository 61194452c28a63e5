"""Draw a small segmentation data set with exact label maps: OpenMoji on textured grounds, laid out as ADE20K is.

python examples/segmentation_set.py OUT [--train 200] [--val 50] [--emoji 0] [--easy]

    OUT/images/training/000000.png       odd sizes, portrait and landscape
    OUT/annotations/training/000000.png  the class of each pixel, from 1; 0, which is ignored, where an edge is mixed
    OUT/images/validation, OUT/annotations/validation
    OUT/classes.txt                      the ground, and the nine categories of emoji

An emoji and its variants are drawn in one part only, unless --emoji limits them to a few, which are drawn in both.
--easy draws what can be learned in minutes: eight emoji of four categories on calmer grounds, in three sizes, images,
emoji and places in multiples of 16 pixels, so that the same emoji is made of the same tokens. docs/segmentation.md
goes on from there.
"""

import argparse
import io
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from seitpp.demo.openmoji import Emoji, base_emoji, read_openmoji

GROUND = "ground"


@dataclass(frozen=True, kw_only=True)
class Style:
    """What images look like; ranges are those of numpy, without the upper end. Lengths are pixels."""

    sides: tuple[int, int] = (88, 168)
    sizes: tuple[int, int] = (28, 72)
    count: tuple[int, int] = (2, 6)
    lattice: int = 1
    """what sides, sizes and places are multiples of"""
    contrast: float | None = None
    """how far a ground's second colour may lie from its first; None: anywhere"""
    grain: float = 12.0
    categories: int | None = None
    """how many categories of emoji; None: all"""


ANY = Style()
EASY = Style(sides=(64, 128), sizes=(32, 80), count=(1, 4), lattice=16, contrast=50.0, grain=4.0, categories=4)
FEW = 8
"""Emoji of an easy set."""


def drawing(svg: str, size: int) -> np.ndarray:
    """An SVG text on nothing, (size, size, 4) uint8."""
    import resvg_py

    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True)
    return np.asarray(Image.open(io.BytesIO(png), formats=("PNG",)).convert("RGBA"))


def ground(random: np.random.Generator, height: int, width: int, style: Style = ANY) -> np.ndarray:
    """A textured ground, (height, width, 3) float: waves in two directions between two colours, and grain."""
    lines, columns = np.mgrid[:height, :width] / 32.0
    waves = np.zeros((height, width))
    for _ in range(4):
        down, across = random.normal(size=2) * random.choice([1.0, 4.0, 12.0])
        waves += np.sin(down * lines + across * columns + random.uniform(0, 6.3))
    share = ((waves - waves.min()) / np.ptp(waves))[..., None]
    first, second = random.uniform(30, 225, size=(2, 3))
    if style.contrast is not None:
        second = first + random.uniform(-style.contrast, style.contrast, size=3)
    grain = random.normal(size=(height, width, 1)) * random.uniform(0, style.grain)
    return first * share + second * (1 - share) + grain


def lattice(lengths: tuple[int, int], step: int) -> tuple[int, int]:
    """A range of lengths in steps."""
    return lengths[0] // step, lengths[1] // step


def scene(
    random: np.random.Generator, emoji: list[Emoji], classes: list[str], style: Style = ANY
) -> tuple[np.ndarray, np.ndarray]:
    """An image (height, width, 3) uint8 and its annotation (height, width) uint8."""
    step = style.lattice
    height, width = (random.integers(*lattice(style.sides, step), size=2) * step).tolist()
    pixels = ground(random, height, width, style)
    labels = np.full((height, width), 1 + classes.index(GROUND), np.uint8)
    for _ in range(random.integers(*style.count)):
        each, size = emoji[random.integers(len(emoji))], int(random.integers(*lattice(style.sizes, step))) * step
        top = random.integers(0, height - size // 2) // step * step
        left = random.integers(0, width - size // 2) // step * step
        drawn = drawing(each.svg, size)[: height - top, : width - left]
        alpha = drawn[..., 3:] / 255.0
        part = slice(top, top + drawn.shape[0]), slice(left, left + drawn.shape[1])
        pixels[part] = alpha * drawn[..., :3] + (1 - alpha) * pixels[part]
        number = 1 + classes.index(str(each.category))
        labels[part] = np.where(alpha[..., 0] > 0.75, number, np.where(alpha[..., 0] > 0.25, 0, labels[part]))
    return pixels.clip(0, 255).round().astype(np.uint8), labels


def draw_set(folder: Path, counts: dict[str, int], *, few: int = 0, seed: int = 0, style: Style = ANY) -> None:
    """Write the data set.

    Args:
        folder: where it goes; it must not be there yet.
        counts: {"training": images, "validation": images}.
        few: how many emoji to draw, in both parts; 0: all, each in one part.
        seed: of all chance.
        style: what images look like.
    """
    emoji = [each for each in read_openmoji() if each.category is not None and each.category != "flags"]
    categories = sorted({str(each.category) for each in emoji})[: style.categories]
    emoji = [each for each in emoji if str(each.category) in categories]
    classes = [GROUND, *categories]
    if few:  # as many of each category, those that come first
        of_category = [[each for each in emoji if each.category == name] for name in categories]
        emoji = [some[place] for place in range(-(-few // len(of_category))) for some in of_category][:few]
    folder.mkdir(parents=True)
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
    for part, count in counts.items():
        held_out = [zlib.crc32(base_emoji(each.code).encode()) % 5 == 0 for each in emoji]
        own = [each for each, out in zip(emoji, held_out, strict=True) if few or out == (part == "validation")]
        for kind in ("images", "annotations"):
            (folder / kind / part).mkdir(parents=True)
        random = np.random.default_rng([seed, len(part)])
        for number in range(count):
            pixels, labels = scene(random, own, classes, style)
            Image.fromarray(pixels).save(folder / "images" / part / f"{number:06d}.png")
            Image.fromarray(labels).save(folder / "annotations" / part / f"{number:06d}.png")


def main() -> None:
    """Draw the set that the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=200, help="training images")
    parser.add_argument("--val", type=int, default=50, help="validation images")
    parser.add_argument("--emoji", type=int, default=0, help="how many different emoji; 0: all")
    parser.add_argument("--easy", action="store_true", help=f"{FEW} emoji of {EASY.categories} categories, see above")
    arguments = parser.parse_args()
    few, style = (arguments.emoji or FEW, EASY) if arguments.easy else (arguments.emoji, ANY)
    counts = {"training": arguments.train, "validation": arguments.val}
    draw_set(arguments.folder, counts, few=few, style=style)
    print(f"{arguments.folder}: {arguments.train} training and {arguments.val} validation images")


if __name__ == "__main__":
    main()
