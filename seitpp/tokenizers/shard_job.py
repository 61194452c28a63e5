"""The unit of work of tokenising: one shard, made from a range of images by any process.

What a shard holds is a function of images, tokenizer, rows and batch size. It does not depend on the process that
makes it, on how many there are, or on how often the job was stopped. Nothing is made twice: a shard is done when it
and its sidecar lie there, and the sidecar is written last.

What its rows are: `shard_rows`. How the tokenizer runs: `encoding`.
"""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seitpp.runtime.files import read_json, write_json
from seitpp.runtime.schema import anything, both, listing, record
from seitpp.tokenizers.shard_rows import StoreRows
from seitpp.tokenizers.sources.source import ImageSource
from seitpp.tokenizers.store_place.place import FolderPlace, StorePlace
from seitpp.tokenizers.tokenizer import Tokenizer
from seitpp.tokens.codec import packed_bytes
from seitpp.tokens.format.manifest_schema import SHARD
from seitpp.tokens.format.targets import Targets
from seitpp.tokens.store import write_shard

_SIDECAR = both(SHARD, record({"skipped": listing(record({"file": anything, "reason": anything}))}))
"""What a sidecar says: one that says something else is that of no shard, which is then made anew."""


@dataclass(frozen=True)
class ShardJob:
    """One shard of a store.

    Attributes:
        folder: the store's folder.
        number: of the shard.
        rows: range of the source's images; those that can't be decoded are left out.
        at: where the store's files go; None: they stay in the folder.
    """

    folder: Path
    number: int
    rows: range
    at: StorePlace | None = field(default=None, compare=False, repr=False)

    @property
    def place(self) -> StorePlace:
        """Where the store's files go."""
        return self.at or FolderPlace(self.folder)

    @property
    def path(self) -> Path:
        """The shard's file."""
        return self.folder / f"shard-{self.number:05d}.arrow"

    @property
    def sidecar(self) -> Path:
        """What the manifest will say of the shard, which images were skipped, and a checksum of the others' sizes."""
        return self.folder / f"shard-{self.number:05d}.json"

    def result(self) -> dict[str, Any] | None:
        """Content of the sidecar, None while the shard is not done (or was cut off, or its sidecar is broken)."""
        try:
            result = read_json(self.sidecar)
            _SIDECAR(result, "")
            size = self.place.size(self.path.name)
            return result if size is not None and size == result.get("bytes", size) else None
        except (FileNotFoundError, ValueError):
            return None

    def is_of(self, images: ImageSource, result: dict[str, Any]) -> bool:
        """Whether the images that a shard was made of have the sizes still that they had; skipped ones may be mended.

        Args:
            images: an ImageSource.
            result: content of the sidecar; those of older versions do not say, and are believed.
        """
        skipped = {entry["file"] for entry in result["skipped"]}
        kept = [row for row in self.rows if images.keys[row] not in skipped]
        return "sizes" not in result or result["sizes"] == _sizes_of(images, kept)

    def make(
        self,
        images: ImageSource,
        tokenizer: Tokenizer,
        store_rows: StoreRows,
        device: torch.device,
        threads: ThreadPoolExecutor,
        *,
        batch_size: int,
        on_images: Callable[[int], object] = lambda count: None,
    ) -> dict[str, Any]:
        """Decode, encode, pack and write the shard, then its sidecar.

        Args:
            images: an ImageSource.
            tokenizer: a Tokenizer on `device`.
            store_rows: what rows the images become.
            device: torch.device.
            threads: a ThreadPoolExecutor that decodes.
            batch_size: images per forward pass.
            on_images: called with the number of images of each batch that is done.
        Returns: the sidecar's content.
        """
        packed, labels, keys, kept, skipped = [], [], [], [], []
        targets = [store_rows.targets]
        for block in store_rows.blocks(images, self.rows, device, threads, batch_size):
            if block.packed is not None:
                packed.append(block.packed)
            labels += block.labels
            keys += block.keys
            targets.append(block.targets)
            kept += block.kept
            skipped += [{"file": images.keys[row], "reason": reason} for row, reason in block.broken]
            on_images(len(block.kept) + len(block.broken))
        width = packed_bytes(store_rows.grid[0] * store_rows.grid[1], tokenizer.codebook_size)
        table = torch.cat(packed).cpu().numpy() if packed else np.zeros((0, width), np.uint8)
        shard = write_shard(self.path, table, labels, keys, Targets.joined(targets))
        result = {**shard, "skipped": skipped, "sizes": _sizes_of(images, kept)}
        self.place.publish(self.path.name)
        write_json(self.sidecar, result)
        self.place.publish(self.sidecar.name)
        return result


def _sizes_of(images, rows):
    return hashlib.sha256(images.sizes(rows).astype("<i8").tobytes()).hexdigest()
