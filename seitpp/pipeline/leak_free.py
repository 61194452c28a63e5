"""Split images into training and test sets so that no look-alike of a test image is ever trained on.

Steps, each a pure function: look-alikes form groups (`merge_near_duplicates`), the groups of each class are divided by
hash, and every image gets its part from its group: all that `divide` is given is kept, `assign_parts` labels one image
of each group and keeps no other of a test group. The hash makes the
split independent of the order of the files, of the machine and of any random generator.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from einops import rearrange
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

THUMBNAIL_SIZE = 16
"""Side of the pictures that are compared, in pixels: small enough that a shift of a line does not count."""

_BLOCK_ROWS = 512
_BLOCK_COLUMNS = 8192  # with the rows above: 16 MB of distances
_PAIRS_AT_ONCE = 8192  # full differences: 25 MB
_AXES = 24
_SAMPLE = 20_000


def merge_near_duplicates(
    thumbnails: np.ndarray, groups: Sequence[int] | np.ndarray | None = None, *, distance: float = 0.03
) -> np.ndarray:
    """Join the groups that have two images nearer than `distance`, and theirs in turn (single linkage).

    All pairs are compared, but for those that a bound rules out: images that are near lie as near along any axis. So
    they are sorted along the axis in which they differ most, each meets those that are near it there, and of these
    only those that are near along the 24 first axes are compared in full. Memory is that of the thumbnails (uint8:
    768 bytes an image of 16 x 16) and 120 bytes an image more: 1.1 GB for the 1.28 million of ImageNet.

    Args:
        thumbnails: (n, h, w, 3) RGB, float in [0, 1] or uint8; usually 16 x 16.
        groups: group index of each image, (n,), integer >= 0; None starts with each image on its own.
        distance: root mean square difference over all h * w * 3 values, of [0, 1], below which two images are near.

    Returns:
        Group index of each image, (n,), int64, numbered from 0 in order of first appearance.

    Raises:
        ValueError: If the shapes disagree.
    """
    if thumbnails.ndim != 4 or thumbnails.shape[3] != 3:
        raise ValueError(f"thumbnails must be (n, h, w, 3), got {thumbnails.shape}")
    number = len(thumbnails)
    joined = np.arange(number) if groups is None else np.asarray(groups, dtype=np.int64)
    if joined.shape != (number,):
        raise ValueError(f"groups must be ({number},), one a thumbnail, got {joined.shape}")
    if number == 0:
        return joined
    rows = rearrange(thumbnails, "n h w c -> n (h w c)")
    limit = rows.shape[1] * distance**2
    projected = _project(rows)
    order = np.argsort(projected[:, 0], kind="stable")
    projected = projected[order]
    ends = np.searchsorted(projected[:, 0], projected[:, 0] + np.sqrt(limit) + 1e-4, side="right")
    joined = _number_by_appearance(joined)
    for start in range(0, number, _BLOCK_ROWS):
        block = np.arange(start, min(start + _BLOCK_ROWS, number))
        for column in range(start, int(ends[block[-1]]), _BLOCK_COLUMNS):
            columns = np.arange(column, min(column + _BLOCK_COLUMNS, int(ends[block[-1]])))
            first, second = _candidates(projected, block, columns, limit)
            # the nearest of each first: where many are alike, these join them, and the other pairs need no look
            for part in (slice(0, len(columns)), slice(len(columns), None)):
                pairs = (order[first[part]], order[second[part]])
                joined = _join_near(joined, rows, *pairs, limit)
    return _number_by_appearance(joined)


def _project(rows: np.ndarray) -> np.ndarray:
    """Positions along the axes in which rows differ most, (n, axes) float32: no two are further apart than the rows."""
    sample = _as_float(rows[:: -(-len(rows) // _SAMPLE)])
    mean = sample.mean(axis=0)
    sample = sample - mean
    _, axes = np.linalg.eigh(sample.T @ sample)
    axes = axes[:, ::-1][:, :_AXES].astype(np.float32)
    blocks = range(0, len(rows), _SAMPLE)
    return np.concatenate([(_as_float(rows[start : start + _SAMPLE]) - mean) @ axes for start in blocks])


def _candidates(projected: np.ndarray, block: np.ndarray, columns: np.ndarray, limit: float):
    """Pairs (block, column) of places that may be near, those of each column's nearest before the others."""
    ours, theirs = projected[block], projected[columns]
    distances = ours @ theirs.T  # |a - b|^2 = |a|^2 + |b|^2 - 2ab
    distances *= -2
    distances += np.einsum("nd,nd->n", ours, ours)[:, None]
    distances += np.einsum("nd,nd->n", theirs, theirs)
    distances[block[:, None] >= columns] = np.inf  # each pair once
    near = distances < limit * 1.001 + 1e-3
    nearest = distances.argmin(axis=0)
    of_all = np.arange(len(columns))
    first, second = np.nonzero(near)
    keep = near[nearest, of_all]
    pad = len(columns) - int(keep.sum())  # the first part is as long as there are columns; a pair with itself is none
    head = np.concatenate([block[nearest[keep]], np.repeat(columns[:1], pad)])
    tail = np.concatenate([columns[keep], np.repeat(columns[:1], pad)])
    return np.concatenate([head, block[first]]), np.concatenate([tail, columns[second]])


def _join_near(groups: np.ndarray, rows: np.ndarray, first: np.ndarray, second: np.ndarray, limit: float) -> np.ndarray:
    """Merge the groups of those pairs that are near in full; the new numbers run from 0."""
    apart = groups[first] != groups[second]
    first, second = first[apart], second[apart]
    near = np.zeros(len(first), bool)
    for start in range(0, len(first), _PAIRS_AT_ONCE):
        some = slice(start, start + _PAIRS_AT_ONCE)
        difference = _as_float(rows[first[some]]) - _as_float(rows[second[some]])
        near[some] = np.einsum("nd,nd->n", difference, difference) < limit
    if not near.any():
        return groups
    return _join(groups, groups[first[near]], groups[second[near]])


