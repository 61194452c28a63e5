"""Report section of `seitpp evaluate`: all that was measured of classifiers, one column a classifier."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false
# The stubs of pandas do not know what a column, a group or a named row is.

from typing import Any

import pandas as pd

from seitpp.report import words
from seitpp.report.methods import KEY, method_of
from seitpp.report.tables import Cell, Table
from seitpp.runtime.results import mean_and_std


def evaluation_sections(results: pd.DataFrame) -> list[dict[str, Any]]:
    """A table of each data set: metrics by methods, mean over seeds.

    Args:
        results: rows of all runs, as from `all_results`.
    Returns: [{dataset, tables}], one table each.
    """
    sections = []
    evaluated = results[results["part"] == "evaluation"]
    for dataset, rows in evaluated.groupby("dataset", sort=False):
        table = mean_and_std(rows, [*KEY, "metric"])
        cells = {(method_of(row), row.metric): row for row in table.itertuples()}
        methods = list(dict.fromkeys(method for method, _ in cells))
        names = words.method_names(methods)
        counts = {each: next(row for (method, _), row in cells.items() if method == each) for each in methods}
        headings = [
            f"{names[each]}; {int(counts[each].test_images):,} images, seeds: {int(counts[each].seeds)}"
            for each in methods
        ]
        table = Table(
            name=f"evaluation-{dataset}",
            caption=f"Measured on {dataset} by seitpp evaluate, mean ± standard deviation over seeds",
            columns=("measure", *headings),
            rows=[
                (words.metric(metric), [_cell(metric, cells.get((each, metric))) for each in methods])
                for metric in dict.fromkeys(metric for _, metric in cells)
            ],
        )
        sections.append({"dataset": dataset, "tables": [table]})
    return sections


def _cell(metric, row):
    """None for what was not measured."""
    if row is None:
        return None
    scale, std = 1 if metric == "cross_entropy" else 100, None if pd.isna(row.std) else row.std
    text = words.with_unit(metric, row.mean, std)
    return Cell(text=text, value=scale * row.mean, std=None if std is None else scale * std)
