"""The numbers of a storage curve: what its runs measured, and the bytes that each of them learned from."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false
# The stubs of pandas do not know what a column, a group or a named row is.

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from seitpp.downstream.storage_curve_steps import folder_of
from seitpp.runtime.results import read_results
from seitpp.tokenizers.sources.jpegs.jpeg_file import read_description
from seitpp.tokens.format.size import StoreSize
from seitpp.tokens.store import TokenStore

if TYPE_CHECKING:
    from seitpp.downstream.storage_curve import StorageCurveConfig

POINT = ("dataset", "budget", "storage", "init", "augmentation", "metric")
"""The columns that tell the points of the curve apart."""
COLUMNS = (
    *("dataset", "budget", "storage", "init", "augmentation", "images", "bytes", "bytes_with_tokenizer", "metric"),
    *("mean", "std", "seeds", "quality", "side", "test_images"),
)
"""Of storage_curve.csv."""
_WEIGHTS = ("model.safetensors", "diffusion_pytorch_model.safetensors", "config.json", "tokenizer.json")


def subset_bytes(size: StoreSize) -> int:
    """All bytes that a training on tokens reads: those of the rows (tokens, labels, keys), codebook and tables.

    Without what the container adds: Arrow's schema and padding, the manifest, the list of a subset's rows.
    """
    return size.tokens + size.labels + size.masks + size.keys + size.codebook + size.tables


def jpeg_bytes(folder: str | Path) -> int:
    """The same of JPEGs: those of the images, labels and keys."""
    return sum(read_description(folder)["content"].values())


def tokenizer_bytes(folder: str) -> int:
    """Bytes of a tokenizer's files; of a custom class (package.module:Class), of its weights in memory."""
    place = Path(folder) / "weights"
    place = place if (place / "tokenizer.json").is_file() else Path(folder)
    files = [place / name for name in _WEIGHTS if (place / name).is_file()]
    if files:
        return sum(file.stat().st_size for file in files)
    from seitpp.tokenizers.tokenizer import load_tokenizer

    return sum(tensor.nbytes for tensor in load_tokenizer(folder).state_dict().values())


def gather(config: "StorageCurveConfig", budgets: list[int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the runs measured.

    Args:
        config: a StorageCurveConfig whose steps are finished.
        budgets: bytes of its subsets' rows.
    Returns: (DataFrame of the schema of results; the same with budget, images, bytes, bytes_with_tokenizer, quality
        and side, of which the last two are missing for tokens).
    """
    tokenizer = None if config.tokenizer is None else tokenizer_bytes(config.tokenizer)
    frames = []
    for seed in config.all_seeds:
        for budget in budgets:
            size = TokenStore(folder_of(config, seed, budget, "store"), verify_shards=False).size
            taken = subset_bytes(size)
            about: dict[str, Any] = {
                "budget": budget, "images": size.rows, "bytes": taken,
                "bytes_with_tokenizer": None if tokenizer is None else taken + tokenizer,
            }  # fmt: skip
            for ingredient in config.ingredients:
                frames.append(_rows(folder_of(config, seed, budget, ingredient, "finetune"), about))
            for storage in config.jpegs:
                folder = folder_of(config, seed, budget, storage)
                described, taken = read_description(folder / f"seed-{seed}"), jpeg_bytes(folder / f"seed-{seed}")
                about = {
                    "budget": budget, "images": described["rows"], "bytes": taken, "bytes_with_tokenizer": taken,
                    "quality": described["quality"], "side": min(described["size"]),
                }  # fmt: skip
                frames.append(_rows(folder, about))
    found = pd.concat(frames, ignore_index=True)
    return found[list(read_results([]).columns)], found


def _rows(folder, about):
    empty = {"quality": None, "side": None}
    table = read_results([folder]).assign(**{**empty, **about})
    return table.astype(dict.fromkeys(("bytes_with_tokenizer", "quality", "side"), "Int64"))


def curve_table(found: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds: of the numbers, and, rounded, of images and bytes, which differ with the seed's choice.

    Args:
        found: the second table of `gather`.
    Returns: DataFrame with COLUMNS; std is missing with one seed.
    """
    grouped = found.groupby(list(POINT), sort=False, dropna=False)
    whole = ("images", "bytes", "bytes_with_tokenizer", "quality", "side", "test_images")
    table = grouped.agg(
        mean=("value", "mean"), std=("value", "std"), seeds=("seed", "nunique"),
        **{name: (name, "mean") for name in whole},
    ).reset_index()  # fmt: skip
    for name in whole:
        table[name] = table[name].astype("Float64").round().astype("Int64")
    return table[list(COLUMNS)]
