"""Draw a small segmentation data set with exact label maps: OpenMoji on textured grounds, laid out as ADE20K is.

python examples/segmentation_set.py OUT [--train 200] [--val 50] [--emoji 0]

    OUT/images/training/000000.png       odd sizes, portrait and landscape
    OUT/annotations/training/000000.png  the class of each pixel, from 1; 0, which is ignored, where an edge is mixed
    OUT/images/validation, OUT/annotations/validation
    OUT/classes.txt                      the ground, and the nine categories of emoji

An emoji and its variants are drawn in one part only, unless --emoji limits them to a few, which are drawn in both.
docs/segmentation.md goes on from there.
"""

import argparse
import io
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from seitpp.demo.openmoji import Emoji, base_emoji, read_openmoji

GROUND = "ground"
SMALLEST, LARGEST = 88, 168
"""Pixels of an image's sides."""


def drawing(svg: str, size: int) -> np.ndarray:
    """An SVG text on nothing, (size, size, 4) uint8."""
    import resvg_py

    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True)
    return np.asarray(Image.open(io.BytesIO(png), formats=("PNG",)).convert("RGBA"))


def ground(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A textured ground, (height, width, 3) float: waves in two directions between two colours, and grain."""
    lines, columns = np.mgrid[:height, :width] / 32.0
    waves = np.zeros((height, width))
    for _ in range(4):
        down, across = random.normal(size=2) * random.choice([1.0, 4.0, 12.0])
        waves += np.sin(down * lines + across * columns + random.uniform(0, 6.3))
    share = ((waves - waves.min()) / np.ptp(waves))[..., None]
    first, second = random.uniform(30, 225, size=(2, 3))
    return first * share + second * (1 - share) + random.normal(size=(height, width, 1)) * random.uniform(0, 12)


def scene(random: np.random.Generator, emoji: list[Emoji], classes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """An image (height, width, 3) uint8 and its annotation (height, width) uint8."""
    height, width = random.integers(SMALLEST, LARGEST, size=2).tolist()
    pixels = ground(random, height, width)
    labels = np.full((height, width), 1 + classes.index(GROUND), np.uint8)
    for _ in range(random.integers(2, 6)):
        each, size = emoji[random.integers(len(emoji))], int(random.integers(28, 72))
        top, left = random.integers(0, height - size // 2), random.integers(0, width - size // 2)
        drawn = drawing(each.svg, size)[: height - top, : width - left]
        alpha = drawn[..., 3:] / 255.0
        part = slice(top, top + drawn.shape[0]), slice(left, left + drawn.shape[1])
        pixels[part] = alpha * drawn[..., :3] + (1 - alpha) * pixels[part]
        number = 1 + classes.index(str(each.category))
        labels[part] = np.where(alpha[..., 0] > 0.75, number, np.where(alpha[..., 0] > 0.25, 0, labels[part]))
    return pixels.clip(0, 255).round().astype(np.uint8), labels


def draw_set(folder: Path, counts: dict[str, int], *, few: int = 0, seed: int = 0) -> None:
    """Write the data set.

    Args:
        folder: where it goes; it must not be there yet.
        counts: {"training": images, "validation": images}.
        few: how many emoji to draw, in both parts; 0: all, each in one part.
        seed: of all chance.
    """
    emoji = [each for each in read_openmoji() if each.category is not None and each.category != "flags"]
    categories = sorted({str(each.category) for each in emoji})
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
            pixels, labels = scene(random, own, classes)
            Image.fromarray(pixels).save(folder / "images" / part / f"{number:06d}.png")
            Image.fromarray(labels).save(folder / "annotations" / part / f"{number:06d}.png")


def main() -> None:
    """Draw the set that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=200, help="training images")
    parser.add_argument("--val", type=int, default=50, help="validation images")
    parser.add_argument("--emoji", type=int, default=0, help="how many different emoji; 0: all")
    arguments = parser.parse_args()
    counts = {"training": arguments.train, "validation": arguments.val}
    draw_set(arguments.folder, counts, few=arguments.emoji)
    print(f"{arguments.folder}: {arguments.train} training and {arguments.val} validation images")


if __name__ == "__main__":
    main()
