"""The numbers of all sets in one table: what the runs measured, and of each method the official metric of the set."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false
# The stubs of pandas do not know what a column, a group or a named row is.

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from seitpp.runtime.results import METHOD, mean_and_std, read_results


def run_folder_of(run: str | Path, name: str, method: str, start: str) -> Path:
    """The folder of one run on a set.

    Args:
        run: folder of all.
        name: of the set.
        method: probe or finetune.
        start: weights or scratch.
    """
    return Path(run) / "sets" / name / f"{method}-{start}"


def results_of(run: str | Path, names: Iterable[str], methods: Sequence[str]) -> pd.DataFrame:
    """What the runs of some sets measured, set by set: DataFrame of the schema of results."""
    return read_results(
        run_folder_of(run, name, method, start)
        for name in names
        for method in methods
        for start in ("weights", "scratch")
    )


def fine_grained_table(results: pd.DataFrame, metrics: Mapping[str, str]) -> pd.DataFrame:
    """Of each set and method the official metric, over seeds.

    Args:
        results: DataFrame of the schema of results.
        metrics: the official metric of each set.
    Returns: DataFrame with the columns dataset, metric, protocol, init, augmentation, mean, std (missing for one seed),
        seeds, train_images and test_images.
    """
    official = results[results["metric"] == results["dataset"].map(dict(metrics))]
    return mean_and_std(official, ("dataset", "metric", *METHOD))
