"""Whether a store is as it was written: every byte by its checksum, every id, label and mask by its range."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seitpp.runtime.errors import UserError
from seitpp.tokens.codec import unpack
from seitpp.tokens.format.shard import Shard, sha256_of
from seitpp.tokens.format.targets import Targets

_ROWS_AT_ONCE = 4096


def verify_codebook(name: str, codebook: torch.Tensor, content: bytes | None, manifest: dict[str, Any]) -> None:
    """Check the codebook.

    Args:
        name: of its file, for messages.
        codebook: (k, c).
        content: bytes of its file; None where the manifest, of version 1, has no checksum of it.
        manifest: content of store.json.
    Raises: UserError if it is not the one of the manifest.
    """
    if len(codebook) != manifest["codebook_size"]:
        raise UserError(f"{name} has {len(codebook)} codes, expected {manifest['codebook_size']}")
    if content is not None and hashlib.sha256(content).hexdigest() != manifest["codebook"]["sha256"]:
        raise UserError(f"{name}: the checksum differs from store.json; tokenise again")


def verify_shard(path: str | Path, shard: Shard, manifest: dict[str, Any]) -> None:
    """Check a shard: its checksum, and that ids, labels and masks are in range.

    Args:
        path: its file.
        shard: the same, opened.
        manifest: content of store.json.
    Raises: UserError naming the file and what is wrong in it.
    """
    if sha256_of(path) != shard.entry["sha256"]:
        raise UserError(f"{path}: the checksum differs from store.json; delete this shard and tokenise again")
    _verify_ids(path, shard.tokens, manifest["codebook_size"], manifest["grid"])
    classes = manifest.get("subset", {}).get("of_classes", len(manifest["classes"]))
    _verify_labels(path, shard.labels, -1, classes)
    if shard.targets.labels is not None:
        _verify_labels(path, shard.targets.labels.flatten().to_numpy(zero_copy_only=False), 0, classes)
    if shard.targets.masks is not None:
        verify_masks(path, shard.targets, manifest["mask"])


def verify_masks(path: str | Path, targets: Targets, meaning: dict[str, Any], first: int = 0) -> None:
    """Check masks: each is whole, and of known values.

    Args:
        path: their file.
        targets: of its rows.
        meaning: {"classes": names of the values, [] where they have none; "ignore": a further value, or None}.
        first: number of the first of the rows in the file.
    Raises: UserError naming the file and the row.
    """
    for row in range(len(targets.masks)):
        _verify_mask(f"{path}: row {first + row}", targets[row : row + 1], meaning)


def _verify_ids(path: str | Path, tokens: np.ndarray, codebook_size: int, grid: tuple[int, int]) -> None:
    for start in range(0, len(tokens), _ROWS_AT_ONCE):
        part = tokens[start : start + _ROWS_AT_ONCE].copy()
        packed = part.view(np.uint8).reshape(len(part), -1)
        ids = unpack(torch.from_numpy(packed), codebook_size, grid)
        if int(ids.max()) >= codebook_size:
            raise UserError(f"{path}: id {int(ids.max())} with a codebook of {codebook_size}")


def _verify_labels(path: str | Path, labels: np.ndarray, least: int, classes: int) -> None:
    if len(labels) and not (labels.min() >= least and labels.max() < classes):
        wrong = labels.min() if labels.min() < least else labels.max()
        raise UserError(f"{path}: label {wrong} with {classes} classes")


def _verify_mask(where: str, row: Targets, meaning: dict[str, Any]) -> None:
    try:
        (mask,) = row.maps()
    except ValueError as error:
        raise UserError(f"{where}: {error}; make the store again") from error
    classes, ignore = meaning["classes"], meaning["ignore"]
    if mask is None or not classes:
        return
    counted = mask if ignore is None else mask[mask != ignore]
    if counted.size and counted.max() >= len(classes):
        raise UserError(f"{where}: the mask holds {counted.max()} with {len(classes)} classes")
