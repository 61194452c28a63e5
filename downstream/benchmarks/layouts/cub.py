"""CUB-200-2011: texts with a number a line, of the image and of what belongs to it; 1 in the split is training.

images.txt                 1 001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg
image_class_labels.txt     1 1
train_test_split.txt       1 0
classes.txt                1 001.Black_footed_Albatross
"""

from pathlib import Path

from seitpp.downstream.benchmarks.layout import Layout, SplitImages, split_images
from seitpp.downstream.benchmarks.official_files import by_number, whole_number
from seitpp.runtime.errors import UserError

_ARCHIVE = "CUB_200_2011.tgz"


def read(root: Path) -> SplitImages:
    """The images of CUB_200_2011/."""
    files = [root / name for name in ("images.txt", "image_class_labels.txt", "train_test_split.txt")]
    names, labels, parts = (by_number(file) for file in files)
    classes = by_number(root / "classes.txt")
    place = {number: index for index, number in enumerate(classes)}
    for file, content in zip(files[1:], (labels, parts), strict=True):
        if content.keys() != names.keys():
            raise UserError(f"{file} is of other images than {files[0]}: unpack {_ARCHIVE} again")
    rows = {"1": [], "0": []}
    for number, name in names.items():
        if parts[number] not in rows:
            raise UserError(f"{files[2]}: image {number} is neither 0 nor 1: unpack {_ARCHIVE} again")
        label = place.get(whole_number(labels[number], files[1]), -1)
        rows[parts[number]].append((f"images/{name}", label))
    return split_images(root, list(classes.values()), rows["1"], rows["0"], "images.txt")


LAYOUT = Layout(
    parts=dict.fromkeys(
        ("images", "images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt"), _ARCHIVE
    ),
    read=read,
)
