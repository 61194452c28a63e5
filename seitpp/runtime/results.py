"""Results as tidy rows: one measured number a row, in `results.csv` of the run that measured it."""

from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from seitpp.runtime.files import replacing

COLUMNS = ("task", "method", "metric", "seed", "value", "train_images", "test_images")


@dataclass(frozen=True, kw_only=True)
class Result:
    """One measured number.

    Attributes:
        task: what is predicted, such as "categories".
        method: how, such as "fine-tuned from MTM".
        metric: "accuracy" (share, not percent), …
        seed: of the run.
        value: the number.
        train_images: labelled images that were learned from.
        test_images: images that were measured on.
    """

    task: str
    method: str
    metric: str
    seed: int
    value: float
    train_images: int
    test_images: int


def write_results(folder, results):
    """Write Result objects to folder/results.csv, atomically."""
    with replacing(Path(folder) / "results.csv") as temporary:
        pd.DataFrame([asdict(result) for result in results], columns=COLUMNS).to_csv(temporary, index=False)


def read_results(folders):
    """One DataFrame of all results.csv in the folders given; those without any are passed over."""
    files = [Path(folder) / "results.csv" for folder in folders]
    frames = [pd.read_csv(file) for file in files if file.exists()]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=COLUMNS)


def mean_and_deviation(results):
    """Mean and sample deviation over seeds: DataFrame with task, method, metric, mean, std, seeds, images."""
    grouped = results.groupby(["task", "method", "metric"], sort=False)
    return grouped.agg(
        mean=("value", "mean"),
        std=("value", "std"),
        seeds=("seed", "nunique"),
        train_images=("train_images", "first"),
        test_images=("test_images", "first"),
    ).reset_index()
