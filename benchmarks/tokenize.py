"""Tokenising against the tokenizer's bare forward pass.

    python -m benchmarks.tokenize                     one thread of a CPU, or a GPU
    python -m benchmarks.tokenize --quick             a few images, in seconds

The same process, the same threads, the same batches, the same precision: first pixels that lie decoded in memory go
through `encode` alone, then `ShardJob.make` reads the files, decodes, encodes, packs and writes the shard. Both sides
are the best of several runs in turn, as other programs on the machine slow down either; on a CPU decoding needs a core
that the encoder leaves free, so OMP_NUM_THREADS belongs below the number of cores. What decoding alone reaches, into
batches that nobody encodes, is reported too: on a GPU it may be the limit. The tokenizers have random weights:

    small   that of configs/train_tokenizer/demo.yaml, 64 x 64 pixels, PNG files
    large   widths 64, 128, 256, 256, 256 x 256 pixels to 32 x 32 tokens with K = 8192, JPEG files of 320 x 400 pixels
"""

import argparse
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

from benchmarks.device import wait
from benchmarks.measures import report, report_ratio
from seitpp.runtime.config import from_dict
from seitpp.runtime.recipes import find_recipe
from seitpp.tokenizers.networks.vq import VQConfig, VQTokenizer
from seitpp.tokenizers.shard_job import ShardJob
from seitpp.tokenizers.shard_rows import image_rows
from seitpp.tokenizers.sources.decode_ahead import decoded_batches
from seitpp.tokenizers.sources.images import to_float
from seitpp.tokenizers.sources.source import open_source
from seitpp.tokenizers.tokenize import spare_cores

DRAWN = 256  # different pictures; more files are further names of the same


@dataclass(frozen=True, kw_only=True)
class Case:
    """A tokenizer and the images that it gets."""

    name: str
    config: VQConfig
    images: int
    pixels: tuple[int, int]
    file_type: str
    batch_size: int
    runs: int


def cases(*, quick, gpu):
    """What is measured."""
    recipe = yaml.safe_load(find_recipe("demo", "train_tokenizer").read_text())["model"]
    model = from_dict(VQConfig, recipe, "the demo's recipe")
    small = Case(
        name="small", config=model, images=32768 if gpu else 4096, pixels=(72, 72), file_type="png", batch_size=128,
        runs=5,
    )  # fmt: skip
    if quick:
        return [replace(small, images=48, batch_size=16, runs=2)]
    model = VQConfig(
        image_size=(256, 256), space_to_depth=1, widths=(64, 128, 256, 256), layers_per_block=2, codebook_size=8192
    )
    large = Case(
        name="large", config=model, images=2048 if gpu else 8, pixels=(320, 400), file_type="jpg",
        batch_size=64 if gpu else 4, runs=3,
    )  # fmt: skip
    return [small, large]


def write_images(folder, case):
    """Smooth random pictures with some noise, which files of photos resemble in size."""
    random = np.random.default_rng(0)
    folder.mkdir()
    for index in range(case.images):
        path = folder / f"{index:05d}.{case.file_type}"
        if index >= DRAWN:
            os.link(folder / f"{index % DRAWN:05d}.{case.file_type}", path)
            continue
        coarse = Image.fromarray(random.integers(256, size=(6, 8, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize(case.pixels[::-1], Image.Resampling.BICUBIC), np.float32)
        pixels = (smooth + random.normal(0, 4, smooth.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path, quality=90)


@torch.no_grad()
def measure(case, folder, device):
    """Images a second of the bare forward pass, of the unit of work, and of decoding alone."""
    torch.manual_seed(0)
    write_images(folder / "images", case)
    tokenizer = VQTokenizer.untrained(case.config).eval().requires_grad_(False).to(device)
    images, gpu = open_source(folder / "images"), device.type == "cuda"
    shard = ShardJob(folder, 0, range(case.images))
    with ThreadPoolExecutor(spare_cores()) as threads:

        def decode():
            batches = decoded_batches(
                images, shard.rows, tokenizer.image_size, case.batch_size, threads, pin_memory=gpu
            )  # fmt: skip
            return [pixels for pixels, _, _ in batches]

        pixels = decode()

        def bare():
            with full_precision() if gpu else nullcontext():
                for batch in pixels:
                    tokenizer.encode(to_float(batch.to(device, non_blocking=gpu)))
                wait(device)

        def work():
            shard.make(images, tokenizer, image_rows(tokenizer), device, threads, batch_size=case.batch_size)

        bare()  # warm
        seconds = {bare: [], work: [], decode: []}
        for _ in range(case.runs):
            for run, times in seconds.items():
                start = time.perf_counter()
                run()
                times.append(time.perf_counter() - start)
    return [case.images / min(times) for times in seconds.values()]


def full_precision():
    """The float32 of ShardJob.make on a GPU: without TF32, by the same algorithm every time."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


def main():
    """Print the measures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the small tokenizer, 48 images")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for case in cases(quick=arguments.quick, gpu=device.type == "cuda"):
        with tempfile.TemporaryDirectory() as folder:
            bare, work, decoding = measure(case, Path(folder), device)
        report(f"bare forward pass, {case.name}", bare, "images/s")
        report(f"tokenise, {case.name}", work, "images/s", device=device.type)
        report(f"decoding alone, {case.name}", decoding, "images/s", threads=spare_cores())
        report_ratio(f"tokenise / bare forward pass, {case.name}", work, bare, "images/s")


if __name__ == "__main__":
    main()
