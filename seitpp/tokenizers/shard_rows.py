"""What the rows of a store that is being made are: one an image, unless a store of another kind says otherwise."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from seitpp.tokenizers.encoding import encoded_batches
from seitpp.tokenizers.tokenizer import Tokenizer
from seitpp.tokens.codec import pack
from seitpp.tokens.format.targets import Targets


@dataclass(frozen=True, kw_only=True)
class RowBlock:
    """Some rows of a shard, and the images that they finish.

    Attributes:
        packed: (rows, bytes) uint8 on the tokenizer's device; None where there are no rows.
        labels: of each row, -1 where unknown.
        keys: of each row.
        targets: of the same rows.
        kept: images that are done with the block, numbers in their source.
        broken: [(image, reason)] of those that can't be decoded.
    """

    packed: torch.Tensor | None
    labels: list[int]
    keys: list[str]
    targets: Targets = field(default_factory=Targets)
    kept: list[int]
    broken: list[tuple[int, str]]


Blocks = Callable[[Any, range, torch.device, ThreadPoolExecutor, int], Iterator[RowBlock]]
"""blocks(images, rows, device, threads, batch_size): the rows of a range of images of an ImageSource, in order."""


@dataclass(frozen=True, kw_only=True)
class StoreRows:
    """What rows a store has.

    Attributes:
        blocks: makes them.
        grid: (h, w) of each.
        preprocessing: how images became what the tokenizer was given.
        images_per_shard: images in a shard where the user does not say.
        targets: of no row: the columns that each shard has.
        about: what else they depend on, for job.json.
        manifest: what store.json says of their targets: `mask` and `windows`, see `write_manifest`.
    """

    blocks: Blocks
    grid: tuple[int, int]
    preprocessing: dict[str, Any]
    images_per_shard: int = 65536
    targets: Targets = field(default_factory=Targets)
    about: dict[str, Any] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)


def image_rows(tokenizer: Tokenizer, label_lists: Sequence[np.ndarray | None] | None = None) -> StoreRows:
    """A row an image.

    Args:
        tokenizer: a Tokenizer.
        label_lists: the classes of each image, None where nobody said; None for all: images have one label.
    """

    def blocks(images: Any, rows: range, device: torch.device, threads: ThreadPoolExecutor, batch_size: int):
        for ids, kept, broken in encoded_batches(images, rows, tokenizer, device, threads, batch_size):
            yield RowBlock(
                packed=None if ids is None else pack(ids, tokenizer.codebook_size),  # there: fetching each would wait
                labels=images.labels[kept].tolist(),
                keys=[images.keys[row] for row in kept],
                targets=_lists(label_lists, kept),
                kept=kept,
                broken=broken,
            )

    return StoreRows(
        blocks=blocks, grid=(tokenizer.grid[0], tokenizer.grid[1]), preprocessing=tokenizer.preprocessing,
        targets=_lists(label_lists, []), about=_about(label_lists),
    )  # fmt: skip


def _lists(label_lists, rows):
    """The column `labels` of some rows, where there is one."""
    return Targets() if label_lists is None else Targets.of(labels=[label_lists[row] for row in rows])


def _about(label_lists):
    """What tells these labels from others; nothing where images have one."""
    if label_lists is None:
        return {}
    digest = hashlib.sha256()
    for each in label_lists:
        digest.update(b"-" if each is None else each.astype("<i4").tobytes() + b",")
    return {"label_lists": digest.hexdigest()}
