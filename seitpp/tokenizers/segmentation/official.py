"""Names and numbers of the classes of public segmentation data sets, as their archives have them."""

from pathlib import Path

from seitpp.runtime.errors import UserError
from seitpp.runtime.rights import check_readable
from seitpp.runtime.tables import read_utf8

VOC = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""Pascal VOC 2012, values 0 to 20."""
VOC_IGNORED = [255]
CITYSCAPES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
"""The 19 classes that Cityscapes evaluates, in the order of its train ids."""
CITYSCAPES_VALUES = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Their values in labelIds.png; all others count for nothing."""
CITYSCAPES_IDS = (*range(34), 255)
"""All values of labelIds.png: ids 0 to 33, and that of the license plate, -1, in 8 bits."""


def read_ade_classes(file: Path) -> list[str]:
    """Names of ADE20K's 150 classes: the first of each one's synonyms, or all where the first is not unique.

    Args:
        file: objectInfo150.txt, a table of tab-separated columns, the first of which counts from 1 and the last of
            which is the name.
    Raises: UserError if it is missing or something else.
    """
    if not file.is_file():
        raise UserError(f"{file} is missing, which lies in the official archive: add it, or give --mask_classes FILE")
    check_readable(file)
    rows = [[cell.strip() for cell in line.split("\t")] for line in read_utf8(file).splitlines()[1:] if line.strip()]
    numbers = [row[0] for row in rows]
    if not rows or numbers != [str(number + 1) for number in range(len(rows))] or any(len(row) < 2 for row in rows):
        raise UserError(f"{file} is no table of classes numbered from 1: take it from the official archive")
    names = [row[-1] for row in rows]
    short = [name.split(",")[0].split(";")[0].strip() for name in names]
    return short if len(set(short)) == len(short) else names
