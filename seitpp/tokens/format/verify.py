"""Whether a store is as it was written: every byte by its checksum, every id, label and mask by its range.

What is checked when: docs/store-format.md.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seitpp.runtime.errors import UserError
from seitpp.runtime.schema import shown
from seitpp.tokens.codec import rows_outside, unpack
from seitpp.tokens.coding.coder import RowCoder
from seitpp.tokens.coding.tables import CodingTables
from seitpp.tokens.coding.tables_file import read_tables
from seitpp.tokens.format.codebook_tensor import misfit
from seitpp.tokens.format.shard import Shard, sha256_of
from seitpp.tokens.format.targets import Targets
from seitpp.tokens.format.windows import wrong_window

_ROWS_AT_ONCE = 4096
_AGAIN = "run the command that made the store again"
_SEEN: set[tuple[int | str, ...]] = set()
"""Shards that this process found good: which file, when it was written, what the manifest says of it."""


def verify_codebook(name: str, content: bytes, manifest: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Read the codebook's file.

    Args:
        name: of its file, for messages.
        content: bytes of its file.
        manifest: content of store.json.
    Returns: its tensors, of which `codebook_of` makes the codes.
    Raises: UserError if it is not the one of the manifest.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    told = manifest.get("codebook")  # version 1 has no checksum of it
    if told is not None and hashlib.sha256(content).hexdigest() != told["sha256"]:
        raise UserError(f"{name}: the checksum differs from store.json; {_AGAIN}")
    try:
        tensors = load(content)
        found = misfit(tensors, manifest["lookup"], manifest["codebook_size"])
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise UserError(f"{name} is broken ({shown(error, 80)}); {_AGAIN}") from error
    if found is not None:
        raise UserError(f"{name} holds {found}; {_AGAIN}")
    return tensors


def verify_tables(name: str, content: bytes, manifest: dict[str, Any]) -> CodingTables:
    """Read coding tables.

    Args:
        name: of their file, for messages.
        content: bytes of their file.
        manifest: content of store.json.
    Raises: UserError if they are not those of the manifest, or don't fit the store.
    """
    if hashlib.sha256(content).hexdigest() != manifest["coding_tables"]["sha256"]:
        raise UserError(f"{name}: the checksum differs from store.json; {_AGAIN}")
    try:
        return read_tables(content, manifest["codebook_size"], tuple(manifest["grid"]))
    except ValueError as error:
        raise UserError(f"{name}: {shown(error, 160)}; {_AGAIN}") from error


def verify_shard(path: str | Path, shard: Shard, manifest: dict[str, Any], coder: RowCoder | None = None) -> None:
    """Check a shard whole: its checksum, that coded rows can be decoded, that ids, labels and masks are in range.

    Args:
        path: its file.
        shard: the same, opened.
        manifest: content of store.json.
        coder: of the store, where rows are coded.
    Raises: UserError naming the file and what is wrong in it.
    """
    _verify_content(path, shard, manifest)
    verify_labels(path, shard, manifest)
    verify_windows(path, shard, manifest)
    if coder is not None:
        for start in range(0, shard.entry["rows"], _ROWS_AT_ONCE):
            decode_rows(path, shard, np.arange(start, min(start + _ROWS_AT_ONCE, shard.entry["rows"])), coder)
    if shard.targets.masks is not None:
        size = tuple(manifest["windows"]["size"]) if "windows" in manifest else None
        verify_masks(path, shard.targets, manifest["mask"], size=size)


def verify_once(path: Path, shard: Shard, manifest: dict[str, Any]) -> None:
    """Check a shard's checksum and ids, unless this process did since the file was last written.

    Args: as for `verify_shard`.
    Raises: UserError naming the file and what is wrong in it.
    """
    about = path.stat()
    file = about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns
    seen = *file, shard.entry["sha256"], manifest["codebook_size"], *manifest["grid"]
    if seen not in _SEEN:
        _verify_content(path, shard, manifest)
        _SEEN.add(seen)


def decode_rows(path: str | Path, shard: Shard, rows: np.ndarray, coder: RowCoder) -> np.ndarray:
    """Ids of some rows of a coded shard, (b, tokens) uint16; all lie below K, whatever the bytes are.

    Args:
        path: its file, for messages.
        shard: the same, opened.
        rows: numbers of rows in it, (b,) int64.
        coder: of the store.
    Raises: UserError naming the first row that is damaged.
    """
    assert shard.coded is not None, "a coded store's shards are opened as such"
    content, offsets = shard.coded.content, shard.coded.offsets
    ids, even = coder.decode(content, offsets[rows].astype(np.int64), offsets[rows + 1].astype(np.int64))
    if not even.all():
        raise UserError(f"{path}: row {rows[np.argmin(even)]} is damaged, or coded by other tables: {_AGAIN}")
    return ids


def verify_labels(path: str | Path, shard: Shard, manifest: dict[str, Any]) -> None:
    """Check that each label is the number of a class; reads the labels alone.

    Args: as for `verify_shard`.
    Raises: UserError naming the file and what is wrong in it.
    """
    classes = manifest.get("subset", {}).get("of_classes", len(manifest["classes"]))
    _verify_range(path, shard.labels, -1, classes)
    if shard.targets.labels is not None:
        _verify_range(path, shard.targets.labels.flatten().to_numpy(zero_copy_only=False), 0, classes)


def verify_windows(path: str | Path, shard: Shard, manifest: dict[str, Any]) -> None:
    """Check that each window lies in its image; reads the places alone.

    Args: as for `verify_shard`.
    Raises: UserError naming the file and the row.
    """
    if shard.targets.windows is not None:
        verify_places(path, shard.targets, manifest["windows"])


def verify_places(path: str | Path, targets: Targets, meaning: dict[str, Any], first: int = 0) -> None:
    """Check that each window lies in its image.

    Args:
        path: their file.
        targets: of its rows.
        meaning: what the manifest says of windows.
        first: number of the first of the rows in the file.
    Raises: UserError naming the file and the row.
    """
    if targets.windows.null_count or targets.windows.flatten().null_count:
        raise UserError(f"{path}: a row from {first} on lacks its place (null); {_AGAIN}")
    places = targets.places()
    row = wrong_window(places, tuple(meaning["size"]))
    if row is not None:
        told = places[row].tolist()
        raise UserError(f"{path}: row {first + row} has the place {told}, which is none of a window; {_AGAIN}")


def verify_masks(
    path: str | Path,
    targets: Targets,
    meaning: dict[str, Any],
    first: int = 0,
    *,
    size: tuple[int, int] | None = None,
) -> None:
    """Check masks: each is whole, of known values, and where there is one size of all, of that.

    Args:
        path: their file.
        targets: of its rows.
        meaning: {"classes": names of the values, [] where they have none; "ignore": a further value, or None}.
        first: number of the first of the rows in the file.
        size: (height, width) that each must have; None: any.
    Raises: UserError naming the file and the row.
    """
    for row in range(len(targets.masks)):
        where, one = f"{path}: row {first + row}", targets[row : row + 1]
        _verify_mask(where, one.maps, meaning, size)
        if targets.truths is not None:
            _verify_mask(where, one.whole_maps, meaning, tuple(one.places()[0, 5:7].tolist()))


def _verify_content(path: str | Path, shard: Shard, manifest: dict[str, Any]) -> None:
    if sha256_of(path) != shard.entry["sha256"]:
        raise UserError(
            f"{path}: the checksum differs from store.json, so it was damaged or changed: delete it and {_AGAIN}"
        )
    codebook_size, grid = manifest["codebook_size"], manifest["grid"]
    for start in range(0, len(shard.tokens), _ROWS_AT_ONCE):
        part = shard.tokens[start : start + _ROWS_AT_ONCE]
        packed = part.view(np.uint8).reshape(len(part), -1)
        outside = rows_outside(packed, codebook_size, grid[0] * grid[1])
        if outside.any():
            wrong = int(unpack(torch.from_numpy(packed[outside]), codebook_size, tuple(grid)).max())
            raise UserError(f"{path}: id {wrong} with a codebook of {codebook_size}; {_AGAIN}")


def _verify_range(path: str | Path, labels: np.ndarray, least: int, classes: int) -> None:
    if len(labels) and not (labels.min() >= least and labels.max() < classes):
        wrong = labels.min() if labels.min() < least else labels.max()
        raise UserError(f"{path}: label {wrong} with {classes} classes; {_AGAIN}")


def _verify_mask(
    where: str,
    read: Callable[[], list[np.ndarray | None]],
    meaning: dict[str, Any],
    size: tuple[int, int] | None,
) -> None:
    try:
        (mask,) = read()
    except ValueError as error:
        raise UserError(f"{where}: {error}; make the store again") from error
    if mask is not None and size is not None and mask.shape != size:
        raise UserError(f"{where}: the mask is of {mask.shape} pixels, expected {size}; make the store again")
    classes, ignore = meaning["classes"], meaning["ignore"]
    if mask is None or not classes:
        return
    counted = mask if ignore is None else mask[mask != ignore]
    if counted.size and counted.max() >= len(classes):
        raise UserError(f"{where}: the mask holds {counted.max()} with {len(classes)} classes")
