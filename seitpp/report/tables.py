"""Tables of the page, which are also written as CSV, Markdown and LaTeX: the same rows in each form."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell.

    Attributes:
        text: as people read it, such as "54.1 ± 1.0"; numbers in percent where the caption says so.
        value: the number in the unit of `text`; None: the cell is words.
        std: its standard deviation over seeds, likewise.
        note: a second, muted line, such as a difference.
        best: whether it is the best of its column.
    """

    text: str
    value: float | None = None
    std: float | None = None
    note: str = ""
    best: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table.

    Attributes:
        name: of its files and its place on the page: lower case, digits and "-"; unique on the page.
        caption: what the numbers are, with their unit; no full stop at its end.
        columns: headings, the first that of the rows' names.
        rows: (name, cells) each; as many cells as there are columns after the first; None where nothing was measured.
        reported: numbers of the columns after the first that are the papers' and not ours, from 0; shown apart.
    """

    name: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell | None]]]
    reported: Sequence[int] = field(default_factory=tuple)
