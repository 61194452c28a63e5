"""Text, MATLAB and JSON files of data sets, read as data of strangers: what they can't mean is one clear line."""

from pathlib import Path
from typing import Any

import numpy as np

from seitpp.runtime.errors import UserError
from seitpp.runtime.schema import Schema, read_described, shown
from seitpp.runtime.tables import read_utf8

AGAIN = "unpack it again"


def lines_of(file: Path) -> list[str]:
    """The lines of a text file that are not empty, without blanks at their ends."""
    return [line.strip() for line in read_utf8(file).splitlines() if line.strip()]


def fields_of(file: Path, count: int, *, rest: bool = False) -> list[list[str]]:
    """The lines of a text file as fields with blanks between them.

    Args:
        file: the file.
        count: how many fields a line has.
        rest: whether the last may hold blanks itself.
    Raises: UserError naming a line that has fewer, or more.
    """
    lines = [line.split(None, count - 1) if rest else line.split() for line in lines_of(file)]
    for number, line in enumerate(lines, 1):
        if len(line) != count:
            raise UserError(f"{file}, line {number} of those not empty: {len(line)} fields, expected {count}: {AGAIN}")
    return lines


def by_number(file: Path) -> dict[int, str]:
    """A text file whose lines are a number and a text: {number: text}."""
    return {whole_number(number, file): text for number, text in fields_of(file, 2, rest=True)}


def whole_number(text: str, file: Path) -> int:
    """A field that must be a whole number, from 0."""
    if not (text.isascii() and text.isdigit()):
        raise UserError(f"{file}: {shown(repr(text), 40)} is no whole number: {AGAIN}")
    return int(text)


def mat_of(file: Path, *names: str) -> list[Any]:
    """Variables of a MATLAB file, each an array of one axis.

    Raises: UserError if it is no such file, or lacks one.
    """
    from scipy.io import loadmat

    try:
        content = loadmat(file, squeeze_me=True, variable_names=names)
    except Exception as error:  # whatever scipy's reader and a file of other content raise
        raise UserError(f"{file} can't be read as a MATLAB file ({shown(error, 80)}): {AGAIN}") from error
    lacking = [name for name in names if name not in content]
    if lacking:
        raise UserError(f"{file} lacks {lacking[0]}: {AGAIN}")
    arrays = [np.atleast_1d(content[name]) for name in names]
    if any(array.ndim != 1 for array in arrays):
        raise UserError(f"{file} holds tables where lists are expected: {AGAIN}")
    return arrays


def numbers_of(array: np.ndarray, file: Path) -> list[int]:
    """A MATLAB list of whole numbers."""
    if array.dtype.kind not in "iuf" or not np.isfinite(array.astype(float)).all() or (array % 1 != 0).any():
        raise UserError(f"{file} holds no whole numbers: {AGAIN}")
    return [int(number) for number in array]


def records_of(array: np.ndarray, names: tuple[str, ...], file: Path) -> list[list[Any]]:
    """A MATLAB list of structures: the named fields of each, texts and whole numbers."""
    lacking = [name for name in names if name not in (array.dtype.names or ())]
    if lacking:
        raise UserError(f"{file}: its annotations lack {lacking[0]}: {AGAIN}")
    return [[each[name].item() if hasattr(each[name], "item") else each[name] for name in names] for each in array]


def json_of(file: Path, schema: Schema) -> Any:
    """Content of a JSON file, checked."""
    return read_described(file, schema, AGAIN)
