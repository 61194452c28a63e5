"""ObjectNet as it is given out: images/FOLDER/*.png, and mappings/ that say which of ImageNet's classes each folder is.

    mappings/folder_to_objectnet_label.json     {"alarm_clock": "Alarm clock", …}, 313 folders
    mappings/objectnet_to_imagenet_1k.json      {"Alarm clock": "analog clock; digital clock", …}, 113 of them
    mappings/imagenet_to_label_2012_v2          the label of a class a line
    mappings/pytorch_to_imagenet_2012_id.json   {"0": its line, from 0, …}

An object may be of several of ImageNet's classes: an answer of any of them is right, and all classes may be answered.
The images' red border is cut off before they are resized, as their authors ask. timm ships no map of ObjectNet.

Source: Barbu et al. 2019 (ObjectNet, NeurIPS).
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ImageOps

from seitpp.downstream.imagenet.class_folders import UNKNOWN, Layout
from seitpp.runtime.errors import UserError
from seitpp.runtime.tables import read_utf8
from seitpp.tokenizers.sources.decoding.resize import Resize
from seitpp.tokenizers.sources.images import ImageFolder, open_image_folder
from seitpp.tokenizers.sources.listing.left_out import LeftOut
from seitpp.tokenizers.sources.pixels import image_faults, open_image, to_pixels
from seitpp.tokenizers.sources.selected import SelectedImages

BORDER = 2
"""Pixels that are cut off on each side."""
ARCHIVE = "objectnet-1.0.zip"


@dataclass(frozen=True)
class BorderedImages(ImageFolder):
    """An ImageFolder whose images have a border that is cut off before they are resized."""

    def read(self, index: int, size: tuple[int, int], resize: Resize = "crop") -> np.ndarray:
        """Pixels of one image, see `read_image`."""
        with image_faults(), open_image(self.folder / self.keys[index]) as image:
            return to_pixels(ImageOps.crop(image, BORDER), size, resize)


@dataclass(frozen=True)
class ObjectLabels:
    """The true classes of ObjectNet's images, by their keys.

    Attributes:
        places: folder to the places of its classes in the classifier; () where it has none.
    """

    places: dict[str, tuple[int, ...]]

    def __call__(self, key: str) -> tuple[int, ...]:
        """The true classes of an image."""
        return self.places[key.split("/", 1)[0]]


def open_objectnet(folder: str | Path, places: np.ndarray, known: list[str]) -> tuple[SelectedImages, ObjectLabels]:
    """Open the images of objects that the classifier knows; none is decoded.

    Args:
        folder: that holds images/ and mappings/.
        places: where the classifier has each of ImageNet's classes, (1000,) int64, -1 where it lacks it.
        known: class names in the order of the classifier's logits.
    Returns: an ImageSource, each image under the first of its classes, and the labels of all.
    Raises: UserError if a folder, a file or a class folder is not there or something else than expected.
    """
    folder = Path(folder)
    labels = ObjectLabels(_known_places(read_mappings(folder / "mappings"), places))
    first = {name: (found[0] if found else -1) for name, found in labels.places.items()}
    layout = Layout(title="ObjectNet", archive=ARCHIVE, places=first)
    layout.check(folder / "images")
    images = BorderedImages(**vars(open_image_folder(folder / "images")))
    layout.check_names(images.classes, folder / "images")
    numbers = np.array([first[name] for name in images.classes] + [-1], np.int32)[images.labels]
    rows = np.flatnonzero(numbers >= 0)
    if not len(rows):
        raise UserError(f"{folder}: the classifier knows no object of ObjectNet")
    images.left_out.extend(LeftOut(name, UNKNOWN) for name in images.classes if first[name] < 0)
    return SelectedImages(images, rows, (numbers[rows], known)), labels


def read_mappings(folder: Path) -> dict[str, tuple[int, ...]]:
    """Image folder to ImageNet's classes of its object, () where it has none.

    Raises: UserError if a file is not there or says something else.
    """
    labels, classes_of, lines = (
        _read_json(folder / name)
        for name in (
            "folder_to_objectnet_label.json",
            "objectnet_to_imagenet_1k.json",
            "pytorch_to_imagenet_2012_id.json",
        )
    )
    file = folder / "imagenet_to_label_2012_v2"
    names = [line.strip() for line in _text(file).rstrip("\n").split("\n")]
    try:
        number_of = {names[line]: int(number) for number, line in lines.items()}
        found = {label: tuple(number_of[name] for name in text.split("; ")) for label, text in classes_of.items()}
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder}: its files do not fit together ({type(error).__name__}: {error}): unpack mappings/ of "
            f"{ARCHIVE} again"
        ) from error
    return {name: found.get(label, ()) for name, label in labels.items()}


def _known_places(classes, places):
    return {
        name: tuple(int(places[number]) for number in numbers if places[number] >= 0)
        for name, numbers in classes.items()
    }


def _text(file):
    if not file.is_file():
        raise UserError(f"{file} is not there: expected images/ and mappings/ of {ARCHIVE} in {file.parent.parent}")
    return read_utf8(file)


def _read_json(file):
    text = _text(file)
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"{file} is no JSON ({error}): unpack {ARCHIVE} again") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} is no table of names: unpack {ARCHIVE} again")
    return content
