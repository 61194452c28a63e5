"""A user's images and their classes: from folders, from a table, or without any."""

from dataclasses import dataclass
from pathlib import Path

from seitpp.runtime.errors import UserError
from seitpp.runtime.tables import read_table
from seitpp.tokenizers.sources.images import open_image_folder
from seitpp.tokenizers.sources.listed import first_twice
from seitpp.tokenizers.sources.listing.folder import list_images
from seitpp.tokenizers.sources.listing.left_out import LeftOut
from seitpp.tokenizers.sources.listing.names import is_hidden


@dataclass(frozen=True)
class Photos:
    """Images of a folder.

    Attributes:
        folder: the root.
        keys: path of each image from it, posix style.
        classes: class of each, None where unlabelled.
        places: path of each in a folder of class folders.
        left_out: what gives no image.
    """

    folder: Path
    keys: list[str]
    classes: list[str | None]
    places: list[str]
    left_out: list[LeftOut]


def open_photos(folder: str | Path, *, labels: str | Path | None = None, unlabelled: bool = False) -> Photos:
    """List the images of a folder with their classes; none is decoded.

    Args:
        folder: with one folder of images a class, nested at will; images directly in it are unlabelled.
        labels: CSV with the columns key and label: their classes instead; images that it does not name, and those with
            an empty label, are unlabelled.
        unlabelled: the folders in it are no classes.
    Raises: UserError if it is no folder, holds no image, or is split already; if a label is no name of a folder.
    """
    folder = Path(folder)
    if labels is None and not unlabelled:
        images = open_image_folder(folder)
        classes = [None if label < 0 else images.classes[label] for label in images.labels]
        return Photos(folder, images.keys, classes, list(images.keys), images.left_out)
    listing = list_images(folder)
    keys, left_out = listing.keys, listing.left_out
    if labels is None:
        return Photos(folder, keys, [None] * len(keys), _flat(keys), left_out)
    table = read_table(labels, ("key", "label"))
    names, named = [str(key) for key in table["key"]], [str(label) for label in table["label"]]
    for line, label in zip(table.index, named, strict=True):
        if "/" in label or "\0" in label or (label and is_hidden(label)):
            raise UserError(f"{labels}, line {line}: the label {label!r} can't be a folder's name: change it")
    twice = first_twice(names)
    if twice is not None:
        raise UserError(
            f"{labels}, line {table.index[twice]}: {names[twice]} is there twice: a split needs one label each"
        )
    label_of = dict(zip(names, named, strict=True))
    gone = sorted(set(label_of) - set(keys))
    if len(gone) == len(label_of):
        raise UserError(
            f"{labels}: none of its {len(gone)} keys is an image of {folder} (first: {gone[:1]}): keys are paths from "
            "that folder, such as " + keys[0]
        )
    left_out = [*left_out, *(LeftOut(key, "in the table of labels, but not there") for key in gone)]
    classes = [label_of.get(key) or None for key in keys]
    flat = _flat(keys)
    places = [name if label is None else f"{label}/{key}"
              for key, label, name in zip(keys, classes, flat, strict=True)]  # fmt: skip
    return Photos(folder, keys, classes, places, left_out)


def _flat(keys: list[str]) -> list[str]:
    """Names without folders, each once: what lies in no folder has no class."""
    names, taken = [], {key for key in keys if "/" not in key}
    for key in keys:
        name = key
        if "/" in key:
            name = key.replace("/", "__")
            while name in taken:
                name = f"_{name}"
            taken.add(name)
        names.append(name)
    return names
