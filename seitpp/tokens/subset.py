"""A part of a store as a store of its own: a new manifest over the same shards, nothing copied.

    seitpp store subset stores/train --budget 0.3GB --output_dir stores/train-300MB
    seitpp store subset stores/train --fraction 0.2 --output_dir stores/train-20
    seitpp store subset stores/train --classes '[ant, bee]' --count 5000 --output_dir stores/two

Rows are taken class by class in turn (the first of every class, the second of every class, …), each class in an order
that the seed draws, so that every smaller subset of a seed lies within every larger one. Rows without a label are one
more class, unless `--classes` names those that are wanted. A row with several labels and no single one counts for the
first of them.
"""

import hashlib
import io
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seitpp.runtime.config import require, require_seed
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import make_folder, replacing
from seitpp.runtime.locations import Location
from seitpp.runtime.locks import lock_folder
from seitpp.runtime.ownership import is_subset, refuse_foreign
from seitpp.runtime.places import claim
from seitpp.tokens.format.manifest import TABLES_FILE, write_manifest
from seitpp.tokens.format.targets import first_labels
from seitpp.tokens.order.permutation import permute
from seitpp.tokens.reading import ReadsStores
from seitpp.tokens.store import TokenStore

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BLOCK = 1 << 16


@dataclass(frozen=True, kw_only=True)
class SubsetConfig(ReadsStores):
    """A class-balanced part of a store as a new manifest over the same shards."""

    store: Location
    """token store to choose from, a folder on this machine"""
    output_dir: Location
    """folder of the subset: its manifest points to the shards by relative paths"""
    count: int | None = None
    """rows to take"""
    fraction: float | None = None
    """fraction of the rows to take, instead of `count`"""
    budget: str | None = None
    """bytes to stay within, such as 0.3GB or 500MB (10^9 and 10^6 bytes): tokens, labels, key and mask of each row"""
    classes: tuple[str, ...] = ()
    """names of the classes to keep, which are numbered anew in this order; none: all"""
    balanced: bool = True
    """take as many of each class as there are; false: every row is equally likely"""
    seed: int = 0
    """of the order that rows are taken in"""

    def __post_init__(self) -> None:
        require_seed(self)
        given = [name for name in ("count", "fraction", "budget") if getattr(self, name) is not None]
        if len(given) > 1 or not (given or self.classes):
            raise UserError("SubsetConfig: give one of --count, --fraction and --budget, or --classes")
        require(self, "count", self.count is None or self.count >= 1, "must be at least 1")
        require(self, "fraction", self.fraction is None or 0 < self.fraction <= 1, "must lie in (0, 1]")
        if self.budget is not None:
            parse_bytes(self.budget)


def main(config: SubsetConfig) -> None:
    """Choose the rows and write the subset's store.json, rows.npy and codebook."""
    if "://" in config.store:
        raise UserError(f"{config.store}: make subsets where the store's files are local, and upload rows.npy with it")
    folder = claim(config, is_subset, "a subset")
    store = TokenStore(config.store, verify_shards=config.verify_shards)
    numbers, classes = None, store.classes
    if config.classes:
        numbers, classes = _numbers_of(config.classes, store)
    labels = _classes_of(store, numbers)
    candidates = np.flatnonzero(labels >= 0) if config.classes else np.arange(len(store))
    ranked = rank_rows(candidates, labels[candidates], seed=config.seed, balanced=config.balanced)
    ranked = ranked[: _count(config, store, ranked)]
    if not len(ranked):
        raise UserError(f"{config.store}: {config.budget or 'the classes'} select no rows: allow more")
    how = {name: getattr(config, name) for name in ("count", "fraction", "budget", "balanced", "seed")}
    write_subset(folder, store, np.sort(ranked), how=how, numbers=numbers, classes=classes)
    taken = np.bincount(labels[ranked] + 1, minlength=len(classes) + 1)[1:]
    size = bytes_of_rows(store, ranked).sum()
    spread = f"{taken.min()} to {taken.max()} of each of {len(classes)} classes" if len(classes) else "no classes"
    print(f"{folder}: {len(ranked)} of {len(store)} rows, {spread}, {size / 1e6:.3f} MB")


def rank_rows(rows: np.ndarray, labels: np.ndarray, *, seed: int, balanced: bool = True) -> np.ndarray:
    """Rows in the order in which they are taken.

    Args:
        rows: (n,) int64.
        labels: label of each, (n,), -1 where unknown.
        seed: of the order within a class.
        balanced: the first of every class before the second of any.
    Returns: (n,) int64, all of `rows`.
    """
    if not len(rows):
        return rows
    order = permute(np.arange(len(rows)), len(rows), seed=seed, stream="subset")
    if balanced:
        by_class = order[np.argsort(labels[order], kind="stable")]
        starts = np.flatnonzero(np.diff(labels[by_class], prepend=labels[by_class[0]] - 1))
        sizes = np.diff(starts, append=len(rows))
        turn = np.arange(len(rows)) - np.repeat(starts, sizes)
        order = by_class[np.argsort(turn, kind="stable")]
    return rows[order]


