"""Tokenising against the tokenizer's bare forward pass.

    python -m benchmarks.tokenize

The same process, the same threads, the same batches: first pixels that lie decoded in memory go through `encode`
alone, then `ShardJob.make` reads the files, decodes, encodes, packs and writes the shard. Both sides are the best of
several runs in turn, as other programs on the machine slow down either; decoding needs a core that the encoder
leaves free, so OMP_NUM_THREADS belongs below the number of cores. The tokenizers have random weights:

    small   that of configs/train_tokenizer/demo.yaml, 64 x 64 pixels, PNG files
    large   widths 64, 128, 256, 256, 256 x 256 pixels to 32 x 32 tokens with K = 8192, JPEG files of 320 x 400 pixels
"""

import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

from tokens.shard_job import ShardJob
from tokens.sources.decode_ahead import decoded_batches
from tokens.sources.images import to_float
from tokens.sources.source import open_source
from tokens.tokenize import spare_cores
from tokens.tokenizers.vq import VQConfig, VQTokenizer
from training.recipes import find_recipe


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


def cases():
    """The two that are measured."""
    recipe = yaml.safe_load(find_recipe("demo", "train_tokenizer").read_text())["model"]
    small = VQConfig(**{key: tuple(value) if isinstance(value, list) else value for key, value in recipe.items()})
    large = VQConfig(
        image_size=(256, 256), space_to_depth=1, widths=(64, 128, 256, 256), layers_per_block=2, codebook_size=8192
    )
    return [
        Case(name="small", config=small, images=4096, pixels=(72, 72), file_type="png", batch_size=128, runs=5),
        Case(name="large", config=large, images=8, pixels=(320, 400), file_type="jpg", batch_size=4, runs=3),
    ]


def write_images(folder, case):
    """Smooth random pictures with some noise, which files of photos resemble in size."""
    random = np.random.default_rng(0)
    folder.mkdir()
    for index in range(case.images):
        coarse = Image.fromarray(random.integers(256, size=(6, 8, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize(case.pixels[::-1], Image.Resampling.BICUBIC), np.float32)
        pixels = (smooth + random.normal(0, 4, smooth.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:05d}.{case.file_type}", quality=90)


@torch.no_grad()
def measure(case, folder):
    """Images a second of the bare forward pass and of the unit of work."""
    torch.manual_seed(0)
    write_images(folder / "images", case)
    tokenizer = VQTokenizer.untrained(case.config).eval().requires_grad_(False)
    images, device = open_source(folder / "images"), torch.device("cpu")
    shard = ShardJob(folder, 0, range(case.images))
    with ThreadPoolExecutor(spare_cores()) as threads:
        batches = decoded_batches(images, shard.rows, tokenizer.image_size, case.batch_size, threads)
        pixels = [pixels for pixels, _, _ in batches]

        def bare():
            for batch in pixels:
                tokenizer.encode(to_float(batch))

        def work():
            shard.make(images, tokenizer, device, threads, batch_size=case.batch_size)

        seconds = {bare: [], work: []}
        for _ in range(case.runs):
            for run in (bare, work):
                start = time.perf_counter()
                run()
                seconds[run].append(time.perf_counter() - start)
    return case.images / min(seconds[bare]), case.images / min(seconds[work])


def main():
    """Print the measures."""
    for case in cases():
        with tempfile.TemporaryDirectory() as folder:
            bare, work = measure(case, Path(folder))
        for name, value in (("bare forward pass", bare), ("tokenise", work)):
            print(
                json.dumps({"name": f"{name}, {case.name}", "value": round(value, 2), "unit": "images/s"}), flush=True
            )
        ratio = {"name": f"tokenise / bare forward pass, {case.name}", "value": round(work / bare, 3), "unit": "1"}
        print(json.dumps({**ratio, "tokenise": round(work, 2), "bare": round(bare, 2)}), flush=True)


if __name__ == "__main__":
    main()
