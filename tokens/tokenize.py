"""Turn a folder of images into a token store, once.

    python -m tokens.tokenize --images photos/train --tokenizer runs/tokenizer --output_dir stores/train
    accelerate launch -m tokens.tokenize --images photos/train --tokenizer runs/tokenizer --output_dir stores/train

The unit of work is a shard: a range of the sorted images. Process r of w makes every w-th shard that is not there
yet, so a killed job started again makes only what is missing, and the result does not depend on who made what.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from tokens.codec import pack
from tokens.images import DECODING_ERRORS, open_image_folder, to_float
from tokens.store import TokenStore, write_manifest, write_shard
from tokens.tokenizer import load_tokenizer
from training.command import run_command
from training.config import StageConfig, require
from training.devices import make_accelerator
from training.errors import UserError
from training.files import read_json, replacing, write_json
from training.progress import Progress


@dataclass(frozen=True, kw_only=True)
class TokenizeConfig(StageConfig):
    """Turn a folder of images into a token store."""

    images: str
    """folder of class folders; images directly in it are unlabelled"""
    tokenizer: str
    """run folder or weights of a tokenizer"""
    like: str | None = None
    """another store whose class names are kept, as a test set needs its training set's"""
    batch_size: int = 64
    """images per forward pass"""
    rows_per_shard: int = 65536
    """images in a shard"""
    max_skipped: float = 0.001
    """share of images that may fail to decode before the job ends with an error; they are listed in skipped.csv"""

    def __post_init__(self):
        for name in ("batch_size", "rows_per_shard"):
            require(self, name, getattr(self, name) >= 1, "must be at least 1")
        require(self, "max_skipped", 0 <= self.max_skipped <= 1, "must lie in [0, 1]")


def main(config):
    """Make the missing shards, then the manifest."""
    accelerator = make_accelerator("no")
    folder = Path(config.output_dir)
    tokenizer = load_tokenizer(config.tokenizer, accelerator.device)
    classes = TokenStore(config.like).classes if config.like else None
    images = open_image_folder(config.images, classes)
    job = {
        "tokenizer": {"name": tokenizer.name, "fingerprint": tokenizer.fingerprint},
        "images": len(images),
        "keys": hashlib.sha256("\n".join(images.keys).encode()).hexdigest(),
        "rows_per_shard": config.rows_per_shard,
        "classes": images.classes,
    }
    if accelerator.is_main_process:
        _refuse_another_job(folder, job, fresh=config.resume == "none")
    accelerator.wait_for_everyone()
    ranges = list(range(0, len(images), config.rows_per_shard))
    mine = list(enumerate(ranges))[accelerator.process_index :: accelerator.num_processes]
    with (
        ThreadPoolExecutor(max_workers=4) as threads,
        Progress(len(images), "tokenise", enabled=accelerator.is_main_process) as progress,
    ):
        for number, start in mine:
            rows = range(start, min(start + config.rows_per_shard, len(images)))
            if not (_sidecar(folder, number).exists() and _shard(folder, number).exists()):
                _make_shard(folder, number, rows, images, tokenizer, config, accelerator.device, threads, progress)
            progress.update(rows[-1] + 1)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        _finish(folder, len(ranges), images, tokenizer, config)
    accelerator.end_training()


def _refuse_another_job(folder, job, *, fresh):
    """A folder holds one job: what it was made of is kept beside the shards."""
    file = folder / "job.json"
    if file.exists() and not fresh and read_json(file) != job:
        former = read_json(file)
        key = next(key for key in job if former.get(key) != job[key])
        raise UserError(
            f"{folder} holds a store of other input ({key} differs): choose another --output_dir, "
            f"or --resume none to make it anew"
        )
    if fresh:
        for pattern in ("shard-*", "store.json", "job.json", "skipped.csv"):
            for path in folder.glob(pattern):
                path.unlink()
    write_json(file, job)


@torch.no_grad()
def _make_shard(folder, number, rows, images, tokenizer, config, device, threads, progress):
    """Decode, encode, pack and write one shard, with a sidecar that holds its checksum and what was skipped."""
    packed, kept, skipped = [], [], []
    batches = [rows[start : start + config.batch_size] for start in range(0, len(rows), config.batch_size)]
    decoding = _submit(threads, images, batches[0], tokenizer.image_size)
    for index, batch in enumerate(batches):
        pixels, decoded = [], decoding
        if index + 1 < len(batches):  # decode the next batch while this one is encoded
            decoding = _submit(threads, images, batches[index + 1], tokenizer.image_size)
        for row, future in zip(batch, decoded, strict=True):
            try:
                pixels.append(future.result())
                kept.append(row)
            except DECODING_ERRORS as error:
                skipped.append({"file": images.keys[row], "reason": " ".join(str(error).split())})
        if pixels:
            ids = tokenizer.encode(to_float(torch.from_numpy(np.stack(pixels)).to(device)))
            packed.append(pack(ids, tokenizer.codebook_size).cpu())
        progress.update(batch[-1] + 1)
    width = packed[0].shape[1] if packed else 1
    table = torch.cat(packed).numpy() if packed else np.zeros((0, width), np.uint8)
    shard = write_shard(_shard(folder, number), table, images.labels[kept], [images.keys[row] for row in kept])
    write_json(_sidecar(folder, number), {**shard, "skipped": skipped})


def _submit(threads, images, batch, size):
    return [threads.submit(images.read, row, size) for row in batch]


def _shard(folder, number):
    return folder / f"shard-{number:05d}.arrow"


def _sidecar(folder, number):
    return folder / f"shard-{number:05d}.json"


def _finish(folder, count, images, tokenizer, config):
    """Write skipped.csv and the manifest; too many skipped images are an error, but the shards stay."""
    sidecars = [read_json(_sidecar(folder, number)) for number in range(count)]
    skipped = [entry for sidecar in sidecars for entry in sidecar["skipped"]]
    with replacing(folder / "skipped.csv") as temporary:
        pd.DataFrame(skipped, columns=["file", "reason"]).to_csv(temporary, index=False)
    if len(skipped) > config.max_skipped * len(images):
        for number, sidecar in enumerate(sidecars):
            if sidecar["skipped"]:  # so that the same command reads the mended images
                _sidecar(folder, number).unlink()
        raise UserError(
            f"{len(skipped)} of {len(images)} images can't be decoded (first: {images.folder / skipped[0]['file']}: "
            f"{skipped[0]['reason']}; all in {folder / 'skipped.csv'}): mend them, or raise --max_skipped"
        )
    write_manifest(
        folder,
        tokenizer={"name": tokenizer.name, "fingerprint": tokenizer.fingerprint},
        codebook=tokenizer.codebook.detach().cpu(),
        lookup=tokenizer.lookup,
        grid=tokenizer.grid,
        preprocessing=tokenizer.preprocessing,
        classes=images.classes,
        shards=[{key: sidecar[key] for key in ("file", "rows", "sha256")} for sidecar in sidecars],
    )
    print(f"{folder}: {len(images) - len(skipped)} images, {len(images.classes)} classes, {len(skipped)} skipped")


def cli():
    """Run the stage from the command line."""
    run_command(main, TokenizeConfig, recipes="tokenize")


if __name__ == "__main__":
    cli()
