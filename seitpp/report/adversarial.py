"""Report section of `seitpp adversarial`: accuracy by attack and budget, and how many tokens an attack changes."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false
# The stubs of pandas do not know what a column, a group or a named row is.

import re
from typing import Any

import pandas as pd

from seitpp.report import words
from seitpp.report.found_results import ADVERSARIAL
from seitpp.report.found_runs import Found
from seitpp.report.methods import KEY, method_of
from seitpp.report.tables import Cell, Table
from seitpp.runtime.results import mean_and_std

_NAMES = {"random": "random changes", "fgsm": "FGSM"}


def adversarial_sections(found: Found) -> list[dict[str, Any]]:
    """A section of each run and data set.

    Returns: [{label, dataset, images, tables}]; the first table is accuracy, the second the tokens that were changed;
        a row an attack and budget, a column a classifier.
    """
    sections = []
    for run in found.of(ADVERSARIAL):
        for dataset, rows in run.results.groupby("dataset", sort=False):
            place = f"{_slug(run.label)}-{_slug(dataset)}"
            accuracy = f"Accuracy on attacked images of {dataset}, %, mean ± standard deviation over seeds"
            changed = f"Tokens of {dataset} that an attack changes, %, mean ± standard deviation over seeds"
            tables = [
                _table(f"adversarial-{place}", accuracy, rows[rows["metric"] == "accuracy"]),
                _table(f"adversarial-tokens-{place}", changed, rows[rows["metric"] == "tokens_changed"]),
            ]
            sections.append(
                {
                    "label": run.label, "dataset": dataset, "images": int(rows["test_images"].max()),
                    "tables": [table for table in tables if table.rows],
                }
            )  # fmt: skip
    return sections


def attack_in_words(shift: str) -> str:
    """An attack's identifier in words: pgd10_eps4 as "PGD, 10 steps, 4/255"; that of none as "clean images"."""
    match = re.fullmatch(r"([a-z]+)(\d*)_eps(\d+)", shift)
    if not match:
        return words.shift(shift) if shift else "clean images"
    kind, steps, budget = match.groups()
    name = f"PGD, {steps} steps" if kind == "pgd" else _NAMES.get(kind, kind)
    return f"{name}, {budget}/255"


def _table(name: str, caption: str, rows: pd.DataFrame) -> Table:
    means = mean_and_std(rows.assign(label=""), [*KEY, "shift"])
    cells = {(row.shift, method_of(row)): row for row in means.itertuples()}
    methods = list(dict.fromkeys(method for _, method in cells))
    names = words.method_names(methods)
    lines = []
    for shift in dict.fromkeys(shift for shift, _ in cells):
        line = [cells.get((shift, method)) for method in methods]
        best = max((row.mean for row in line if row is not None), default=None)
        lines.append((attack_in_words(shift), [_cell(row, best if len(line) > 1 else None) for row in line]))
    return Table(name=name, caption=caption, columns=("attack", *(names[each] for each in methods)), rows=lines)


def _cell(row: Any, best: float | None) -> Cell | None:
    if row is None:
        return None
    std = None if pd.isna(row.std) else row.std
    return Cell(
        text=words.percent(row.mean, std), value=100 * row.mean, std=None if std is None else 100 * std,
        best=row.mean == best,
    )  # fmt: skip


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
