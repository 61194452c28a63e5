"""Tables in CSV files, read as what is written: every field a text, and no text taken for a missing value.

pandas by itself takes `null`, `NA`, `None` and a dozen more for nothing, and drops rows whose class is called so.
"""

# pyright: reportArgumentType=false
# The stubs of pandas do not take a tuple of names for columns.

import csv
import io
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from seitpp.runtime.errors import UserError
from seitpp.runtime.schema import shown


def read_table(
    path: str | Path, columns: Sequence[str], *, by_hand: bool = False, advice: str = "mend it or remove it"
) -> pd.DataFrame:
    """Read a CSV file with a header.

    Args:
        path: the file, UTF-8 with or without a byte order mark.
        columns: that it must have; it may have more, in any order.
        by_hand: whether a person or a spreadsheet made it: fields may be divided by semicolons or tabs, a first line
            may say so (`sep=;`), and names of columns may have blanks around them and other capitals.
        advice: what to do where a column is not there.
    Returns: DataFrame of str with all its columns; its index is the line that each row begins in.
    Raises: UserError naming the file, and the line where one is at fault.
    """
    rows = _rows(path, *_divided(read_utf8(path)) if by_hand else (read_utf8(path),))
    _, header = next(rows, (1, []))
    if not header:
        raise UserError(f"{path} is empty: expected CSV with columns {','.join(columns)}")
    if by_hand:
        header = _named(header, columns)
    wrong = [name for name in columns if header.count(name) != 1]
    if wrong:
        names = shown(", ".join(header), 200)
        raise UserError(f"{path} has no column {wrong[0]}, or two; it has {names}: {advice}")
    lines, content = [], []
    for line, row in rows:
        if len(row) != len(header):
            raise UserError(
                f"{path}, line {line}: {len(row)} fields, expected {len(header)}: {shown(', '.join(header), 200)}"
            )
        lines.append(line)
        content.append(row)
    return pd.DataFrame(content, columns=header, index=pd.Index(lines, dtype="int64"), dtype="object")


def read_utf8(path: str | Path) -> str:
    """Read a text file in UTF-8, with or without a byte order mark.

    Raises: UserError if there is no such file, or it is in another encoding, with the first line that shows it.
    """
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # a pipe would be waited for, for ever
            raise UserError(f"{path} is no file but a folder, pipe or device: name a table")
        content = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path} is no file: {error.strerror}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: {error.reason}, this is not UTF-8: save it as UTF-8") from error


def _divided(text: str) -> tuple[str, str, int]:
    """A spreadsheet's text without its line `sep=;`, the sign between its fields, and how many lines were taken off."""
    first, _, rest = text.partition("\n")
    if (said := first.strip().strip('"')).lower().startswith("sep=") and len(said) == len("sep=;"):
        return rest, said[-1], 1
    return text, max(",;\t", key=first.count), 0  # of as many, the first: a header of one column has none


def _named(header: list[str], columns: Sequence[str]) -> list[str]:
    """Names of columns without blanks around them; those that are wanted, as they are wanted."""
    wanted = {name.casefold(): name for name in columns}
    stripped = [name.strip() for name in header]
    return [name if name in columns else wanted.get(name.casefold(), name) for name in stripped]


def _rows(path: str | Path, text: str, delimiter: str = ",", before: int = 0) -> Iterator[tuple[int, list[str]]]:
    """(the line that it begins in, its fields) of each row that is not blank; `before` lines stand before the text."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = before + reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise UserError(f"{path}, line {line}: {error}: is a quote open in it?") from error
        if row is None:
            return
        if row:
            yield line, row
