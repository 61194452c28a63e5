"""Folders as the stages leave them, for tests of the report, and its page as its reader gets it."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from PIL import Image

import tiny
from seitpp.report.picture_rows import ROWS
from seitpp.report.report import write_report
from seitpp.runtime.results import Result, write_results

MTM, SCRATCH, PIXELS = "fine-tuned from MTM", "from scratch", "linear probe, 16 x 16 pixels"
COMMAND = "accelerate launch -m seitpp.mtm.pretrain --config demo --dataset 'a --b c' --output_dir runs/mtm"


def write_run(folder, stage, *, summary=None, metrics=(), results=(), **config):
    """A run folder as seitpp.runtime.run_folder leaves it."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"stage": stage, **config}))
    environment = {"python": "3.11.9", "device": "cpu", "git_commit": "c0ffee12", "packages": {"torch": "2.9"}}
    (folder / "env.json").write_text(json.dumps(environment))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in metrics))
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    if results:
        write_results(folder, results)
    return folder


def measured(init, accuracies, *, protocol="finetune", **fields):
    """Results of a method, one a seed."""
    fields = {"dataset": "pets", "metric": "accuracy", "train_images": 40, "test_images": 50, **fields}
    return [
        Result(init=init, protocol=protocol, seed=seed, value=value, **fields) for seed, value in enumerate(accuracies)
    ]


def write_picture(folder, name, columns, *, side=6):
    """A picture as seitpp.runtime.pictures.image_grid writes it; row r is of grey 10 r + column."""
    rows = len(ROWS[name])
    pixels = np.full((rows * (side + 2) - 2, columns * (side + 2) - 2, 3), 255, np.uint8)
    for row in range(rows):
        for column in range(columns):
            top, left = row * (side + 2), column * (side + 2)
            pixels[top : top + side, left : left + side] = 10 * row + column
    Image.fromarray(pixels).save(folder / name)


def write_store(folder, keys):
    """A store of 4 x 6 tokens for images of 16 x 24 pixels, K = 37, in two shards."""
    tiny.make_store(folder, tiny.random_ids(len(keys), 37, (4, 6)), keys=keys, labels=[0] * len(keys))
    manifest = json.loads((folder / "store.json").read_text())
    manifest["preprocessing"] = {"image_size": [16, 24]}
    (folder / "store.json").write_text(json.dumps(manifest))


def write_finetuning(folder, init, accuracies, **config):
    """A run of seitpp.finetune.train with a loss curve for each seed."""
    run = write_run(
        folder, "finetune.train", summary={"accuracy": float(np.mean(accuracies))}, dataset="pets",
        weights="runs/mtm" if init == "mtm" else None, results=measured(init, accuracies), **config,
    )  # fmt: skip
    for seed in range(len(accuracies)):
        losses = [{"step": step, "loss": 2.5 - 0.1 * step - 0.01 * seed} for step in range(4)]
        write_run(run / f"seed-{seed}", "finetune.train/once", metrics=losses)
    return run


def robustness_results():
    """Of three seeds on clean images, on three severities of contrast, and on 30 sketches."""
    rows = []
    for init, clean, contrast, sketch in (
        ("mtm", (0.58, 0.6, 0.62), (0.4, 0.41, 0.42), (0.2, 0.21, 0.22)),
        ("scratch", (0.5, 0.52, 0.54), (0.35, 0.36, 0.37), (0.25, 0.26, 0.27)),
    ):
        rows += measured(init, clean)
        for severity, more in ((1, 0.1), (3, 0.05), (5, -0.15)):  # of mean 0
            rows += measured(init, [value + more for value in contrast], shift="contrast", severity=severity)
        rows += measured(init, sketch, shift="sketch", test_images=30)
    return rows


