"""Features of a whole store in one file, made once by all processes and found again by what they are of.

    features/3f2a….npy    (rows, …) of numbers, as numpy writes it: `numpy.load(path, mmap_mode="r")` reads it
    features/3f2a….json   what they are of: store, weights, precision, view, pooling

The name is the fingerprint of that description, so a file that is there is the right one. Rows are written with
ordinary writes, not through a mapping: a full disk is then an error and no crash, and no memory is taken.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seitpp.runtime.files import HOST, write_json
from seitpp.runtime.processes import Processes
from seitpp.runtime.progress import Progress

Made = np.ndarray | Tensor


@dataclass(frozen=True, kw_only=True)
class FeatureRecipe:
    """How features of some rows are made.

    Attributes:
        described: all that they depend on, as JSON can hold it; its hash names the file.
        shape: of a row.
        dtype: of the file.
        make: function from rows, (b,) int64, to their features, (b, *shape), a tensor or an array.
    """

    described: dict[str, Any]
    shape: tuple[int, ...]
    dtype: type[np.floating]
    make: Callable[[np.ndarray], Made]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the description, of the shape and of the type."""
        content = [self.described, self.shape, np.dtype(self.dtype).str]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def feature_file(
    folder: str | Path, recipe: FeatureRecipe, *, rows: int, batch_size: int, team: Processes, title: str = ""
) -> np.memmap:
    """The features of all rows, memory-mapped: those that the folder holds, or new ones, whole or not there.

    Each process makes every so-manieth batch. All of them must see the folder.

    Args:
        folder: where such files are kept.
        recipe: a FeatureRecipe.
        rows: how many.
        batch_size: rows that are made at a time.
        team: the Processes.
        title: what the progress line says; "": there is none.
    Returns: (rows, *recipe.shape), read only.
    """
    path = Path(folder) / f"{recipe.fingerprint[:32]}.npy"
    temporary = team.from_main(lambda: None if path.exists() else _begin(path, recipe, rows))
    if temporary is not None:
        try:
            team.agree(lambda: _write(temporary, recipe, rows, batch_size, team, title))
            team.from_main(lambda: temporary.rename(path) and None)
        finally:
            if team.is_main:
                temporary.unlink(missing_ok=True)
    return np.load(path, mmap_mode="r")


def _begin(path, recipe, rows):
    """An empty file of the whole size beside `path`, and the description of what it will hold."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path.with_suffix(".json"), recipe.described)
    temporary = path.with_name(f".seitpp-{path.name}.{HOST}.{os.getpid()}.tmp")
    dtype = np.dtype(recipe.dtype)
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (rows, *recipe.shape)}
    with temporary.open("wb") as file:
        np.lib.format.write_array_header_2_0(file, header)
        file.truncate(file.tell() + rows * _row_bytes(recipe))
    return temporary


def _row_bytes(recipe):
    return int(np.prod(recipe.shape)) * np.dtype(recipe.dtype).itemsize


def _write(path, recipe, rows, batch_size, team, title):
    """Make this process's batches and put them in their places."""
    starts = range(team.rank * batch_size, rows, batch_size * team.count)
    batches = [np.arange(start, min(start + batch_size, rows)) for start in starts]
    size = _row_bytes(recipe)
    header = path.stat().st_size - rows * size
    with path.open("rb+") as file, Progress(rows, title, enabled=team.is_main and title != "") as progress:
        for batch, made in zip(batches, _one_behind(map(recipe.make, batches)), strict=True):
            file.seek(header + int(batch[0]) * size)
            file.write(np.ascontiguousarray(made, dtype=recipe.dtype).data)
            progress.update(min(rows, int(batch[0]) + batch_size * team.count))
        os.fsync(file.fileno())


def _one_behind(made: Iterable[Made]) -> Iterator[np.ndarray]:
    """The same as arrays, each once the next is on its way: a GPU then never waits for the disk."""
    waiting = None
    for each in made:
        copy = _begin_copy(each)
        if waiting is not None:
            yield _end_copy(*waiting)
        waiting = copy
    if waiting is not None:
        yield _end_copy(*waiting)


def _begin_copy(made):
    """(what will hold the numbers, the event that says it does)."""
    if isinstance(made, Tensor) and made.device.type == "cuda":
        copy, done = made.to("cpu", non_blocking=True), torch.cuda.Event()
        done.record()
        return copy, done
    return made, None


def _end_copy(copy, done):
    if done is not None:
        done.synchronize()
    return copy.cpu().numpy() if isinstance(copy, Tensor) else copy
