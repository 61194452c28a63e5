"""The published code beside ours, in the same run: its flags, its files, its process, and the ratios."""

import json
import subprocess
import sys
from pathlib import Path

import torch
from einops import rearrange

from benchmarks.measures import report, report_ratio
from benchmarks.steps import report_parts
from seitpp.tokens.exchange import published


def add_reference(parser):
    """The flags that name the published code; returns the parser."""
    parser.add_argument("--reference", type=Path, help="checkout of github.com/naver-ai/seit")
    parser.add_argument("--reference_path", type=Path, help="folder with timm 0.5.4")
    return parser


def check_reference(parser, arguments):
    """Refuse them where they can't be measured."""
    if arguments.reference and (arguments.quick or not arguments.reference_path):
        parser.error("--reference needs --reference_path, and models of the published size: no --quick")


def report_ratios(ours, rate, theirs, batch_size):
    """The published step's times, and ours against them.

    Args:
        ours: seconds of the parts of our step.
        rate: our images a second, of steps in a row.
        theirs: what `measure_published` returned.
        batch_size: of both.
    """
    report_parts("published", theirs["parts"], batch_size)
    report("published: steps in a row", theirs["rate"], "images/s", precision=theirs["precision"])
    for part, seconds in ours.items():
        name = f"ours against the published, {part}"
        report_ratio(name, batch_size / seconds, batch_size / theirs["parts"][part], "images/s")
    report_ratio("ours against the published, steps in a row", rate, theirs["rate"], "images/s")


def write_release(store, folder):
    """The store's rows in the form that the published loader reads."""
    ids = store.ids(range(len(store)))
    with published.writing(folder / "train-token.data.bin.gz", len(ids)) as append:
        append(rearrange(ids, "b h w -> b (h w)").numpy())
    (folder / "train-label.txt").write_text(
        "".join(f"{label}\n" for label in store.labels_at(range(len(store))).tolist())
    )
    torch.save(store.codebook, folder / "codebook.ckpt")


def measure_published(stage, arguments, folder):
    """The published step in a process of its own: the JSON object that benchmarks.published_STAGE prints."""
    torch.cuda.empty_cache()  # it needs the device's memory too
    words = ["-m", f"benchmarks.published_{stage}", arguments.reference, arguments.reference_path, folder]
    command = [sys.executable, *map(str, words), str(arguments.batch_size), str(arguments.steps)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])
