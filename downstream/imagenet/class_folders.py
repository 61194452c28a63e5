"""Folders of class folders as a benchmark's authors give them out: which must be there, and which class each is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.images import open_image_folder
from seitpp.tokenizers.sources.listing.left_out import LeftOut
from seitpp.tokenizers.sources.listing.names import is_hidden
from seitpp.tokenizers.sources.selected import SelectedImages

UNKNOWN = "of a class that the classifier lacks"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a folder of class folders must hold.

    Attributes:
        title: of the benchmark, for messages.
        archive: the file that it is unpacked from.
        places: name of each class folder to the class's place in the classifier, -1 where the classifier lacks it.
        read_name: makes of a folder's name one of `places`.
    """

    title: str
    archive: str
    places: Mapping[str, int]
    read_name: Callable[[str], str] = str

    def check(self, folder: Path) -> None:
        """Compare the names of the class folders with those expected; no image is looked for.

        Raises: UserError if the folder is not there, lacks a class that the classifier knows, or has one of no class.
        """
        self.check_names(_class_folders(folder, self), folder)

    def check_names(self, names: list[str], folder: Path) -> None:
        """The same for names that are known already."""
        alien = sorted(name for name in names if self.read_name(name) not in self.places)
        if alien:
            raise UserError(
                f"{folder} has a folder {alien[0]!r}, which is no class of {self.title}: expected {self.expected}"
            )
        there = {self.read_name(name) for name in names}
        wanted = [name for name, place in self.places.items() if place >= 0]
        missing = [name for name in wanted if name not in there]
        if missing:
            raise UserError(
                f"{folder} lacks {len(missing)} of the {len(wanted)} class folders of {self.title} that the classifier "
                f"knows (first: {missing[0]}): unpack all of {self.archive} there"
            )

    @property
    def expected(self) -> str:
        """What is expected, in words."""
        names = list(self.places)
        return f"{len(names)} folders of images, {names[0]} to {names[-1]}"


def open_class_folders(folder: str | Path, layout: Layout, known: list[str]) -> SelectedImages:
    """Open the images of a benchmark's class folders; none is decoded.

    Args:
        folder: that holds the class folders.
        layout: what it must hold.
        known: class names in the order of the classifier's logits.
    Returns: an ImageSource whose classes are `known`; images of classes that the classifier lacks are left out.
    Raises: UserError as `Layout.check`, for an empty class folder, too.
    """
    folder = Path(folder)
    layout.check(folder)
    images = open_image_folder(folder)
    layout.check_names(images.classes, folder)
    place_of = np.array([layout.places[layout.read_name(name)] for name in images.classes] + [-1], np.int32)
    labels = place_of[images.labels]  # the last is that of label -1
    rows = np.flatnonzero(labels >= 0)
    lacking = [name for name in images.classes if layout.places[layout.read_name(name)] < 0]
    left_out = [*images.left_out, *(LeftOut(name, UNKNOWN) for name in lacking)]
    return SelectedImages(replace(images, left_out=left_out), rows, (labels[rows], known))


def _class_folders(folder: Path, layout: Layout) -> list[str]:
    if not folder.is_dir():
        raise UserError(f"{folder} is not there: {layout.title} is expected as {layout.expected} ({layout.archive})")
    return [path.name for path in folder.iterdir() if not is_hidden(path.name) and path.is_dir()]
