"""What papers report: `reported.csv`, a row a figure, shown beside what was measured here and never mixed with it.

    paper         with its arXiv number
    table         of the paper; empty: not known
    dataset       "imagenet-1k", "imagenet-100"
    shift         what was done to the images, as in results; "noise" and "blur" are of a strength that is not published
    method        what the paper calls it
    protocol, init, augmentation   as in results; an empty init: not said
    bytes         of the training images as they were stored; empty: not said
    metric, value as in results: accuracies are fractions
    how           "primary": read in the paper itself; "secondary", or "secondary: SOURCE": read elsewhere, not checked

A fact is added as a row, never as a number in code.
"""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# The stubs of pandas do not know what a column, a group or a named row is.

import re
from dataclasses import dataclass, fields
from pathlib import Path

from seitpp.report.methods import Method
from seitpp.runtime.errors import UserError
from seitpp.runtime.tables import read_table

REPORTED = Path(__file__).with_name("reported.csv")
IMAGENET, IMAGENET_100 = "imagenet-1k", "imagenet-100"
TOKENS = ("SeiT", "SeiT + MTM", "SeiT++, no MTM", "SeiT++", "ViT-S")
"""Methods of the papers that learn from tokens."""
_AS_MANY = 0.1
"""How far the bytes of a run may lie from a paper's, which are rounded, as a fraction."""
_HOW = re.compile(r"primary|secondary(: \S.*)?")
_IMAGENETS = {
    "imagenet": IMAGENET, "imagenet1k": IMAGENET, "in1k": IMAGENET, "ilsvrc2012": IMAGENET,
    "imagenet100": IMAGENET_100, "in100": IMAGENET_100,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Reported:
    """One figure of a paper; the fields are the columns, see the top of this file."""

    paper: str
    table: str
    dataset: str
    shift: str
    method: str
    protocol: str
    init: str
    augmentation: str
    bytes: int | None
    metric: str
    value: float
    how: str


COLUMNS = tuple(field.name for field in fields(Reported))


def read_reported(file: str | Path = REPORTED) -> list[Reported]:
    """Read and check a table of reported figures.

    Raises: UserError naming the line that is at fault: a value that is no fraction, bytes that are no whole number, a
        figure that doesn't say where it was read, or is there twice.
    """
    figures = {}
    for line, row in read_table(file, COLUMNS).iterrows():
        where = f"{file}, line {line}"
        for name in ("paper", "dataset", "method", "metric"):
            if not row[name]:
                raise UserError(f"{where}: {name} is empty")
        if not _HOW.fullmatch(row["how"]):
            raise UserError(f"{where}: how is {row['how']!r}, not primary, secondary or secondary: SOURCE")
        if row["bytes"] and not re.fullmatch("[1-9][0-9]*", row["bytes"]):
            raise UserError(f"{where}: bytes are {row['bytes']!r}, not a whole number")
        if not re.fullmatch(r"[01](\.[0-9]+)?", row["value"]) or not 0 <= float(row["value"]) <= 1:
            raise UserError(f"{where}: value is {row['value']!r}, not a fraction from 0 to 1")
        figure = Reported(
            **{name: row[name] for name in COLUMNS}
            | {"bytes": int(row["bytes"]) if row["bytes"] else None, "value": float(row["value"])}
        )
        key = tuple(getattr(figure, name) for name in COLUMNS if name not in ("value", "how"))
        if key in figures:
            raise UserError(f"{where}: the same figure is there twice")
        figures[key] = figure
    return list(figures.values())


def known_dataset(name: str) -> str:
    """A data set's name as reported.csv has it: "ImageNet_1k" is "imagenet-1k"; others stay as they are."""
    return _IMAGENETS.get(re.sub("[^a-z0-9]", "", name.lower()), name)


def reported_of(
    figures: list[Reported], dataset: str, method: Method, *, shift: str = "", metric: str = "accuracy"
) -> Reported | None:
    """What a paper reports for a recipe that is its own: the same data, labels, protocol, start and augmentation.

    Bytes are equal where the run's are limited; else the figure is the one of the most bytes, which are all tokens.
    """
    if method.label_fraction != 1.0 or not method.init:
        return None
    wanted = (known_dataset(dataset), shift, method.protocol, method.init, method.augmentation, metric)
    found = [
        each
        for each in figures
        if (each.dataset, each.shift, each.protocol, each.init, each.augmentation, each.metric) == wanted
        and each.method in TOKENS
    ]
    if method.budget_bytes is not None:
        found = [each for each in found if each.bytes and abs(each.bytes / method.budget_bytes - 1) < _AS_MANY]
    return max(found, key=lambda each: each.bytes or 0, default=None)
