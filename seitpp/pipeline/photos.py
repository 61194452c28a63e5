"""A user's images and their classes: from folders, from a table, or without any."""

from dataclasses import dataclass, field
from pathlib import Path

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.images import open_image_folder
from seitpp.tokenizers.sources.label_table import read_labels
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
        notices: what may not be meant, lines.
    """

    folder: Path
    keys: list[str]
    classes: list[str | None]
    places: list[str]
    left_out: list[LeftOut]
    notices: list[str] = field(default_factory=list)


def open_photos(
    folder: str | Path, *, labels: str | Path | None = None, unlabelled: bool = False, class_level: int = 0
) -> Photos:
    """List the images of a folder with their classes; none is decoded.

    Args:
        folder: with one folder of images a class, nested at will; images directly in it are unlabelled.
        labels: CSV with the columns key and label: their classes instead; images that it does not name, and those with
            an empty label, are unlabelled.
        unlabelled: the folders in it are no classes.
        class_level: which of the folders above an image is its class, see `open_image_folder`.
    Raises: UserError if it is no folder, holds no image, or is split already; if a label is no name of a folder.
    """
    folder = Path(folder)
    if labels is None and unlabelled:
        listing = list_images(folder)
        return Photos(folder, listing.keys, [None] * len(listing.keys), _flat(listing.keys), listing.left_out)
    if labels is None:
        images = open_image_folder(folder, class_level=class_level)
        classes = [None if label < 0 else images.classes[label] for label in images.labels]
        places = list(images.keys) if class_level == 0 else _places(images.keys, classes)
        return Photos(folder, images.keys, classes, places, images.left_out, images.notices)
    listing, table = list_images(folder), read_labels(labels)
    for line, names in zip(table.lines, table.names, strict=True):
        for label in names or ():
            if "/" in label or "\0" in label or is_hidden(label):
                raise UserError(f"{labels}, line {line}: the label {label!r} can't be a folder's name: change it")
    matched = table.match(listing.keys)
    table.require_some(matched.found, folder, listing.keys[0])
    classes = [None if label < 0 else table.classes[label] for label in matched.labels]
    strangers = table.strangers(matched.found, str(folder))
    gone = [LeftOut(key, "in the table of labels, but not there")
            for key, found in zip(table.keys, matched.found, strict=True) if not found]  # fmt: skip
    places = _places(listing.keys, classes)
    return Photos(folder, listing.keys, classes, places, [*listing.left_out, *gone], [strangers] if strangers else [])


def _places(keys: list[str], classes: list[str | None]) -> list[str]:
    """Places in a folder of class folders; what has no class lies in none."""
    return [name if label is None else f"{label}/{key}"
            for key, label, name in zip(keys, classes, _flat(keys), strict=True)]  # fmt: skip


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