def write_tokenizer(root):
    """A run of seitpp.tokenizers.train, and the store of 12 images that it made."""
    images = tiny.make_images(root / "images" / "train", {"ant": 7, "bee": 5})
    (root / "images" / "ATTRIBUTION.txt").write_text("Drawn by <Ann & Bob>, https://example.org/ann\n")
    keys = sorted(path.relative_to(images).as_posix() for path in images.rglob("*.png"))
    write_store(root / "store" / "train", keys)
    summary = {"psnr": 18.765, "codes_used": 31, "codebook_size": 37, "held_out_images": 23, "fingerprint": "a" * 64}
    tokenizer = write_run(root / "tokenizer", "tokenizers.train", summary=summary)
    write_picture(tokenizer, "reconstructions.png", 16)
    (tokenizer / "weights").mkdir()
    (tokenizer / "weights" / "model.safetensors").write_bytes(b"x" * 4321)


def write_token_adapt(folder):
    """A run of seitpp.tokenadapt.train."""
    views = write_run(folder, "tokenadapt.train", summary={})
    write_picture(views, "views.png", 12)
    methods = ("naive embedding", "naive id", "TokenAdapt", "decode, warp, encode", "tokenizer")
    rows = [("flip", *row) for row in zip(methods, (0.11, 0.12, 0.34, 0.56, 1), (10, 11, 14, 17, 18), strict=True)]
    rows += [("all", *row) for row in zip(methods, (0.21, 0.43, 0.41, 0.57, 1), (9, 12, 11, 16, 19), strict=True)]
    pd.DataFrame(rows, columns=["geometry", "method", "agreement", "psnr"]).to_csv(views / "agreement.csv", index=False)


def write_pretraining(folder):
    """A run of seitpp.mtm.pretrain."""
    summary = {"eval_cross_entropy": 2.871, "eval_accuracy": 0.312, "unigram_baseline": 3.5, "position_baseline": 3.25}
    metrics = [{"step": step, "cross_entropy": 3.6 - step / 100} for step in range(0, 60, 10)]
    metrics.append({"step": 60, "eval_cross_entropy": 2.871})
    write_run(folder, "mtm.pretrain", summary=summary, metrics=metrics, eval_mask_ratio=0.6)
    write_picture(folder, "completions.png", 12)


def write_demo(root):
    """A whole demo: every stage, a store of 12 images of 16 x 24 pixels, the images, the log of commands."""
    write_tokenizer(root)
    write_token_adapt(root / "tokenadapt")
    write_pretraining(root / "mtm")
    write_finetuning(root / "finetune", "mtm", (0.58, 0.6, 0.62))
    write_finetuning(root / "scratch", "scratch", (0.5, 0.52, 0.54))
    baselines = measured("", [0.16], protocol="majority") + measured("pixels", [0.55], protocol="linear")
    write_run(root / "probe", "finetune.probe", summary={}, results=baselines)
    write_run(root / "robustness", "downstream.robustness", summary={}, results=robustness_results())
    log = [
        {"stage": "Tokenizer", "command": "seitpp train-tokenizer", "seconds": 61.5, "peak_memory_mb": 812},
        {"stage": "Pre-training", "command": COMMAND, "seconds": 123.4, "peak_memory_mb": 1234},
    ]
    (root / "commands.jsonl").write_text("".join(json.dumps(record) + "\n" for record in log))
    return root


class Page(HTMLParser):
    """A page as its reader gets it: `text`, and `tags` as (name, attributes)."""

    def __init__(self, path):
        super().__init__()
        self.source = Path(path).read_text(encoding="utf-8")
        self.tags, self.words, self.inside = [], [], []
        self.feed(self.source)
        self.text = " ".join(" ".join(self.words).split())
        self.headings = re.findall(r"<h2>(.*?)</h2>", self.source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside.append(tag)

    def handle_endtag(self, tag):
        if tag in self.inside:
            del self.inside[len(self.inside) - 1 - self.inside[::-1].index(tag) :]

    def handle_data(self, data):
        if "style" not in self.inside:
            self.words.append(data)

    def section(self, name):
        """Source of the section with an id."""
        part = self.source[self.source.index(f'<section id="{name}"') :]
        return part[: part.index("</section>")]


def report(*folders, **options):
    """Write a report of folders in a folder beside the first, and read it."""
    out = Path(folders[0]).parent / "page" / "report.html"
    write_report(folders, out, **options)
    return Page(out)
