"""Oxford-IIIT Pets by its 37 breeds: "Abyssinian_100 1 1 1" a line, image, breed from 1, species, breed in it.

A breed's name is that of its images without their number.
"""

from pathlib import Path

from seitpp.downstream.benchmarks.layout import Layout, SplitImages, split_images
from seitpp.downstream.benchmarks.official_files import fields_of, whole_number
from seitpp.runtime.errors import UserError

_TRAIN, _TEST = "annotations/trainval.txt", "annotations/test.txt"


def read(root: Path) -> SplitImages:
    """The images of a folder with images/ and annotations/."""
    parts, names = [], {}
    for file in (root / _TRAIN, root / _TEST):
        rows = []
        for image, breed, _, _ in fields_of(file, 4):
            number, name = whole_number(breed, file), image.rsplit("_", 1)[0]
            if names.setdefault(number, name) != name:
                raise UserError(
                    f"{file}: breed {number} is {name} and {names[number]}: unpack annotations.tar.gz again"
                )
            rows.append((f"images/{image}.jpg", number - 1))
        parts.append(rows)
    if sorted(names) != list(range(1, len(names) + 1)):
        raise UserError(f"{root / 'annotations'}: breeds are not numbered from 1: unpack annotations.tar.gz again")
    train, test = parts
    return split_images(root, [names[number] for number in sorted(names)], train, test, _TRAIN)


LAYOUT = Layout(parts={"images": "images.tar.gz", _TRAIN: "annotations.tar.gz", _TEST: "annotations.tar.gz"}, read=read)
