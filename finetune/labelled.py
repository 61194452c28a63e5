"""The labelled rows of a store, under its own labels or under those of a table."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seitpp.finetune.multi_label import MultiHot
from seitpp.runtime.errors import UserError
from seitpp.runtime.tables import read_table
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
    """

    store: TokenStore
    rows: np.ndarray
    labels: Any
    classes: list

    def part(self, rows: np.ndarray) -> "LabelledRows":
        """The same with other rows."""
        return LabelledRows(self.store, rows, self.labels, self.classes)

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
        config: has `store`, `eval_store`, `labels`, `cache` and `verify_shards`; `multi_label` where rows may have
            several labels.
    Returns: (LabelledRows to learn from, LabelledRows to measure on).
    Raises: UserError if the stores are of different tokenizers or number their classes differently.
    """
    how = {
        "cache": config.cache, "verify_shards": config.verify_shards, "several": getattr(config, "multi_label", False)
    }  # fmt: skip
    train_set = open_labelled(config.store, config.labels, **how)
    fingerprint = train_set.store.tokenizer["fingerprint"]
    test_set = open_labelled(config.eval_store, config.labels, fingerprint=fingerprint, **how)
    train_set.store.check_alike(test_set.store)
    if test_set.classes != train_set.classes:
        raise UserError(
            f"{config.eval_store} has other classes than {config.store}: tokenise it again with --like {config.store}"
        )
    return train_set, test_set


def fingerprints(train_set: LabelledRows, test_set: LabelledRows) -> dict[str, dict[str, Any]]:
    """`inputs` and `data` of a RunFolder that learns from one LabelledRows and is measured on the other."""
    labels = hashlib.sha256()
    for each in (train_set, test_set):
        # Several labels a row are part of the store, whose fingerprint stands beside.
        numbers = b"several" if each.several else each.labels.astype("<i8").tobytes()
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
    table: str | Path | None = None,
    *,
    cache: CacheConfig | None = None,
    fingerprint: str | None = None,
    several: bool = False,
    verify_shards: bool = True,
) -> LabelledRows:
    """Open a store with labels.

    Args:
        folder: the store, a folder or a URL.
        table: CSV with columns key and label that replaces the store's labels; rows it does not name are unlabelled.
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
    if several:
        return _several(store, folder, table)
    if table is None:
        labels, classes = store.labels.astype(np.int64), list(store.classes)
    else:
        labels, classes = _labels_from_table(store, table)
    rows = np.flatnonzero(labels >= 0)
    if len(np.unique(labels[rows])) < 2:
        raise UserError(f"{folder} has labels of fewer than two classes{f' in {table}' if table else ''}: label more")
    return LabelledRows(store, rows, labels, classes)


def _several(store: TokenStore, folder: str | Path, table: str | Path | None) -> LabelledRows:
    if table is not None:
        raise UserError(f"--labels {table} names one label a row: leave it or --multi_label out")
    labels = MultiHot(store, len(store.classes))
    rows = labels.annotated()
    if not len(rows):
        raise UserError(f"{folder} has no row that anyone annotated")
    return LabelledRows(store, rows, labels, list(store.classes))


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


def _labels_from_table(store, table):
    label_of = _read_labels(table)
    classes = sorted(set(label_of.values()))
    index = {name: place for place, name in enumerate(classes)}
    keys = store.keys()
    labels = np.array([index[label_of[key]] if key in label_of else -1 for key in keys], np.int64)
    if (labels < 0).all():
        raise UserError(f"{table} names no row of {store.folder}: its keys look like {keys[0]!r}")
    return labels, classes


def _read_labels(table):
    """{key: name of its class} of a CSV; a row without a label leaves its key unlabelled."""
    frame = read_table(table, ("key", "label"))
    known = {}
    for line, key, label in zip(frame.index, frame["key"], frame["label"], strict=True):
        if "\n" in key + label:
            raise UserError(f"{table}, line {line}: a name goes over several lines: is a quote open in it?")
        first, former = known.setdefault(key, (line, label))
        if former != label:
            raise UserError(f"{table}, line {line}: {key} is {label!r} here and {former!r} in line {first}")
    return {key: label for key, (_, label) in known.items() if key and label}
