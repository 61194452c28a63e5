"""Results are data: one measured number a row, in `results.csv` of the run that measured it.

A row says what was measured by what, in identifiers; words for people are made by the report, and never parsed back.
"""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false
# The stubs of pandas do not know what a column, a group or a named row is.

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pandas as pd

from seitpp.runtime.errors import UserError
from seitpp.runtime.files import replacing
from seitpp.runtime.ownership import begins_with
from seitpp.runtime.tables import read_table


@dataclass(frozen=True, kw_only=True)
class Result:
    """One measured number.

    Attributes:
        dataset: name of the data set, such as "categories".
        split: which part of it was measured: "test".
        shift: what was done to the images, such as "gaussian_noise", or the domain they are of; "" for none.
        severity: of the shift, 1 to 5; None where it has none.
        metric: "accuracy" (a fraction, not percent), "cross_entropy" (nats), …
        value: the number.
        seed: of the run.
        init: where the network's weights, or the features, come from: "scratch", "mtm", "classifier" (the encoder of
            one), "random" (never trained), "pixels", "bag-of-tokens", or "" for no features at all.
        protocol: how it was trained on labels: "finetune", "linear", "linear_grid", "attentive" (these two with
            "_augmented" where heads learned from augmented views), "knn10", "majority", …
        augmentation: what pre-training was augmented with, such as "tokenadapt+coloradapt"; "" for none.
        label_fraction: fraction of the labels that was learned from.
        train_images: labelled images that were learned from.
        test_images: images that were measured on.
        budget_bytes: bytes of the training tokens, where the run was limited to so many; None: not limited.
        storage: how the training images were stored: "" as tokens, else "jpeg75" (JPEGs of quality 75),
            "jpeg75_side32" (scaled down to 32 pixels a side before), …
        tokenizer: fingerprint of the tokenizer; "" where none was used.
        run: folder of the run that measured it.
    """

    dataset: str
    split: str = "test"
    shift: str = ""
    severity: int | None = None
    metric: str
    value: float
    seed: int
    init: str
    protocol: str
    augmentation: str = ""
    label_fraction: float = 1.0
    train_images: int
    test_images: int
    budget_bytes: int | None = None
    storage: str = ""
    tokenizer: str = ""
    run: str = ""


COLUMNS = tuple(field.name for field in fields(Result))
_TYPES = {
    str: "string",
    int: "int64",
    float: "float64",
    int | None: "Int64",
}
DTYPES = {field.name: _TYPES[field.type] for field in fields(Result)}
"""Column to pandas dtype: every table of results is read with these, and no text is taken for a missing value."""
METHOD = ("protocol", "init", "augmentation", "storage")
"""The columns that tell methods apart."""
ADDED = ("storage",)
"""Columns that tables of older versions lack; all their rows would say "" in them."""


def results_table(results: Iterable[Result]) -> pd.DataFrame:
    """Results as a DataFrame with the columns of the schema."""
    return pd.DataFrame([asdict(result) for result in results], columns=list(COLUMNS)).astype(DTYPES)


def write_results(folder: str | Path, results: Iterable[Result] | pd.DataFrame) -> None:
    """Write results to folder/results.csv, atomically."""
    table = results if isinstance(results, pd.DataFrame) else results_table(results)
    with replacing(Path(folder) / "results.csv") as temporary:
        table[list(COLUMNS)].to_csv(temporary, index=False)


def is_results(file: Path) -> bool:
    """Whether a file begins as a table of results does, with the names of its columns, now or of older versions."""
    before = [name for name in COLUMNS if name not in ADDED]
    headers = [f"{','.join(names)}\n".encode() for names in (COLUMNS, before)]
    return any(begins_with(file, header, within=len(header)) for header in headers)


def read_results(folders: Iterable[str | Path]) -> pd.DataFrame:
    """One DataFrame of all results.csv in the folders given; those without any are passed over.

    Raises: UserError for a file that is no table of results.
    """
    files = [Path(folder) / "results.csv" for folder in folders]
    tables = [_read(file) for file in files if file.is_file()]
    return pd.concat(tables, ignore_index=True) if tables else results_table([])


def _read(file: Path) -> pd.DataFrame:
    table = read_table(file, [name for name in COLUMNS if name not in ADDED]).reset_index(drop=True).astype("string")
    table = table.assign(**{name: "" for name in ADDED if name not in table})
    try:
        numbers = [name for name, dtype in DTYPES.items() if dtype != "string"]
        table[numbers] = table[numbers].replace("", pd.NA)
        return table[list(COLUMNS)].astype({**DTYPES, "severity": "Float64", "budget_bytes": "Float64"}).astype(DTYPES)
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{file} is no table of results ({reason}): run its command again, or remove it") from error


def mean_and_std(results: pd.DataFrame, by: Iterable[str]) -> pd.DataFrame:
    """Mean and sample standard deviation over seeds.

    Args:
        results: rows of the schema.
        by: columns that tell groups apart.
    Returns: DataFrame with the columns of `by`, mean, std, seeds, train_images and test_images.
    """
    grouped = results.groupby(list(by), sort=False, dropna=False)
    return grouped.agg(
        mean=("value", "mean"),
        std=("value", "std"),
        seeds=("seed", "nunique"),
        train_images=("train_images", "first"),
        test_images=("test_images", "first"),
    ).reset_index()
