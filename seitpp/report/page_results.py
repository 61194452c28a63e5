"""Report sections of the results: for each data set the accuracies, what they say and fine-tuning's curves."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false
# The stubs of pandas do not know what a column, a group or a named row is.

import math
from typing import Any

import pandas as pd

from seitpp.report import words
from seitpp.report.curves import curves_chart, evaluated, seeds_of
from seitpp.report.findings import (
    baseline_sentences,
    difference_sentence,
    not_improved,
)
from seitpp.report.found_runs import Found
from seitpp.report.methods import Method
from seitpp.report.reported import read_reported, reported_of
from seitpp.report.reported_tables import cell_of, with_reported
from seitpp.report.scores import differences, scores, shift_scores
from seitpp.report.tables import Cell, Table
from seitpp.runtime.charts import bar

COLOURS = {"pretrained": "mtm", "frozen": "mtm", "scratch": "scratch", "baseline": "baseline"}


def dataset_sections(found: Found, results: pd.DataFrame) -> list[dict[str, Any]]:
    """Accuracies of each data set, what they say, and the curves of fine-tuning.

    Args:
        found: Found.
        results: rows of all runs, as from `all_results`.
    """
    accuracies = results[(results["metric"] == "accuracy") & (results["part"] != "ablation")]
    sections = []
    for dataset, rows in accuracies.groupby("dataset", sort=False):
        measured = scores(rows[rows["part"] == "main"])
        runs = [run for run in found.of("finetune.train") if run.config.get("dataset") == dataset]
        sets = shift_scores(rows[rows["part"] == "robustness"])
        if not measured and not sets:
            continue
        sections.append(
            {
                "dataset": dataset,
                "scores": measured,
                "tables": [_results_table(dataset, measured)] if measured else [],
                "drawn": {COLOURS[score.kind] for score in measured},
                "differences": differences(measured),
                "sentences": [difference_sentence(each) for each in differences(measured)]
                + baseline_sentences(measured),
                "not_improved": not_improved(dataset, measured, sets),
                "charts": _finetuning_charts(runs, dataset),
                "sets": sets,
            }
        )
    return sections


def _results_table(dataset, measured):
    limit = max(score.mean + (score.std or 0) for score in measured)
    figures = read_reported()
    table = Table(
        name=f"results-{dataset}",
        caption=f"Accuracy on {dataset}, %, best first: mean ± standard deviation over seeds; of one seed, in brackets "
        "the 95 % interval that so many test images give",
        columns=("method", "accuracy, %", "seeds", "images, train / test"),
        rows=[
            (
                score.name,
                [
                    _accuracy_cell(score),
                    Cell(text=str(score.seeds), value=score.seeds),
                    Cell(text=f"{score.train_images:,} / {score.test_images:,}"),
                ],
            )
            for score in measured
        ],
        bars=[bar(score.mean, limit, colour=COLOURS[score.kind], std=score.std) for score in measured],
    )
    return with_reported(table, [cell_of(reported_of(figures, dataset, score.method)) for score in measured])


def _accuracy_cell(score):
    """With the deviation over seeds; of one seed with the binomial interval."""
    if score.std is not None:
        return Cell(text=score.text, value=100 * score.mean, std=100 * score.std)
    low, high = (100 * end for end in score.interval)
    note = f"{low:.1f} to {high:.1f}" if math.isfinite(low) else ""
    return Cell(text=score.text, value=100 * score.mean, note=note)


def _equal_budget(runs):
    """Whether all runs took the same number of steps of the same size."""
    keys = ("steps", "epochs", "batch_size", "accum_iter")
    return len({tuple(run.config.get(key) for key in keys) for run in runs}) == 1


def _finetuning_charts(runs, dataset):
    """Training loss and, where there are several evaluations, accuracy: every seed a line.

    A colour for each kind of start, or for each run where some share their start.
    """
    methods = {
        run.label: Method(protocol="finetune", init="mtm" if run.config.get("weights") else "scratch") for run in runs
    }
    told_apart = len(set(methods.values())) == len(runs)
    labels = {label: words.from_start(method.init) for label, method in methods.items()} if told_apart else {}
    drawn = {
        "colours": {label: (COLOURS[method.kind], False) for label, method in methods.items()} if told_apart else None,
        "labels": labels, "epochs": True,
    }  # fmt: skip
    loss = curves_chart(
        runs, ("loss",), title=f"Training loss on {dataset}, a line a seed", of_evaluations=False,
        y_label="training loss, nats per image", **drawn,
    )  # fmt: skip
    steps = ", as many steps for each" if _equal_budget(runs) else ""
    charts = [{"picture": loss, "caption": f"Training on {dataset}: training loss, one line per seed{steps}."}]
    if any(len(evaluated(records)) > 1 for run in runs for records in seeds_of(run)):
        picture = curves_chart(
            runs, ("accuracy",), title=f"Accuracy on the test images of {dataset}, a line a seed",
            of_evaluations=True, y_label="accuracy on test images, %", factor=100, **drawn,
        )  # fmt: skip
        caption = f"Accuracy on {dataset} during training, one line per seed. Nothing is chosen by it: results are the "
        charts.append({"picture": picture, "caption": f"{caption}ends of the lines."})
    return [chart for chart in charts if chart["picture"]]
