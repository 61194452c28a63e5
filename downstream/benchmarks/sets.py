"""What is known of each benchmark, before any of its files is looked at: `sets.csv`, a row a set.

name           of the set in commands and results
title          for people
layout         which official files it consists of, a key of `LAYOUTS`
folders        where it lies within the folder of all sets; several, with ; between them: the first that is there
metric         what the field reports: accuracy, or mean_per_class
classes, train_images, test_images     by the official split
split          which that is, training / test
licence        as the authors' page says; only what is certain
address        the authors' page
bytes          of the archives to download, "" where not certain
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path

from seitpp.downstream.benchmarks.layouts.known import LAYOUTS
from seitpp.runtime.errors import UserError
from seitpp.runtime.suggest import did_you_mean
from seitpp.runtime.tables import read_table

METRICS = ("accuracy", "mean_per_class")


@dataclass(frozen=True, kw_only=True)
class BenchmarkSet:
    """A row of the table, see the top of this file."""

    name: str
    title: str
    layout: str
    folders: tuple[str, ...]
    metric: str
    classes: int
    train_images: int
    test_images: int
    split: str
    licence: str
    address: str
    bytes: int | None


COLUMNS = tuple(field.name for field in fields(BenchmarkSet))


def official_table() -> Path:
    """The table that comes with the package."""
    return Path(str(resources.files("seitpp.downstream.benchmarks") / "sets.csv"))


def read_sets(table: str | Path | None = None) -> dict[str, BenchmarkSet]:
    """The sets of a table by their names.

    Args:
        table: CSV with the columns of `sets.csv`; None: that of the package.
    Raises: UserError naming the table and the line that is at fault.
    """
    table = official_table() if table is None else table
    frame = read_table(table, COLUMNS)
    rows = zip(frame.index, frame.to_dict("records"), strict=True)
    found: dict[str, BenchmarkSet] = {}
    for line, row in rows:
        each = _described(row, f"{table}, line {line}")
        if each.name in found:
            raise UserError(f"{table}, line {line}: {each.name} is there twice: name it once")
        found[each.name] = each
    return found


def choose_sets(names: Sequence[str], known: dict[str, BenchmarkSet]) -> list[BenchmarkSet]:
    """The sets of these names.

    Raises: UserError for one that is not known, with the nearest that is.
    """
    for name in names:
        if name not in known:
            raise UserError(f"--sets has {name!r}: {did_you_mean(name, known)}; for images of your own, --folders")
    return [known[name] for name in names]


def _described(row, where):
    values = {name: row[name] for name in COLUMNS}
    counts = ("classes", "train_images", "test_images", *(["bytes"] if row["bytes"] else []))
    for name in counts:
        if not (row[name].isascii() and row[name].isdigit() and int(row[name]) > 0):
            raise UserError(f"{where}: {name} is {row[name]!r}, expected a whole number above 0")
        values[name] = int(row[name])
    if row["metric"] not in METRICS:
        raise UserError(f"{where}: metric is {row['metric']!r}, expected {' or '.join(METRICS)}")
    if row["layout"] not in LAYOUTS:
        raise UserError(f"{where}: layout is {row['layout']!r}; {did_you_mean(row['layout'], LAYOUTS)}")
    if not row["name"] or row["name"] != Path(row["name"]).name or row["name"].startswith("."):
        raise UserError(f"{where}: name is {row['name']!r}, expected one that a folder can have")
    return BenchmarkSet(**values | {"folders": tuple(row["folders"].split(";")), "bytes": values["bytes"] or None})
