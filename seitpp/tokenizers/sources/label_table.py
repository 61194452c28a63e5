"""Labels of images from a table that somebody made: which image, which class or classes.

    key,label                       file;species                  key,label
    2024/IMG_0001.jpg,heron         IMG_0001.jpg;"grey heron"     beach.jpg,sea|sand|people
    2024/IMG_0002.jpg,egret         IMG_0002.jpg;egret            empty.jpg,|

A cell without anything leaves its image unlabelled. Of several labels a row, a cell that holds the separator alone says
that no class applies, which is something else: a classifier learns from it.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from seitpp.runtime.errors import UserError
from seitpp.runtime.tables import read_table

SEPARATORS = ("|", ";")


@dataclass(frozen=True)
class MatchedLabels:
    """What a table says of some images.

    Attributes:
        lists: the classes of each, numbers, rising; None where the table has no label of it.
        labels: the class of each that has just one, else -1, (n,) int32.
        found: which rows of the table name one of them, (rows,) bool.
    """

    lists: list[np.ndarray | None]
    labels: np.ndarray
    found: np.ndarray

    @property
    def unlabelled(self) -> int:
        """Images of which the table says nothing."""
        return sum(each is None for each in self.lists)


@dataclass(frozen=True)
class LabelTable:
    """A table of labels.

    Attributes:
        path: the file.
        keys: the image that each row names, as it is written there.
        lines: where each row begins.
        names: the labels of each; None where the cell is blank.
    """

    path: Path
    keys: list[str]
    lines: list[int]
    names: list[tuple[str, ...] | None]

    @cached_property
    def classes(self) -> list[str]:
        """All labels in it, sorted."""
        return sorted({name for names in self.names for name in names or ()})

    def match(self, keys: Sequence[str], classes: Sequence[str] | None = None, like: object = None) -> MatchedLabels:
        """Find the labels of images.

        Args:
            keys: their names.
            classes: class names whose numbers count; None: those of the table.
            like: whose these classes are, for the message.
        Raises: UserError that names the line of a label that `classes` lacks.
        """
        index = {name: place for place, name in enumerate(self.classes if classes is None else classes)}
        known: dict[Any, np.ndarray | None] = {None: None}  # one array for all rows with these labels
        for line, names in zip(self.lines, self.names, strict=True):
            if names in known:
                continue
            alien = [name for name in names or () if name not in index]
            if alien:
                raise UserError(f"{self.path}, line {line}: {alien[0]!r} is no class of {like}: mend one of the two")
            known[names] = np.array(sorted(index[name] for name in names or ()), np.int32)
        rows = {_plain(key): row for row, key in enumerate(self.keys)}
        hits = np.array([rows.get(_plain(key), -1) for key in keys], np.int64)
        found = np.zeros(len(self.keys), bool)
        found[hits[hits >= 0]] = True
        lists = [None if row < 0 else known[self.names[row]] for row in hits]
        labels = np.array([-1 if each is None or len(each) != 1 else each[0] for each in lists], np.int32)
        return MatchedLabels(lists, labels, found)

    def strangers(self, found: np.ndarray, where: str) -> str:
        """What is to be said of rows that name no image; "" where there are none.

        Args:
            found: which rows do name one, (rows,) bool.
            where: what the images are.
        """
        lost = np.flatnonzero(~found)
        if not len(lost):
            return ""
        first = f"line {self.lines[lost[0]]}: {self.keys[lost[0]]!r}"
        return (
            f"{self.path}, {first} is not in {where}" if len(lost) == 1 else
            f"{self.path}: {len(lost):,} of {len(found):,} rows name no image of {where}, the first in {first}"
        )  # fmt: skip

    def require_some(self, found: np.ndarray, where: object, example: str) -> None:
        """Refuse a table of other images.

        Raises: UserError with a key of the table and one of the images, if none of its rows names an image.
        """
        if not found.any():
            named = f", the table's like {self.keys[0]!r}" if self.keys else ""
            raise UserError(
                f"{self.path} names no row of {where}: its keys look like {example!r}{named}: write the paths from the "
                "folder of --images, or name the column by --key_column"
            )


def read_label_table(config: Any, *, several: bool = False) -> LabelTable:
    """Read the table of a ReadsLabels.

    Args:
        config: has `labels`, `key_column`, `label_column` and `label_separator`.
        several: whether a cell may hold several labels.
    Raises: UserError in one line, which names the row at fault.
    """
    return read_labels(
        config.labels, key_column=config.key_column, label_column=config.label_column or "label",
        separator=config.label_separator, several=several,
    )  # fmt: skip


def read_labels(
    path: str | Path, *, key_column: str = "key", label_column: str = "label", separator: str | None = None,
    several: bool = False,
) -> LabelTable:  # fmt: skip
    """Read a CSV file of labels; see `read_label_table`.

    Args:
        path: the file, divided by commas, semicolons or tabs.
        key_column: says which image.
        label_column: says what it is.
        separator: between several labels in a cell; None: | or ;, whichever is there; "none": a cell is one name.
        several: whether a cell may hold several.
    """
    frame = read_table(
        path, (key_column, label_column), by_hand=True, advice="name them by --key_column and --label_column"
    )
    lines, keys = frame.index.tolist(), [key.strip() for key in frame[key_column]]
    cells = [cell.strip() for cell in frame[label_column]]
    for line, key, cell in zip(lines, keys, cells, strict=True):
        if "\n" in key + cell:
            raise UserError(f"{path}, line {line}: a name goes over several lines: is a quote open in it?")
    sign = _separator(path, lines, cells, separator)
    rows: dict[str, tuple[int, str, tuple[str, ...] | None]] = {}
    for line, key, cell in zip(lines, keys, cells, strict=True):
        names = _names(cell, sign)
        if names is not None and len(names) != 1 and not several:
            raise UserError(
                f"{path}, line {line}: {cell!r} is several labels, or none: seitpp finetune --multi_label true learns "
                "such, and --label_separator none takes the cell as one name"
            )
        _, _, former = first = rows.setdefault(_plain(key), (line, key, names))
        if key and set(former or ()) != set(names or ()):
            advice = f"; several labels stand in one cell, divided by {sign or SEPARATORS[0]}" if several else ""
            raise UserError(
                f"{path}, line {line}: {key} is {_shown(names)} here and {_shown(former)} in line {first[0]}{advice}"
            )
    rows.pop("", None)
    return LabelTable(
        Path(path), [key for _, key, _ in rows.values()], [line for line, _, _ in rows.values()],
        [names for _, _, names in rows.values()],
    )  # fmt: skip


def _plain(key: str) -> str:
    """A key without what spreadsheets and systems change in it: `./`, backslashes, decomposed umlauts, outer blanks."""
    key = key.strip().replace("\\", "/").removeprefix("./")
    return key if key.isascii() else unicodedata.normalize("NFC", key)


def _separator(path, lines, cells, separator):
    """The sign between labels; None where cells are divided by none."""
    if separator is not None:
        return None if separator == "none" else separator
    places = {sign: line for sign in SEPARATORS for line, cell in zip(lines, cells, strict=True) if sign in cell}
    if len(places) > 1:
        one, other = SEPARATORS
        raise UserError(
            f"{path}: labels are divided by {one} in line {places[one]} and by {other} in line {places[other]}: name "
            f"the right one by --label_separator '{one}'"
        )
    return next(iter(places), None)


def _names(cell, sign):
    """The labels in a cell; None where it is blank."""
    if not cell:
        return None
    parts = cell.split(sign) if sign else [cell]
    return tuple(dict.fromkeys(name for part in parts if (name := part.strip())))


def _shown(names):
    return "without a label" if names is None else repr("|".join(names))
