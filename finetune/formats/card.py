"""The measured numbers of a model card: a table for people, and the `model-index` that the Hub reads."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
# The stubs of pandas do not know what a column or a named row is.

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from seitpp.runtime.results import mean_and_std, read_results, results_table

WHAT = ("dataset", "split", "shift", "severity", "protocol", "init", "augmentation", "label_fraction", "metric")
"""Columns of results that tell one number of a card from another."""


def results_of_model(folder: Path, others: Sequence[str]) -> pd.DataFrame:
    """Results that belong on a model's card: those of its own run and seed, and all of further runs.

    Args:
        folder: the model's run or weights/; of a fine-tuning, one seed's folder.
        others: run folders, such as those of a probe, an evaluation or robustness.
    """
    run = folder.parent if folder.name == "weights" else folder
    seed = re.fullmatch(r"seed-(\d+)", run.name)
    own = read_results([run.parent if seed else run])
    if seed:
        own = own[own["seed"] == int(seed[1])]
    tables = [table for table in (own, read_results(others)) if len(table)]
    return pd.concat(tables, ignore_index=True).drop_duplicates() if tables else results_table([])


def write_measured(card: Path, results: pd.DataFrame, name: str) -> None:
    """Add measured numbers to a model card, in place.

    Args:
        card: the README.md.
        results: rows of the schema of results.
        name: what the model is called in the `model-index`.
    """
    from huggingface_hub import EvalResult, ModelCard

    if not len(results):
        return
    numbers = mean_and_std(results, WHAT)
    content = ModelCard.load(card)
    content.data.model_name = name
    content.data.eval_results = [
        EvalResult(
            task_type="image-classification", dataset_type=row.dataset, dataset_name=row.dataset,
            dataset_split=row.split, metric_type=row.metric, metric_name=" ".join(_what(row)[1:]),
            metric_value=float(row.mean),
        )
        for row in numbers.itertuples()
    ]  # fmt: skip
    content.text = f"{content.text.rstrip()}\n\n{measured_section(numbers)}"
    content.save(card)


def measured_section(numbers: pd.DataFrame) -> str:
    """Markdown: a heading and a row a number, with its deviation over seeds where there are several."""
    lines = [
        "## Measured", "",
        "| data | protocol | metric | value | seeds | training images | test images |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in numbers.itertuples():
        value = f"{row.mean:.4f}" + (f" ± {row.std:.4f}" if row.seeds > 1 else "")
        counts = f"{row.seeds} | {row.train_images} | {row.test_images}"
        lines.append(f"| {' | '.join(_what(row))} | {value} | {counts} |")
    return "\n".join([*lines, ""])


def _what(row):
    """(data, protocol, metric) of a number, in identifiers."""
    severity = "" if pd.isna(row.severity) else f" {row.severity}"
    shift = f", {row.shift}{severity}" if row.shift else ""
    start = " + ".join(filter(None, (row.init, row.augmentation)))
    labels = "" if row.label_fraction == 1 else f", {row.label_fraction:g} of the labels"
    return (
        f"{row.dataset} {row.split}{shift}", f"{row.protocol}{f' ({start})' if start else ''}{labels}", row.metric
    )  # fmt: skip
