"""Robustness of a folder of images: memory at its peak, what a second classifier costs, and evaluation of a store.

    OMP_NUM_THREADS=1 python -m benchmarks.downstream                4,000 images of 64 px, 3 corruptions x 5 severities
    OMP_NUM_THREADS=1 python -m benchmarks.downstream --images 50000  as many as ImageNet's, most of an hour
    OMP_NUM_THREADS=1 python -m benchmarks.downstream --quick         in seconds

Images are noise over a colour of their class. The tokenizer and both classifiers (a ViT of 4 blocks of 128 on 8 x 8
tokens, as in the demo) are untrained, which costs the same. Each run is a command of its own, its start included; the
second one finds the stores of the first. Evaluation is `evaluate_classifier` on the store of the clean images, beside
the classifier's bare forward pass on the same ids in memory.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image

from benchmarks.measures import per_second, report, report_ratio
from seitpp.finetune.classifier import Classifier, read_classifier, save_classifier
from seitpp.finetune.evaluate import evaluate_classifier
from seitpp.finetune.labelled import LabelledRows
from seitpp.mtm.encoder import EncoderConfig
from seitpp.tokenizers.networks.vq import VQConfig, VQTokenizer
from seitpp.tokens.store import open_store

SIDE, CLASSES, BATCH = 64, 10, 128
CORRUPTIONS, SEVERITIES = ("brightness", "contrast", "pixelate"), (1, 2, 3, 4, 5)


def make_images(folder, count):
    """Write the images, as many of each class; returns the folder."""
    random = np.random.default_rng(0)
    for number in range(count):
        place = folder / f"class-{number % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 160, size=(SIDE, SIDE, 3), dtype=np.uint8)
        pixels[..., number % 3] += np.uint8(9 * (number % CLASSES))
        Image.fromarray(pixels).save(place / f"{number:06d}.png", compress_level=1)
    return folder


def make_models(folder):
    """Save the tokenizer and two classifiers that read its tokens."""
    torch.manual_seed(0)
    config = VQConfig(image_size=(SIDE, SIDE), space_to_depth=4, widths=(32, 64), attention=False)
    tokenizer = VQTokenizer.untrained(config).requires_grad_(False)
    tokenizer.codebook.copy_(torch.randn_like(tokenizer.codebook))
    tokenizer.save(folder / "tokenizer" / "weights")
    shape = EncoderConfig(width=128, depth=4, heads=4)
    for name in ("first", "second"):
        classifier = Classifier(
            shape, view=tokenizer.grid, codebook_size=tokenizer.codebook_size,
            embedding_dim=tokenizer.codebook.shape[1], classes=CLASSES,
        )  # fmt: skip
        save_classifier(
            folder / name / "seed-0" / "weights", classifier, tokenizer=tokenizer.fingerprint,
            class_names=[f"class-{number}" for number in range(CLASSES)],
        )  # fmt: skip


def measure_run(folder, name):
    """(seconds, bytes of memory at its peak) of `seitpp robustness` of one classifier, a process of its own."""
    command = [
        sys.executable, "-m", "seitpp.downstream.robustness", "--classifiers", str(folder / name), "--images",
        str(folder / "images"), "--tokenizer", str(folder / "tokenizer"), "--corruptions", ",".join(CORRUPTIONS),
        "--severities", ",".join(map(str, SEVERITIES)), "--stores", str(folder / "stores"), "--output_dir",
        str(folder / f"robustness-{name}"),
    ]  # fmt: skip
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return time.perf_counter() - started, usage.ru_maxrss << 10


@torch.no_grad()
def measure_evaluation(folder):
    """Images a second of evaluating a store, and of the bare forward pass on its ids in memory."""
    store = open_store(folder / "stores" / "clean")
    classifier = read_classifier(folder / "first" / "seed-0")
    rows = np.arange(len(store))
    labelled = LabelledRows(store, rows, store.labels.astype(np.int64), list(store.classes))
    accelerator = Accelerator(cpu=True)
    ids = store.ids(rows)

    def evaluate():
        dict(evaluate_classifier(classifier, labelled, batch_size=BATCH, accelerator=accelerator))

    def bare():
        for part in ids.split(BATCH):
            classifier(part)

    for action in (evaluate, bare):
        action()
    rates = [(per_second(evaluate, len(rows), rounds=1), per_second(bare, len(rows), rounds=1)) for _ in range(5)]
    ours, theirs = (max(each) for each in zip(*rates, strict=True))
    report_ratio("evaluation of a store / bare forward pass, time", 1 / ours, 1 / theirs, "s an image")


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=4000, help="images in the folder (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="24 images")
    options = parser.parse_args()
    count = 24 if options.quick else options.images
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_images(folder / "images", count)
        make_models(folder)
        sets = 1 + len(CORRUPTIONS) * len(SEVERITIES)
        first, memory = measure_run(folder, "first")
        report("robustness: memory at its peak", memory, "bytes", images=count, sets=sets)
        second, _ = measure_run(folder, "second")
        report_ratio("robustness: first classifier / second, time", first, second, "s")
        measure_evaluation(folder)


if __name__ == "__main__":
    main()
