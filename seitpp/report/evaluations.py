"""Report section of `seitpp evaluate`: all that was measured of classifiers, one column a classifier."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false
# The stubs of pandas do not know what a column, a group or a named row is.

from typing import Any

import pandas as pd

from seitpp.report import words
from seitpp.report.methods import KEY, method_of
from seitpp.runtime.results import mean_and_std


def evaluation_sections(results: pd.DataFrame) -> list[dict[str, Any]]:
    """A table of each data set: metrics by methods, mean over seeds.

    Args:
        results: rows of all runs, as from `all_results`.
    Returns: dicts with dataset, methods (names), test_images (of each), seeds (of each) and rows, (metric, values).
    """
    sections = []
    evaluated = results[results["part"] == "evaluation"]
    for dataset, rows in evaluated.groupby("dataset", sort=False):
        table = mean_and_std(rows, [*KEY, "metric"])
        cells = {(method_of(row), row.metric): row for row in table.itertuples()}
        methods = list(dict.fromkeys(method for method, _ in cells))
        names = words.method_names(methods)
        first = [next(row for (method, _), row in cells.items() if method == each) for each in methods]
        sections.append(
            {
                "dataset": dataset,
                "methods": [names[each] for each in methods],
                "test_images": [int(row.test_images) for row in first],
                "seeds": [int(row.seeds) for row in first],
                "rows": [
                    (words.metric(metric), [_text(metric, cells.get((each, metric))) for each in methods])
                    for metric in dict.fromkeys(metric for _, metric in cells)
                ],
            }
        )
    return sections


def _text(metric, row):
    """A cell; a dash for what was not measured."""
    if row is None:
        return "\u2013"
    return words.with_unit(metric, row.mean, None if pd.isna(row.std) else row.std)
