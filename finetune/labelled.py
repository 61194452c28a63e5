"""The labelled rows of a store, under its own labels or under those of a table."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seitpp.finetune.multi_label import MultiHot
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.label_table import LabelTable, MatchedLabels, read_label_table, read_labels
from seitpp.tokens.order.permutation import permute
from seitpp.tokens.remote import CacheConfig
from seitpp.tokens.store import TokenStore, open_store
from seitpp.tokens.subset import parse_bytes


@dataclass(frozen=True)
class LabelledRows:
    """Part of a store whose labels are known.

    Attributes:
        store: the TokenStore.
        rows: indices of the labelled rows, (n,) int64.
        labels: label of every row of the store, (rows of the store,) int64, -1 where unknown; a MultiHot where rows
            have several.
        classes: class names.
        in_table: which rows of the table that the labels come from name one of the store, (rows of the table,) bool;
            None: they are the store's own.
    """

    store: TokenStore
    rows: np.ndarray
    labels: Any
    classes: list
    in_table: np.ndarray | None = None

    def part(self, rows: np.ndarray) -> "LabelledRows":
        """The same with other rows."""
        return LabelledRows(self.store, rows, self.labels, self.classes, self.in_table)

    @property
    def targets(self) -> np.ndarray:
        """Labels of `rows`, (n,) int64."""
        return self.labels[self.rows]

    @property
    def several(self) -> bool:
        """Whether rows have several labels."""
        return isinstance(self.labels, MultiHot)


def open_train_and_test(config: Any) -> tuple[LabelledRows, LabelledRows]:
    """Open the two stores of a stage and check that they belong together.

    Args:
        config: has `store`, `eval_store`, `cache` and `verify_shards`, and is a ReadsLabels; `multi_label` where rows
            may have several labels.
    Returns: (LabelledRows to learn from, LabelledRows to measure on).
    Raises: UserError if the stores are of different tokenizers or number their classes differently.
    """
    several = getattr(config, "multi_label", False)
    table = None if config.labels is None else read_label_table(config, several=several)
    how = {"cache": config.cache, "verify_shards": config.verify_shards, "several": several}
    train_set = open_labelled(config.store, table, **how)
    fingerprint = train_set.store.tokenizer["fingerprint"]
    test_set = open_labelled(config.eval_store, table, fingerprint=fingerprint, **how)
    train_set.store.check_alike(test_set.store)
    if table is not None:
        assert train_set.in_table is not None
        assert test_set.in_table is not None
        where = " or ".join(dict.fromkeys((config.store, config.eval_store)))
        say_of_table(table, train_set.in_table | test_set.in_table, where)
    if test_set.classes != train_set.classes:
        raise UserError(
            f"{config.eval_store} has other classes than {config.store}: tokenise it again with --like {config.store}"
        )
    return train_set, test_set


def fingerprints(train_set: LabelledRows, test_set: LabelledRows) -> dict[str, dict[str, Any]]:
    """`inputs` and `data` of a RunFolder that learns from one LabelledRows and is measured on the other."""
    labels = hashlib.sha256()
    for each in (train_set, test_set):
        numbers = each.labels.identity() if each.several else each.labels.astype("<i8").tobytes()
        labels.update(numbers + "\n".join(each.classes).encode())
    data = {"store": train_set.store.fingerprint, "eval_store": test_set.store.fingerprint}
    return {
        "inputs": {"tokenizer": train_set.store.tokenizer["fingerprint"]},
        "data": {**data, "labels": labels.hexdigest()},
    }


def row_counts(train_set: LabelledRows, test_set: LabelledRows) -> dict:
    """What results say of the rows that were learned from and measured on: columns of `seitpp.runtime.results.Result`.

    The fraction of the labels and the budget are those of a subset that the training set was read from.
    """
    subset = train_set.store.manifest.get("subset", {})
    how = subset.get("how", {})
    fraction = how.get("fraction") or how.get("share") or 1.0
    if how.get("count") or how.get("budget"):
        fraction = len(train_set.store) / sum(shard["rows"] for shard in train_set.store.manifest["shards"])
    return {
        "label_fraction": fraction,
        "budget_bytes": parse_bytes(how["budget"]) if how.get("budget") else None,
        "train_images": len(train_set.rows),
        "test_images": len(test_set.rows),
        "tokenizer": train_set.store.tokenizer["fingerprint"],
    }


def open_labelled(
    folder: str | Path,
    table: str | Path | LabelTable | None = None,
    *,
    cache: CacheConfig | None = None,
    fingerprint: str | None = None,
    several: bool = False,
    verify_shards: bool = True,
) -> LabelledRows:
    """Open a store with labels.

    Args:
        folder: the store, a folder or a URL.
        table: a LabelTable, or a CSV with columns key and label, that replaces the store's labels; rows it does not
            name are unlabelled.
        cache: CacheConfig for a URL; all of the store must fit, as rows are read in any order.
        fingerprint: of the tokenizer that the store must be of; None: any.
        several: whether rows may have several labels, the store's column `labels`.
        verify_shards: see TokenStore.
    Raises: UserError if the table lacks the columns or names no row of the store, or fewer than 2 classes have rows.
    """
    store = open_store(folder, cache, verify_shards=verify_shards)
    store.files.check_whole(store.manifest["shards"])
    if fingerprint is not None:
        store.check_tokenizer(fingerprint, "the model")
    if isinstance(table, str | Path):
        table = read_labels(table, several=several)
    known = None if table is None else _in_table(store, table)
    classes, in_table = list(store.classes if table is None else table.classes), known and known.found
    if several:
        labels = MultiHot(store, len(classes), known and known.lists)
        rows = labels.annotated()
        if not len(rows):
            raise UserError(f"{folder} has no row that anyone annotated{f' in {table.path}' if table else ''}")
        return LabelledRows(store, rows, labels, classes, in_table)
    labels = (store.labels if known is None else known.labels).astype(np.int64)
    rows = np.flatnonzero(labels >= 0)
    if len(np.unique(labels[rows])) < 2:
        place = f" in {table.path}" if table else ""
        raise UserError(f"{folder} has labels of fewer than two classes{place}: label more")
    return LabelledRows(store, rows, labels, classes, in_table)


def say_of_table(table: LabelTable, found: np.ndarray, where: str) -> None:
    """Print which rows of a table name no image, where there are some; the main process does.

    Args:
        table: a LabelTable.
        found: which rows do, (rows,) bool.
        where: what was looked through.
    """
    if (said := table.strangers(found, where)) and os.environ.get("RANK", "0") == "0":
        print(said)


def _in_table(store: TokenStore, table: LabelTable) -> MatchedLabels:
    keys = store.keys()
    known = table.match(keys)
    table.require_some(known.found, store.folder, keys[0] if len(keys) else "")
    return known


def split_labelled(labelled: LabelledRows, fraction: float, *, seed: int) -> tuple[LabelledRows, LabelledRows]:
    """Divide into two parts, class by class, so that every class of two or more rows is on both sides.

    Rows with several labels are divided without regard to classes.

    Args:
        labelled: LabelledRows.
        fraction: of each class that goes to the second part.
        seed: of the choice.
    Returns: (LabelledRows, LabelledRows).
    Raises: UserError if no class has two rows, so that a part would be empty.
    """
    first, second = [], []
    parts = [(0, labelled.rows)] if labelled.several else rows_by_class(labelled)
    for label, rows in parts:
        rows = rows[permute(np.arange(len(rows)), len(rows), seed=seed, stream="validation rows", part=(label,))]
        held = min(max(1, round(fraction * len(rows))), len(rows) - 1)
        second.append(rows[:held])
        first.append(rows[held:])
    if not any(map(len, second)):
        raise UserError(
            f"{labelled.store.folder}: no class has two labelled images, so none can be set apart: label more"
        )
    return labelled.part(np.sort(np.concatenate(first))), labelled.part(np.sort(np.concatenate(second)))


def rows_by_class(labelled: LabelledRows) -> list[tuple[int, np.ndarray]]:
    """(label, its rows, rising) of each class that has any."""
    targets = labelled.targets
    order = np.argsort(targets, kind="stable")
    labels, starts = np.unique(targets[order], return_index=True)
    return list(zip(labels.tolist(), np.split(labelled.rows[order], starts[1:]), strict=True))
