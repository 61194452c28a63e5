"""Tokenise and decode from a program, without a command line."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.encoding import encoded_batches
from seitpp.tokenizers.sources.decoding.resize import Resize, resize_of
from seitpp.tokenizers.sources.given import given_images
from seitpp.tokenizers.sources.pixels import quiet_decoding
from seitpp.tokenizers.tokenize import TokenizeConfig, make_shards, spare_cores
from seitpp.tokenizers.tokenize_job import TokenizeJob
from seitpp.tokenizers.tokenizer import Tokenizer, load_tokenizer
from seitpp.tokens.store import TokenStore, open_store

Device = torch.device | str


def tokenize_images(
    images: str | Path | Sequence[Any],
    tokenizer: Tokenizer | str | Path,
    *,
    output_dir: str | Path | None = None,
    labels: Sequence[str | None] | None = None,
    label_column: str | None = None,
    batch_size: int = 64,
    device: Device = "cpu",
    resize: Resize | None = None,
) -> Tensor | TokenStore:
    """Turn images into token ids, or into a token store.

        ids = tokenize_images(["cat.jpg", array], "runs/tokenizer")
        store = tokenize_images("photos/train", "runs/tokenizer", output_dir="stores/train")

    Args:
        images: a folder of class folders, a pattern of tar files, a list of paths, of arrays (H, W, 3) uint8 or
            of Pillow's images, or a data set of Hugging Face.
        tokenizer: a Tokenizer, or what `load_tokenizer` takes.
        output_dir: folder of a store to make; it is the store that `seitpp tokenize` makes, and memory is that of a
            shard. None: ids in memory.
        labels: names of the classes of a list's images, None where unknown.
        label_column: of a data set of Hugging Face; None: `label`, where there is one.
        batch_size: images per forward pass.
        device: where a tokenizer that is loaded here runs.
        resize: "crop", "pad" or "squash" images of another shape; None: what the tokenizer says.
    Returns: (n, h, w) int64 on the CPU, or the TokenStore.
    Raises: UserError if there are no images, or one can't be decoded.
    """
    network = load_tokenizer(tokenizer, device, resize=resize) if isinstance(tokenizer, str | Path) else tokenizer
    if resize not in (None, resize_of(network.preprocessing)):
        raise UserError(f"this tokenizer says otherwise than resize={resize!r}: give its folder, or load it with that")
    source = given_images(images, labels, label_column)
    where = network.codebook.device
    if output_dir is not None:
        if not isinstance(images, str | Path) and Path(output_dir).is_dir() and any(Path(output_dir).iterdir()):
            raise UserError(f"{output_dir} is not empty: give another output_dir (images of a list can't be resumed)")
        config = TokenizeConfig(
            images=str(images) if isinstance(images, str | Path) else "", tokenizer="", output_dir=str(output_dir),
            batch_size=batch_size, max_skipped=0.0,
        )  # fmt: skip
        job = TokenizeJob(config, where, images=source, tokenizer=network)
        make_shards(job, [job.shards[number] for number in job.prepare()], where)
        job.finish()
        return open_store(output_dir)
    parts = []
    with quiet_decoding(), ThreadPoolExecutor(spare_cores()) as threads:
        for ids, _, broken in encoded_batches(source, range(len(source)), network, where, threads, batch_size):
            if broken:
                row, reason = broken[0]
                raise UserError(f"{source.where(row)} can't be decoded ({reason}): remove or mend it")
            assert ids is not None
            parts.append(ids.cpu())
    return torch.cat(parts)


@torch.no_grad()
def decode(
    ids: Tensor | np.ndarray, tokenizer: Tokenizer | str | Path, *, batch_size: int = 64, device: Device = "cpu"
) -> Tensor:
    """Turn token ids back into images.

        images = decode(store.ids([0, 1]), "runs/tokenizer")

    Args:
        ids: (n, h, w) integers of the tokenizer's grid.
        tokenizer: a Tokenizer, or what `load_tokenizer` takes.
        batch_size: images per forward pass.
        device: where a tokenizer that is loaded here runs.
    Returns: (n, 3, H, W) float32 in [0, 1], on the CPU.
    Raises: UserError if ids are of another grid or not below the codebook's size.
    """
    network = load_tokenizer(tokenizer, device) if isinstance(tokenizer, str | Path) else tokenizer
    ids = torch.as_tensor(ids).to(torch.int64)
    if tuple(ids.shape[1:]) != tuple(network.grid):
        raise UserError(f"ids have the shape {tuple(ids.shape)}, expected (n, {', '.join(map(str, network.grid))})")
    if ids.numel() and not (int(ids.min()) >= 0 and int(ids.max()) < network.codebook_size):
        raise UserError(f"ids lie in {int(ids.min())} to {int(ids.max())}, the codebook has {network.codebook_size}")
    where = network.codebook.device
    return torch.cat([network.decode(part.to(where)).float().cpu() for part in ids.split(batch_size)])
