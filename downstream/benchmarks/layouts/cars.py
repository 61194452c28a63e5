"""Stanford Cars: a list of structures with fname and class (from 1) for each part, class names in cars_meta.mat.

The labels of the test images are a file of their own, beside devkit/ or in it.
"""

from pathlib import Path

from seitpp.downstream.benchmarks.layout import Layout, SplitImages, first_there, split_images
from seitpp.downstream.benchmarks.official_files import mat_of, records_of
from seitpp.runtime.errors import UserError

_TEST = "cars_test_annos_withlabels.mat"


def read(root: Path) -> SplitImages:
    """The images of a folder with cars_train/, cars_test/, devkit/ and the test labels."""
    (names,) = mat_of(root / "devkit" / "cars_meta.mat", "class_names")
    train = _rows(root / "devkit" / "cars_train_annos.mat", "cars_train")
    test = _rows(first_there(root, _TEST, f"devkit/{_TEST}"), "cars_test")
    return split_images(root, [str(name) for name in names], train, test, "devkit")


def _rows(file, folder):
    records = records_of(mat_of(file, "annotations")[0], ("fname", "class"), file)
    if not all(isinstance(name, str) and isinstance(number, int | float) for name, number in records):
        raise UserError(f"{file}: a file name is no text, or a class no number: get it anew")
    return [(f"{folder}/{name}", int(number) - 1) for name, number in records]


LAYOUT = Layout(
    parts={
        "cars_train": "cars_train.tgz",
        "cars_test": "cars_test.tgz",
        "devkit/cars_meta.mat": "car_devkit.tgz",
        "devkit/cars_train_annos.mat": "car_devkit.tgz",
        f"{_TEST}|devkit/{_TEST}": _TEST,
    },
    read=read,
)