def _as_float(rows: np.ndarray) -> np.ndarray:
    """Values in [0, 1], float32."""
    return rows.astype(np.float32) / 255 if rows.dtype == np.uint8 else rows.astype(np.float32)


def split_by_hash(names: Sequence[str], classes: Sequence[Any], *, test_part: float = 0.3) -> np.ndarray:
    """Choose the same fraction of each class for the test set: the names that come first by their SHA-256.

    Args:
        names: one name an item, (n,); within a class they should differ.
        classes: class of each item, (n,).
        test_part: fraction of each class that is tested, in [0, 1]. Where a class has two items or more, and the share
            is neither 0 nor 1, rounding leaves at least one item on each side.

    Returns:
        True for the test items, (n,), bool.

    Raises:
        ValueError: If the lengths differ or the share is outside [0, 1].
    """
    if len(names) != len(classes):
        raise ValueError(f"names and classes must be equally long, got {len(names)} and {len(classes)}")
    if not 0 <= test_part <= 1:
        raise ValueError(f"test_part must be in [0, 1], got {test_part}")
    is_test = np.zeros(len(names), dtype=bool)
    members: dict[str, list[int]] = {}
    for index, name in enumerate(classes):
        members.setdefault(name, []).append(index)
    for indices in members.values():
        count = round(test_part * len(indices))
        if 0 < test_part < 1 and len(indices) > 1:
            count = min(max(count, 1), len(indices) - 1)
        by_hash = sorted(indices, key=lambda index: hash_of(names[index]))
        is_test[by_hash[:count]] = True
    return is_test


def assign_parts(
    groups: np.ndarray, classes: Sequence[str | None], names: Sequence[str], *, test_part: float = 0.3
) -> list[str]:
    """Say what becomes of each image, given its group; the first labelled image of a group represents it.

    Args:
        groups: group index of each image, (n,), integer. The order of the images is the order of preference.
        classes: class of each image, (n,), None where unlabelled.
        names: name of each image, (n,), unique; the representative's name is hashed.
        test_part: fraction of each class's groups that is tested, in [0, 1]; see `split_by_hash`.

    Returns:
        For each image one of: "test" (the representative of a test group), "dropped" (the rest of a test group, which
        must be seen nowhere), "train" (the representative of any other group with a label), "unlabelled" (all others:
        pictures for pre-training).
    """
    representatives: dict[int, int] = {}
    for index, (group, label) in enumerate(zip(groups, classes, strict=True)):
        if label is not None:
            representatives.setdefault(int(group), index)
    chosen = list(representatives.values())
    is_test = split_by_hash([names[i] for i in chosen], [classes[i] for i in chosen], test_part=test_part)
    part_of_group = {group: "test" if test else "train" for group, test in zip(representatives, is_test, strict=True)}
    parts = []
    for index, group in enumerate(groups):
        part = part_of_group.get(int(group))
        if part is not None and representatives[int(group)] == index:
            parts.append(part)
        else:
            parts.append("dropped" if part == "test" else "unlabelled")
    return parts


def divide(
    groups: np.ndarray, classes: Sequence[str | None], names: Sequence[str], *, test_part: float, seed: int = 0
) -> np.ndarray:
    """Say which images are for testing: about the same fraction of each class, and no group on both sides.

    A group counts as of the class of its first labelled image. A class of one group is for training. Where some images
    have a class, those that look like none of them are for training.

    Args:
        groups: group index of each image, (n,), integer.
        classes: class of each image, (n,), None where unlabelled.
        names: name of each image, (n,), unique; with the seed they decide.
        test_part: fraction of each class's images, in (0, 1).
        seed: another one gives another split.
    Returns: True for the test images, (n,), bool.
    """
    members: dict[int, list[int]] = {}
    for index in sorted(range(len(names)), key=names.__getitem__):
        members.setdefault(int(groups[index]), []).append(index)
    groups_of: dict[str | None, list[list[int]]] = {}
    for inside in members.values():
        label = next((classes[index] for index in inside if classes[index] is not None), None)
        groups_of.setdefault(label, []).append(inside)
    is_test = np.zeros(len(names), bool)
    for label, some in groups_of.items():
        if len(some) < 2 or (label is None and len(groups_of) > 1):
            continue
        some.sort(key=lambda inside: hash_of(names[inside[0]] if seed == 0 else f"{seed} {names[inside[0]]}"))
        wanted, count = test_part * sum(map(len, some)), 0
        chosen = []
        for inside in some:
            if abs(count + len(inside) - wanted) < abs(count - wanted):
                chosen.append(inside)
                count += len(inside)
        chosen = (chosen or [min(some, key=len)])[: len(some) - 1]
        is_test[[index for inside in chosen for index in inside]] = True
    return is_test


def hash_of(name: str) -> str:
    """Give the SHA-256 of a name as hexadecimal digits: a random order that is the same everywhere."""
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()


def _join(groups: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Merge group `first[i]` with group `second[i]` for all i; the new numbers run from 0."""
    number = int(groups.max()) + 1
    edges = coo_array((np.ones(len(first), dtype=bool), (first, second)), shape=(number, number))
    _, merged = connected_components(edges, directed=False)
    return merged.astype(np.int64)[groups]


def _number_by_appearance(groups: np.ndarray) -> np.ndarray:
    """Renumber groups from 0 in the order in which they first appear, (n,) int64."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]
