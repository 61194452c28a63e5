"""The section of transfer to other data sets: sets are columns, methods are rows."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false
# The stubs of pandas do not know what a column, a group or a named row is.

from typing import Any

import pandas as pd

from seitpp.report import words
from seitpp.report.found_results import FINE_GRAINED
from seitpp.report.found_runs import Found, Run
from seitpp.report.methods import KEY, Method, method_of
from seitpp.report.tables import Cell, Table
from seitpp.runtime.results import mean_and_std

ACCURACY = "accuracy"
"""The metric of a set whose run does not say which it is reported by."""


def fine_grained_sections(found: Found) -> list[dict[str, Any]]:
    """What each run of `seitpp fine-grained` measured; an unfinished one has no results yet.

    Returns: [{label, recipes, images, tables}], one a run: label, of the run; recipes, a sentence; images, a sentence
        with the number of images of each set; tables, list of one Table.
    """
    runs = [run for run in found.of(FINE_GRAINED) if len(run.results)]
    return [_section(run, "fine-grained" if len(runs) == 1 else f"fine-grained-{n}") for n, run in enumerate(runs, 1)]


def _section(run: Run, name: str) -> dict[str, Any]:
    results = run.results.assign(label="")
    metrics = run.summary.get("sets", {})
    official = results[results["metric"] == results["dataset"].map(lambda each: metrics.get(each, ACCURACY))]
    scores = mean_and_std(official, ("dataset", *KEY)).to_dict("records")
    cells = {(each["dataset"], _method(each)): each for each in scores}
    sets = list(dict.fromkeys(official["dataset"]))
    titles = _titles()
    methods = words.method_names(method for _, method in cells)
    best = {each: max(score["mean"] for (dataset, _), score in cells.items() if dataset == each) for each in sets}
    table = Table(
        name=name,
        caption=f"Accuracy on other data sets, %, {_spread(official)}; top-1, or where a column says so the mean of "
        "the classes' accuracies",
        columns=["method", *(_heading(each, titles, metrics.get(each, ACCURACY)) for each in sets)],
        rows=[
            (method_name, [_cell(cells.get((each, method)), best[each]) for each in sets])
            for method, method_name in methods.items()
        ],
    )
    counts = ", ".join(_counts(each, titles, official) for each in sets)
    recipes = [f"{key} {run.config[key]}" for key in ("probe", "finetune") if run.config.get(key)]
    return {
        "label": run.label,
        "recipes": f"Recipes: {', '.join(recipes)}." if recipes else "",
        "images": f"Images to learn from / to measure on: {counts}.",
        "tables": [table],
    }


def _titles():
    """{name of a known set: its title}."""
    from seitpp.downstream.benchmarks.sets import read_sets  # brings torch, which a page without the section needs not

    return {name: each.title for name, each in read_sets().items()}


def _method(score: dict[str, Any]) -> Method:
    return method_of(pd.Series(score))


def _heading(name, titles, metric):
    return titles.get(name, name) + (", mean of classes" if metric == "mean_per_class" else "")


def _counts(name, titles, results):
    first = results[results["dataset"] == name].iloc[0]
    return f"{titles.get(name, name)} {first.train_images:,} / {first.test_images:,}"


def _spread(results):
    seeds = int(results["seed"].nunique())
    return "of one seed" if seeds == 1 else f"mean ± standard deviation over {seeds} seeds where a method has several"


def _cell(score, best):
    if score is None:
        return None
    std = None if pd.isna(score["std"]) else score["std"]
    return Cell(
        text=words.percent(score["mean"], std), value=100 * score["mean"], std=None if std is None else 100 * std,
        best=score["mean"] == best,
    )  # fmt: skip
