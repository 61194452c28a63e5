"""SUN397, the authors' Partition 1: Training_01.txt has "/a/abbey/sun_aaalbzqrimafwbiv.jpg" a line, 50 a class.

ClassName.txt lists the classes, such as /a/abbey and /a/athletic_field/outdoor. The lists are Partitions.zip, unpacked
in SUN397/ or in SUN397/Partitions/.
"""

from pathlib import Path

from seitpp.downstream.benchmarks.layout import Layout, SplitImages, first_there, split_images
from seitpp.downstream.benchmarks.official_files import lines_of

_LISTS = ("ClassName.txt", "Training_01.txt", "Testing_01.txt")


def read(root: Path) -> SplitImages:
    """The images of SUN397/."""
    classes, train, test = (lines_of(first_there(root, name, f"Partitions/{name}")) for name in _LISTS)
    place = {name: index for index, name in enumerate(classes)}
    train, test = (
        [(image.lstrip("/"), place.get(image.rsplit("/", 1)[0], -1)) for image in part] for part in (train, test)
    )
    return split_images(root, [name.lstrip("/") for name in classes], train, test, "Training_01.txt")


LAYOUT = Layout(
    parts={"a": "SUN397.tar.gz", **{f"{name}|Partitions/{name}": "Partitions.zip" for name in _LISTS}}, read=read
)
