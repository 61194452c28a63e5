"""What a layout is: the parts that a set's folder must have, and how its images are read from its official files."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from seitpp.runtime.errors import UserError
from seitpp.runtime.schema import shown
from seitpp.tokenizers.sources.images import ImageFolder
from seitpp.tokenizers.sources.listing.names import require_utf8


@dataclass(frozen=True)
class SplitImages:
    """Labelled images, divided: two ImageSources of the same class names."""

    train: Any
    test: Any


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The official files of a set.

    Attributes:
        parts: files and folders that must be there, by their paths from the set's folder, and what each comes in.
            Of several paths with | between them one will do.
        read: the images of a set's folder, whose parts are all there. Raises UserError where a file says what it can't.
        refused: other forms of the same set that are not read: a folder beside the set's, and why.
    """

    parts: dict[str, str]
    read: Callable[[Path], SplitImages]
    refused: dict[str, str] = field(default_factory=dict)

    def missing(self, root: Path) -> dict[str, list[str]]:
        """{what they come in: the parts of it that are not there}."""
        lacking: dict[str, list[str]] = {}
        for part, archive in self.parts.items():
            if not any((root / each).exists() for each in part.split("|")):
                lacking.setdefault(archive, []).append(part.split("|")[0])
        return lacking


def first_there(root: Path, *paths: str) -> Path:
    """The first of some paths below a folder that is there; where none is, the first."""
    return next((root / path for path in paths if (root / path).exists()), root / paths[0])


Rows = Sequence[tuple[str, int]]
"""(path from the set's folder, class index) of each image."""


def split_images(root: Path, classes: Sequence[str], train: Rows, test: Rows, listed_in: str) -> SplitImages:
    """The images that official files list; none of them is looked for yet.

    Args:
        root: the set's folder.
        classes: class names.
        train: of the official split.
        test: likewise.
        listed_in: the files that list them, for messages.
    Raises: UserError for a class that there is not, a path that leads elsewhere, or an image that is listed twice.
    """
    if len(set(classes)) < len(classes):
        raise UserError(f"{root}: two classes have one name: get the set anew")
    return SplitImages(*(_images(root, list(classes), rows, listed_in) for rows in (train, test)))


def _images(root, classes, rows, listed_in):
    keys = [key for key, _ in rows]
    labels = np.array([label for _, label in rows], np.int64)
    wrong = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(wrong):
        raise UserError(
            f"{root / listed_in}: {shown(keys[wrong[0]], 80)} is of none of the {len(classes)} classes that the set "
            "names: its files do not belong together, get them anew"
        )
    astray = [key for key in keys if key.startswith("/") or ".." in key.split("/") or "\0" in key]
    if astray:
        raise UserError(f"{root / listed_in} lists {shown(repr(astray[0]), 80)}, which lies elsewhere: get it anew")
    if len(set(keys)) < len(keys):
        twice = Counter(keys).most_common(1)[0][0]
        raise UserError(f"{root / listed_in} lists {shown(twice, 80)} twice: get it anew")
    if not keys:
        raise UserError(f"{root / listed_in} lists no image: get it anew")
    require_utf8(keys, root)
    return ImageFolder(root, keys, labels.astype(np.int32), classes)
