"""What a run of robustness adds to its rows: means over corruptions, and a wide table, one row a classifier."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false
# The stubs of pandas do not know what a column, a group or a named row is.

from collections.abc import Iterable
from dataclasses import replace

import pandas as pd

from seitpp.downstream.corruption_error import (
    is_complete,
    mean_accuracy,
    mean_corruption_error,
    relative_mean_corruption_error,
)
from seitpp.downstream.imagenet.imagenet_c import CORRUPTIONS, EXTRA
from seitpp.downstream.imagenet.known import IMAGENET_C, corrupted_shift
from seitpp.runtime.results import Result, results_table

GENERATED = f"{IMAGENET_C}-generated"
"""The shift of means over corruptions that were made here, of images of the tokenizer's size."""
CLASSIFIER = ("init", "augmentation", "label_fraction", "budget_bytes", "train_images", "seed")
"""Columns that tell the classifiers of a run apart, see `find_classifiers`."""


def corruption_results(results: Iterable[Result], *, of_imagenet: bool) -> list[Result]:
    """Means over corruptions for each classifier: of those that are given out, and of those that were generated.

    Args:
        results: rows of a run.
        of_imagenet: whether the classifiers know ImageNet's 1,000 classes: of others there is no mCE, as AlexNet's
            errors are on these.
    Returns: "mean_accuracy"; "mce" and "relative_mce", fractions, only where all 15 corruptions were measured at all
        five severities.
    """
    groups: dict[tuple, list[Result]] = {}
    for each in results:
        if each.metric == "accuracy":
            groups.setdefault(tuple(getattr(each, name) for name in CLASSIFIER), []).append(each)
    found = []
    for rows in groups.values():
        clean = next((1 - each.value for each in rows if not each.shift), None)
        for shift, name_of in ((IMAGENET_C, corrupted_shift), (GENERATED, str)):
            own = {name_of(name): name for name in (*CORRUPTIONS, *EXTRA)}
            corrupted = [each for each in rows if each.shift in own and each.severity is not None]
            if not corrupted:
                continue
            errors: dict[str, list[float]] = {}
            for each in corrupted:
                errors.setdefault(own[each.shift], []).append(1 - each.value)
            values = {"mean_accuracy": mean_accuracy(errors)}
            if of_imagenet and is_complete(errors):
                values["mce"] = mean_corruption_error(errors)
                if clean is not None:
                    values["relative_mce"] = relative_mean_corruption_error(errors, clean)
            alike = replace(corrupted[0], shift=shift, severity=None)
            found += [replace(alike, metric=metric, value=value) for metric, value in values.items()]
    return found


def wide_table(results: Iterable[Result]) -> pd.DataFrame:
    """One row a classifier, one column a set of images: robustness.csv.

    Args:
        results: rows of a run, means over corruptions among them.
    Returns: DataFrame with the columns of CLASSIFIER, then accuracies, fractions, under the names of the sets
        ("clean", "contrast-3", "imagenet-a") and means over corruptions ("imagenet-c mce"); missing where not measured.
    """
    table = results_table(results)
    table = table[table["metric"] != "cross_entropy"]
    columns = [_column(row) for row in table.itertuples()]
    table = table.assign(column=columns)
    keys = table[list(CLASSIFIER)].drop_duplicates()
    values = {}
    for row in table.itertuples():
        key = tuple(None if pd.isna(getattr(row, name)) else getattr(row, name) for name in CLASSIFIER)
        values.setdefault(key, {})[row.column] = row.value
    wide = pd.DataFrame(list(values.values()), columns=list(dict.fromkeys(columns)))
    return pd.concat([keys.reset_index(drop=True), wide], axis=1)


def _column(row):
    parts = [row.shift or "clean", *([] if pd.isna(row.severity) else [str(row.severity)])]
    name = "-".join(parts)
    return name if row.metric == "accuracy" else f"{name} {row.metric}"
