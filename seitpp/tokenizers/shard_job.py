"""The unit of work of tokenising: one shard, made from a range of images by any process.

What a shard holds is a function of images, tokenizer, rows and batch size. It does not depend on the process that
makes it, on how many there are, or on how often the job was stopped. Nothing is made twice: a shard is done when it
and its sidecar lie there, and the sidecar is written last.

The tokenizer runs in float32, without autocast and without TF32: ids are meant to depend on the device as little as
possible. What is left (sums in another order) may still change an id whose two nearest codes are equally near, from
a CPU to a GPU, or from one batch size to another.
"""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seitpp.runtime.files import read_json, write_json
from seitpp.runtime.schema import anything, both, listing, record
from seitpp.tokenizers.sources.decode_ahead import decoded_batches
from seitpp.tokenizers.sources.decoding.resize import resize_of
from seitpp.tokenizers.sources.images import to_float
from seitpp.tokenizers.sources.source import ImageSource
from seitpp.tokenizers.tokenizer import Tokenizer
from seitpp.tokens.codec import pack, packed_bytes
from seitpp.tokens.format.manifest_schema import SHARD
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
    """

    folder: Path
    number: int
    rows: range

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
            return result if self.path.stat().st_size == result.get("bytes", self.path.stat().st_size) else None
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
            device: torch.device.
            threads: a ThreadPoolExecutor that decodes.
            batch_size: images per forward pass.
            on_images: called with the number of images of each batch that is done.
        Returns: the sidecar's content.
        """
        packed, kept, skipped = [], [], []
        for ids, rows, broken in encoded_batches(images, self.rows, tokenizer, device, threads, batch_size):
            if ids is not None:
                packed.append(pack(ids, tokenizer.codebook_size))  # on the device: fetching each would wait for it
            kept += rows
            skipped += [{"file": images.keys[row], "reason": reason} for row, reason in broken]
            on_images(len(rows) + len(broken))
        width = packed_bytes(tokenizer.grid[0] * tokenizer.grid[1], tokenizer.codebook_size)
        table = torch.cat(packed).cpu().numpy() if packed else np.zeros((0, width), np.uint8)
        shard = write_shard(self.path, table, images.labels[kept], [images.keys[row] for row in kept])
        result = {**shard, "skipped": skipped, "sizes": _sizes_of(images, kept)}
        write_json(self.sidecar, result)
        return result


def _sizes_of(images, rows):
    return hashlib.sha256(images.sizes(rows).astype("<i8").tobytes()).hexdigest()


def encoded_batches(
    images: ImageSource,
    rows: range,
    tokenizer: Tokenizer,
    device: torch.device,
    threads: ThreadPoolExecutor,
    batch_size: int,
) -> Iterator[tuple[torch.Tensor | None, list[int], list[tuple[int, str]]]]:
    """Decode and encode a range of images.

    Args:
        images: an ImageSource.
        rows: range of its images.
        tokenizer: a Tokenizer on `device`.
        device: torch.device.
        threads: a ThreadPoolExecutor that decodes.
        batch_size: images per forward pass.
    Yields: (ids (b, h, w) int64 on the device, their rows, [(row, reason)] of those that can't be decoded).
    """
    gpu = device.type == "cuda"
    batches = decoded_batches(
        images, rows, tokenizer.image_size, batch_size, threads, resize=resize_of(tokenizer.preprocessing),
        pin_memory=gpu,
    )  # fmt: skip
    for pixels, decoded, broken in batches:
        with torch.no_grad(), full_precision(device):
            ids = tokenizer.encode(to_float(pixels.to(device, non_blocking=gpu))) if decoded else None
        yield ids, decoded, broken


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """On a GPU, convolutions and products in float32 proper, and by the same algorithm every time."""
    if device.type != "cuda":
        yield
        return
    matmul, backend = torch.get_float32_matmul_precision(), torch.backends.cudnn
    torch.set_float32_matmul_precision("highest")
    try:
        with backend.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(matmul)
