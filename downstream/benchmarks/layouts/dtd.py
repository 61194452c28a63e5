"""DTD, its split 1: labels/train1.txt, val1.txt and test1.txt have "banded/banded_0002.jpg" a line.

The field trains on training and validation images together.
"""

from pathlib import Path

from seitpp.downstream.benchmarks.layout import Layout, SplitImages, split_images
from seitpp.downstream.benchmarks.official_files import lines_of

_LISTS = ("labels/train1.txt", "labels/val1.txt", "labels/test1.txt")


def read(root: Path) -> SplitImages:
    """The images of dtd/."""
    first, second, test = (lines_of(root / name) for name in _LISTS)
    classes = sorted({image.split("/")[0] for image in (*first, *second)})
    place = {name: index for index, name in enumerate(classes)}
    train, test = (
        [(f"images/{image}", place.get(image.split("/")[0], -1)) for image in part]
        for part in ([*first, *second], test)
    )
    return split_images(root, classes, train, test, "labels")


LAYOUT = Layout(parts=dict.fromkeys(("images", *_LISTS), "dtd-r1.0.1.tar.gz"), read=read)
