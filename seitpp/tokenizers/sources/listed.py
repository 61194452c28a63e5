"""Images that a table lists: files anywhere, with a key and a label of each.

    key,label,file
    heron/0001.jpg,heron,/photos/2024/IMG_0001.jpg
    heron/0002.jpg,heron,/photos/2024/IMG_0002.jpg

Without the column `file` the key is the file. Files lie relative to the table's own folder; an empty label is none.
`seitpp split photos --form lists` writes such tables, and every command takes one as --images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from seitpp.runtime.errors import UserError
from seitpp.runtime.tables import read_table
from seitpp.tokenizers.sources.decoding.resize import Resize
from seitpp.tokenizers.sources.labels import label_by_name
from seitpp.tokenizers.sources.listing.left_out import LeftOut
from seitpp.tokenizers.sources.pixels import read_image


@dataclass(frozen=True)
class ListedImages:
    """An ImageSource of a table.

    Attributes:
        files: place of each image.
        keys: name of each.
        labels: class index of each, -1 for unlabelled ones, (n,) int32.
        classes: class names, sorted.
        left_out: keys whose files are not there.
    """

    files: list[Path]
    keys: list[str]
    labels: np.ndarray
    classes: list[str]
    left_out: list[LeftOut] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, index: int, size: tuple[int, int], resize: Resize = "crop") -> np.ndarray:
        """Pixels of one image, see `read_image`."""
        return read_image(self.files[index], size, resize)

    def where(self, index: int) -> str:
        """The file of one image, for messages."""
        return str(self.files[index])

    def sizes(self, rows: Sequence[int]) -> np.ndarray:
        """Bytes of some files, (rows,) int64."""
        return np.array([self.files[row].stat().st_size for row in rows], np.int64)


def open_listed(table: str | Path, classes: Sequence[str] | None = None) -> ListedImages:
    """Open the images of a table.

    Args:
        table: CSV with the columns key and label, and may be file.
        classes: class names of another source whose indices are to be kept; None: those found.
    Raises: UserError if it is no such table, names a key twice, none of its files is there, or `classes` lacks a class.
    """
    table = Path(table)
    rows = read_table(table, ("key", "label"))
    files = [table.parent / file for file in rows["file" if "file" in rows else "key"]]
    keys, names = [str(key) for key in rows["key"]], [str(label) for label in rows["label"]]
    twice = first_twice(keys)
    if twice is not None:
        raise UserError(f"{table}, line {rows.index[twice]}: the key {keys[twice]} is there twice: give each its own")
    there = [place for place, file in enumerate(files) if file.is_file()]
    if not there:
        first = f" (first: {files[0]})" if files else ""
        raise UserError(f"{table}: none of its {len(files)} files is there{first}: mend its paths")
    gone = sorted(set(range(len(files))) - set(there))
    return ListedImages(
        [files[place] for place in there], [keys[place] for place in there],
        *label_by_name([names[place] or None for place in there], classes, table),
        [LeftOut(keys[place], "not there") for place in gone],
    )  # fmt: skip


def first_twice(keys: Sequence[str]) -> int | None:
    """The first place whose key was there before; None if there is none."""
    seen: set[str] = set()
    for place, key in enumerate(keys):
        if key in seen:
            return place
        seen.add(key)
    return None
