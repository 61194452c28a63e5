"""Split images into training and test sets so that no look-alike of a test image is ever trained on.

Three steps, each a pure function: look-alikes form groups (`merge_near_duplicates`), the groups of each class are
divided by hash (`split_by_hash`), and every image gets its part from its group (`assign_parts`). The hash makes the
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

_BLOCK_ROWS = 128  # 20,000 images: 10 MB of distances a block, 40 MB of index pairs where all images are alike


def merge_near_duplicates(
    thumbnails: np.ndarray, groups: Sequence[int] | np.ndarray | None = None, *, distance: float = 0.03
) -> np.ndarray:
    """Join the groups that have two images nearer than `distance`, and theirs in turn (single linkage).

    Memory grows with the number of images, not with its square: 200 to 500 MB at 20,000.

    Args:
        thumbnails: (n, h, w, 3) RGB in [0, 1], float; usually 16 x 16.
        groups: group index of each image, (n,), integer >= 0; None starts with each image on its own.
        distance: root mean square difference over all h * w * 3 values below which two images are near.

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
    joined = _number_by_appearance(joined)
    rows = rearrange(thumbnails, "n h w c -> n (h w c)").astype(np.float32)
    rows -= rows.mean(axis=0)  # distances stay as they are; the float32 products below lose fewer digits
    squares = np.einsum("nd,nd->n", rows, rows)
    limit = rows.shape[1] * distance**2
    for start in range(0, number, _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        # |a - b|^2 = |a|^2 + |b|^2 - 2ab, against this block's and all later images
        squared_distances = rows[block] @ rows[start:].T
        squared_distances *= -2
        squared_distances += squares[block, None]
        squared_distances += squares[start:]
        first, second = np.nonzero(squared_distances < limit)
        joined = _join(joined, joined[start + first], joined[start + second])
    return _number_by_appearance(joined)


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
