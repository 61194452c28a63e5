"""Food-101: meta/train.json has {"apple_pie": ["apple_pie/1005649", …], …}; meta/train.txt the same, an image a line.

Either will do; so will the classes that they name, as meta/classes.txt lists.
"""

from pathlib import Path

from seitpp.downstream.benchmarks.layout import Layout, SplitImages, first_there, split_images
from seitpp.downstream.benchmarks.official_files import json_of, lines_of
from seitpp.runtime.schema import listing, table, text

_ARCHIVE = "food-101.tar.gz"


def read(root: Path) -> SplitImages:
    """The images of food-101/."""
    classes = lines_of(root / "meta" / "classes.txt")
    place = {name: index for index, name in enumerate(classes)}
    train, test = (
        [(f"images/{image}.jpg", place.get(image.split("/")[0], -1)) for image in _listed(root / "meta", part)]
        for part in ("train", "test")
    )
    return split_images(root, classes, train, test, "meta")


def _listed(meta, part):
    file = first_there(meta, f"{part}.json", f"{part}.txt")
    if file.suffix == ".txt":
        return lines_of(file)
    return [image for images in json_of(file, table(listing(text()))).values() for image in images]


LAYOUT = Layout(
    parts={
        "images": _ARCHIVE,
        "meta/classes.txt": _ARCHIVE,
        "meta/train.json|meta/train.txt": _ARCHIVE,
        "meta/test.json|meta/test.txt": _ARCHIVE,
    },
    read=read,
)
