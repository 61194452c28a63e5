"""Tables of the page, which are also written as CSV, Markdown and LaTeX: the same rows in each form.

    CSV        numbers as they are, a column of its own for standard deviations and one for notes, where there are any
    Markdown   what the page shows; the best of a column in bold
    LaTeX      likewise, with the rules of booktabs

What was not measured is a dash, or an empty field of a CSV file.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

NOTHING = "\u2013"
"""shown where nothing was measured"""
REPORTED = "reported"
"""what headings of the papers' numbers end in, where colour and place can't say it"""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell.

    Attributes:
        text: as people read it, such as "54.1 ± 1.0"; numbers in percent where the caption says so.
        value: the number in the unit of `text`; None: the cell is words.
        std: its standard deviation over seeds, likewise.
        note: a second, muted line, such as a difference; shown in brackets.
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
        muted: numbers of the columns after the first that are there for reference, likewise.
        groups: (heading, columns) of a line above the headings, for the columns after the first; () for none.
        totals: numbers of the rows that sum up the others.
        bars: a picture below each row's name (`seitpp.runtime.charts.bar`); () for none. On the page alone.
    """

    name: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell | None]]]
    reported: Sequence[int] = field(default_factory=tuple)
    muted: Sequence[int] = field(default_factory=tuple)
    groups: Sequence[tuple[str, int]] = field(default_factory=tuple)
    totals: Sequence[int] = field(default_factory=tuple)
    bars: Sequence[Markup] = field(default_factory=tuple)

    @property
    def in_words(self) -> bool:
        """Whether no cell has a number: such a table may break its cells, and a narrow page stacks them."""
        return all(cell is None or cell.value is None for _, cells in self.rows for cell in cells)


def slug(text: str) -> str:
    """Text as a Table's name: lower case, digits and "-", at most 80 characters; "table" where nothing is left."""
    return re.sub("[^a-z0-9]+", "-", text.lower()).strip("-")[:80].strip("-") or "table"


def table_names(tables: Iterable[Table]) -> dict[int, str]:
    """The name of each table's files, by its identity (`id`): its own, counted on where another has that already."""
    names, taken = {}, set()
    for table in tables:
        base, count = slug(table.name), 1
        name = base
        while name in taken:
            count += 1
            name = f"{base}-{count}"
        taken.add(name)
        names.setdefault(id(table), name)
    return names


def as_csv(table: Table) -> str:
    """Numbers as they are, ten digits of each; words where a cell has no number; empty where nothing was measured."""
    written = [(table.columns[0] or "row", [name for name, _ in table.rows])]
    for place, heading in enumerate(_headings(table)[1:]):
        cells = [cells[place] for _, cells in table.rows]
        known = [cell for cell in cells if cell is not None]
        written.append((heading, [_number(cell) for cell in cells]))
        if any(cell.std is not None for cell in known):
            written.append((f"{heading}, std", ["" if cell is None else _digits(cell.std) for cell in cells]))
        if any(cell.note for cell in known):
            written.append((f"{heading}, note", ["" if cell is None else cell.note for cell in cells]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([heading for heading, _ in written])
    writer.writerows(zip(*(values for _, values in written), strict=True))
    return text.getvalue()


def markdown_rows(table: Table) -> list[str]:
    """The lines of a Markdown table, without its caption."""
    return [
        _markdown_line(map(_markdown, _headings(table))),
        f"|---|{'---:|' * (len(table.columns) - 1)}",
        *(_markdown_line([_markdown(name), *map(_markdown_cell, cells)]) for name, cells in table.rows),
    ]


def as_markdown(table: Table) -> str:
    """Caption and table, ready for a README."""
    return "\n".join([f"**{_markdown(table.caption)}**", "", *markdown_rows(table), ""])


def as_latex(table: Table) -> str:
    r"""A `table` with caption and label; needs `\usepackage{booktabs}`."""
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{latex(table.caption)}}}",
        rf"  \label{{tab:{slug(table.name)}}}",
        rf"  \begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
        r"    \toprule",
        rf"    {' & '.join(map(latex, _headings(table)))} \\",
        r"    \midrule",
    ]
    for place, (name, cells) in enumerate(table.rows):
        if place in table.totals and place:
            lines.append(r"    \midrule")
        lines.append(rf"    {' & '.join([latex(name), *map(_latex_cell, cells)])} \\")
    return "\n".join([*lines, r"    \bottomrule", r"  \end{tabular}", r"\end{table}", ""])


_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "[": "{[}", "]": "{]}",
    "\u2013": "--", "\u2014": "---", "\u2212": "$-$", "±": r"$\pm$", "\u00d7": r"$\times$",
    "\u2192": r"$\to$", "\u2026": r"\dots{}", "\u201c": "``", "\u201d": "''", "\u2018": "`", "\u2019": "'",
}  # fmt: skip


def latex(text: str) -> str:
    """Text as LaTeX shows it: nothing in it is a command, a comment or an option."""
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


def _headings(table):
    """All columns' headings; what the papers report is called so, in a form that has no colours."""
    return [
        f"{heading} ({REPORTED})" if place - 1 in table.reported and REPORTED not in heading else heading
        for place, heading in enumerate(table.columns)
    ]


def _number(cell):
    if cell is None:
        return ""
    return cell.text if cell.value is None else _digits(cell.value)


def _digits(value):
    return "" if value is None else f"{value:.10g}"


def _markdown(text):
    return re.sub(r"([\\|<*`])", r"\\\1", " ".join(text.split()))


def _markdown_cell(cell):
    if cell is None:
        return NOTHING
    text = _markdown(cell.text)
    return (f"**{text}**" if cell.best else text) + (f" ({_markdown(cell.note)})" if cell.note else "")


def _markdown_line(cells):
    return f"| {' | '.join(cells)} |"


def _latex_cell(cell):
    if cell is None:
        return "--"
    text = latex(cell.text)
    return (rf"\textbf{{{text}}}" if cell.best else text) + (f" ({latex(cell.note)})" if cell.note else "")