def parse_bytes(text: str) -> int:
    """Bytes of a size such as "0.3GB", "500 MB" or "1200"; units are powers of 1000.

    Raises: UserError if it is none.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([kmgt]?)b?\s*", text.lower())
    if not match or float(match[1]) <= 0:
        raise UserError(f"{text!r} is not a size: expected something like 0.3GB, 500MB or 120kB")
    return int(float(match[1]) * _UNITS[match[2]])


def _count(config: SubsetConfig, store: TokenStore, ranked: np.ndarray) -> int:
    if config.budget is not None:
        return int(np.searchsorted(np.cumsum(bytes_of_rows(store, ranked)), parse_bytes(config.budget), side="right"))
    if config.fraction is not None:
        return max(1, round(config.fraction * len(ranked)))
    if config.count is not None and config.count > len(ranked):
        raise UserError(f"{config.store} has {len(ranked)} such rows, fewer than --count {config.count}")
    return len(ranked) if config.count is None else config.count


def bytes_of_rows(store: TokenStore, rows: np.ndarray) -> np.ndarray:
    """Bytes that each row takes in a shard: packed tokens, labels, mask, key, and the offsets of those that vary."""
    return np.sum(list(store.content(rows).values()), axis=0)


def _classes_of(store: TokenStore, numbers: np.ndarray | None) -> np.ndarray:
    """The class that each row counts for, (rows,) int32, in the new numbering; -1: none.

    That is its label; where it has none, or one that is left out, the first of its several labels that is left.
    """
    labels = store.labels
    if numbers is not None:
        labels = np.append(numbers, np.int32(-1))[labels]
    if "labels" not in store.columns:
        return labels
    labels = labels.copy()
    for start in range(0, len(store), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(store)))
        targets = store.targets_at(rows)
        first = first_labels((targets if numbers is None else targets.renumbered(numbers)).labels)
        labels[rows] = np.where(labels[rows] < 0, first, labels[rows])
    return labels


def _numbers_of(names: Sequence[str], store: TokenStore) -> tuple[np.ndarray, list[str]]:
    """(new number of each class of the store, -1 where it is left out; names of the new classes)."""
    wrong = [name for name in names if name not in store.classes]
    if wrong:
        raise UserError(f"{store.folder} has no class {wrong[0]!r}; it has {', '.join(store.classes[:8])}, …")
    if len(set(names)) < len(names):
        raise UserError(f"--classes names {max(names, key=names.count)!r} twice")
    numbers = np.full(len(store.classes), -1, np.int32)
    for place, name in enumerate(names):
        numbers[store.classes.index(name)] = place
    return numbers, list(names)


def write_subset(
    folder: Path,
    store: TokenStore,
    rows: np.ndarray,
    *,
    how: dict[str, Any],
    numbers: np.ndarray | None = None,
    classes: Sequence[str] | None = None,
) -> None:
    """Write a subset's store.json, rows.npy and codebook. A subset of a subset points to the shards of the first store.

    Args:
        folder: where they go; a subset that lies there is replaced.
        store: the TokenStore, on this machine.
        rows: which rows of it, (n,) int64, rising.
        how: what the manifest says about the choice.
        numbers: new label of each class of `store`, (classes,) int32, -1 where it is left out; None: as they are.
        classes: names of the new classes; None: those of `store`.
    Raises: UserError if the folder holds something else, or is being written by another process.
    """
    refuse_foreign(folder, is_subset, "a subset")
    make_folder(folder)
    with lock_folder(folder, remove=True):
        _write_subset(folder, store, rows, how, numbers, classes)


def remove_subset(folder: Path) -> None:
    """Remove what `write_subset` wrote into a folder, and the folder if it is empty then; of no subset, nothing."""
    if is_subset(folder):
        for name in ("rows.npy", "codebook.safetensors", TABLES_FILE, "store.json"):
            (folder / name).unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()


def _write_subset(folder, store, rows, how, numbers, classes):
    former, known = store.manifest.get("subset", {}), len(store.classes)
    content = {name: int(size.sum()) for name, size in store.content(rows).items()}
    if store.chosen is not None:
        rows = store.chosen[rows]
        if former.get("label_of") is not None:
            numbers = former["label_of"] if numbers is None else np.append(numbers, -1)[former["label_of"]]
    file = io.BytesIO()
    np.save(file, rows)
    with replacing(folder / "rows.npy") as temporary:
        temporary.write_bytes(file.getvalue())
    # As the disk has it: `..` of a link is where the link leads to, not where it lies.
    beside = os.path.relpath(store.folder.resolve(), folder.resolve())
    manifest = store.manifest
    write_manifest(
        folder,
        tokenizer=store.tokenizer,
        codebook=store.codebook,
        lookup=store.lookup,
        grid=store.grid,
        preprocessing=manifest["preprocessing"],
        classes=store.classes if classes is None else classes,
        mask=manifest.get("mask"),
        windows=manifest.get("windows"),
        columns=store.columns,
        tables=store.coding_tables,
        shards=[
            {**shard, "file": Path(os.path.normpath(Path(beside) / shard["file"])).as_posix()}
            for shard in manifest["shards"]
        ],
        subset={
            "file": "rows.npy",
            "rows": len(rows),
            "content": content,
            "sha256": hashlib.sha256(file.getvalue()).hexdigest(),
            "of_classes": former.get("of_classes", known),
            "label_of": None if numbers is None else np.asarray(numbers).tolist(),
            "how": how,
        },
    )
