"""Flowers-102: jpg/image_00001.jpg and on, their classes from 1 in imagelabels.mat, the split in setid.mat.

The field trains on the training and the validation images together (1,020 each). The official files have no class
names; classes are called by their numbers.
"""

from pathlib import Path

from seitpp.downstream.benchmarks.layout import Layout, SplitImages, split_images
from seitpp.downstream.benchmarks.official_files import mat_of, numbers_of
from seitpp.runtime.errors import UserError


def read(root: Path) -> SplitImages:
    """The images of a folder with jpg/ and two MATLAB files."""
    label_file, split_file = root / "imagelabels.mat", root / "setid.mat"
    labels = numbers_of(mat_of(label_file, "labels")[0], label_file)
    parts = [numbers_of(each, split_file) for each in mat_of(split_file, "trnid", "valid", "tstid")]
    for number in (number for part in parts for number in part):
        if not 1 <= number <= len(labels):
            raise UserError(f"{split_file} has an image {number}, {label_file} has {len(labels)}: get both anew")
    classes = [str(number) for number in range(1, max(labels, default=0) + 1)]
    first, second, test = (
        [(f"jpg/image_{number:05d}.jpg", labels[number - 1] - 1) for number in part] for part in parts
    )
    return split_images(root, classes, [*first, *second], test, "setid.mat")


LAYOUT = Layout(
    parts={"jpg": "102flowers.tgz", "imagelabels.mat": "imagelabels.mat", "setid.mat": "setid.mat"}, read=read
)
