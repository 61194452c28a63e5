"""Tasks that come one after the other: which classes each has, the rows that it trains on, and how it is measured."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from seitpp.finetune.labelled import LabelledRows
from seitpp.finetune.replay import Memory
from seitpp.runtime.errors import UserError
from seitpp.tokens.order.permutation import permute
from seitpp.tokens.store import TokenStore, write_manifest, write_shard

_SHARD_ROWS = 1 << 16


def divide_classes(classes: int, tasks: int, *, seed: int) -> list[np.ndarray]:
    """Classes in an order that the seed draws, as equal parts: a list of (n,) int64.

    Raises: UserError if there are fewer classes than tasks.
    """
    if tasks > classes:
        raise UserError(f"{classes} classes can't be divided into {tasks} tasks: lower --tasks")
    places = permute(np.arange(classes), classes, seed=seed, stream="task order")
    return np.array_split(np.argsort(places), tasks)


def rows_of(labelled: LabelledRows, classes: np.ndarray) -> np.ndarray:
    """The labelled rows of some classes, (n,) int64, in the store's order."""
    return labelled.rows[np.isin(labelled.targets, classes)]


def write_task(folder: Path, labelled: LabelledRows, rows: np.ndarray, memory: Memory) -> None:
    """Write what a task is trained on as a store: its own rows, then those that the memory replays.

    Args:
        folder: of the store; what lies there is replaced.
        labelled: LabelledRows that rows and memory belong to.
        rows: the task's, (n,) int64.
        memory: what is kept of earlier tasks.
    """
    shutil.rmtree(folder, ignore_errors=True)
    source, shards = labelled.store, []

    def add(packed, chosen):
        path = folder / f"shard-{len(shards):05d}.arrow"
        shards.append(write_shard(path, packed, labelled.labels[chosen], [str(row) for row in chosen]))

    for start in range(0, len(rows), _SHARD_ROWS):
        part = rows[start : start + _SHARD_ROWS]
        add(source.packed(part), part)
    if len(memory.rows):
        add(memory.packed(), memory.rows)
    write_manifest(
        folder, tokenizer=source.tokenizer, codebook=source.codebook, lookup=source.lookup, grid=source.grid,
        preprocessing=source.manifest["preprocessing"], classes=labelled.classes, shards=shards,
    )  # fmt: skip


def open_task(folder: Path) -> LabelledRows:
    """What `write_task` wrote, as LabelledRows; a task may have one class alone."""
    store = TokenStore(folder)
    return LabelledRows(store, np.arange(len(store)), store.labels.astype(np.int64), list(store.classes))


def average_accuracy(accuracy: Sequence[Sequence[float]]) -> list[float]:
    """Mean accuracy over the tasks seen so far, after each task.

    Args:
        accuracy: after each task, the accuracy on each task up to it.
    """
    return [sum(row) / len(row) for row in accuracy]


def forgetting(accuracy: Sequence[Sequence[float]]) -> list[float]:
    """How far accuracy on earlier tasks lies below the best that it was, on average, after each task from the second.

    Args:
        accuracy: after each task, the accuracy on each task up to it.
    Source: Chaudhry et al. 2018 (arXiv 1801.10112), equation 3; below 0 where later tasks help.
    """
    return [
        sum(max(earlier[task] for earlier in accuracy[task:last]) - accuracy[last][task] for task in range(last)) / last
        for last in range(1, len(accuracy))
    ]
