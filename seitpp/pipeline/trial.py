"""How long a fit takes, and how much memory and disk: measured on a few images and steps, in a folder that goes again.

Every step of the plan is run once as the command that it will be, on a sample of the images, its trainings for a few
steps. What depends on the number of steps or images is extrapolated, and nothing else is.
"""

import io
import json
import statistics
import sys
import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from seitpp.finetune.load import load_encoder
from seitpp.finetune.predict import embed
from seitpp.pipeline.facts import Facts
from seitpp.pipeline.given import Given, sample_of, write_links
from seitpp.pipeline.look_alikes import find_look_alikes
from seitpp.pipeline.sizes import DEMO_BATCH, Sizes
from seitpp.pipeline.steps import Way, fit_steps
from seitpp.runtime.machine import cpu_name
from seitpp.runtime.progress import readable_seconds
from seitpp.runtime.recipes import read_recipe
from seitpp.runtime.run_folder import read_metrics
from seitpp.runtime.steps.runner import StepRunner
from seitpp.runtime.steps.step import Step
from seitpp.tokenizers.tokenize_images import tokenize_images
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.store import open_store

TRIAL: dict[str, Any] = {"steps": 8, "warmup_steps": 1, "save_every": 4, "log_every": 1}
"""Of each training: enough to know a step's time, and to have the checkpoints that a long one keeps."""
_TEST_IMAGES = 16
_CACHE = 1 << 30
"""Bytes of decoded images that a training on images keeps at most, see ImageBatches."""


@dataclass(frozen=True)
class Estimate:
    """What a step of a fit takes.

    Attributes:
        name: of the step.
        seconds: alone on the machine.
        memory: the most that its process holds, bytes.
        disk: bytes that it leaves.
        cores: that it uses of the lanes.
    """

    name: str
    seconds: float
    memory: float
    disk: float
    cores: int = 1


def estimate(
    given: Given, facts: Facts, sizes: Sizes, tokenizer: str | None
) -> tuple[list[Estimate], int]:  # fmt: skip
    """Run a small version of every step, and extrapolate.

    Args:
        given: the images.
        facts: what is there.
        sizes: the plan.
        tokenizer: one that is there.
    Returns: (Estimates in the order of the steps, images that they were measured on).
    """
    labelled = facts.classes >= 2
    batches = [sizes.flags[stage]["batch_size"] for stage in DEMO_BATCH]
    sample = sample_of(given.train, min(len(given.train.keys), max(64, 3 * max(batches)) + _TEST_IMAGES))
    last = len(sample) - min(_TEST_IMAGES, len(sample) // 5)  # classes come in turn: these have others before them
    held = sample[last:] if given.test is None else sample_of(given.test, _TEST_IMAGES)
    rest = sample[:last] if given.test is None else sample
    short = {stage: {**TRIAL, **({"seeds": 1} if stage == "finetune" else {})} for stage in DEMO_BATCH}
    small = {stage: {**flags, **short.get(stage, {})} for stage, flags in sizes.flags.items()}
    with tempfile.TemporaryDirectory(prefix="seitpp-trial-") as place:
        folder = Path(place)
        write_links(folder / "images" / "train", given.train, rest)
        write_links(folder / "images" / "test", given.test or given.train, held)
        tried = replace(sizes, flags=small)
        way = Way(folder=folder, images=folder / "images", sizes=tried, tokenizer=tokenizer)
        steps = fit_steps(way, labelled=labelled)
        comparing = _comparing(given, rest) if given.test is None else []
        print(f"trying {len(steps)} steps on {len(sample)} images:", flush=True)
        _run_quietly(steps, folder, sizes.lanes)
        pace = _pace(way)
        lines = (folder / "commands.jsonl").read_text().splitlines()
        records = {record["stage"]: record for record in map(json.loads, lines)}
        counts = Counts(facts, len(rest), len(held))
        measured = [extrapolated(step, records[step.name], sizes, counts, pace) for step in steps]
        return [*comparing, *measured], len(sample)


@dataclass(frozen=True)
class Counts:
    """Images that there are, and that were tried.

    Attributes:
        facts: how many there are.
        train: tried of those to learn from.
        test: tried of those to measure on.
    """

    facts: Facts
    train: int
    test: int

    def of(self, step: Step) -> tuple[int, int]:
        """(images that a step reads, those that its trial read)."""
        if "test" in step.name.lower() or step.name == "Evaluation":
            return self.facts.test_images, self.test
        return self.facts.images, self.train


@dataclass(frozen=True)
class Pace:
    """Seconds that an image more takes.

    Attributes:
        tokens: read from its file, resized and encoded.
        features: from its tokens.
    """

    tokens: float
    features: float

    def of(self, stage: str) -> float:
        """Of a stage that is no training; what its classifiers take is not in it."""
        return {
            "tokenize": self.tokens, "embed": self.features, "evaluate": self.features,
            "probe": self.tokens + 2 * self.features,  # pixels, the encoder, and the same untrained
        }.get(stage, 0.0)  # fmt: skip


def extrapolated(step: Step, record: dict[str, Any], sizes: Sizes, counts: Counts, pace: Pace) -> Estimate:
    """What a step takes as a whole, from what its trial took.

    A training: what came before and after its steps, and the median step of the later half, as often as the plan says.
    Another step: its trial, and what each image more takes. Decoded images that a training
    keeps are counted as memory.

    Args:
        step: the trial's, whose folder is there.
        record: its line of commands.jsonl.
        sizes: the plan.
        counts: images that there are, and that were tried.
        pace: seconds that an image more takes.
    """
    stage = _stage_of(step)
    out = Path(step.command[-1])
    disk, memory = _bytes_of(out), record["peak_memory_mb"] * 1e6
    seconds, (wanted, tried) = record["seconds"], counts.of(step)
    if stage in DEMO_BATCH:
        flags = sizes.flags[stage]
        rates = [line["images_per_second"] for path in (out, out / "seed-0") for line in read_metrics(path)
                 if "images_per_second" in line]  # fmt: skip
        a_step = flags["batch_size"] * sizes.processes / statistics.median(rates[len(rates) // 2 :])
        once = max(0.0, seconds - TRIAL["steps"] * a_step)
        seeds = flags.get("seeds", 1)
        seconds, disk = once + seeds * steps_of(stage, sizes) * a_step, disk * seeds
        if stage in ("train-tokenizer", "train-tokenadapt"):
            memory += min(_CACHE, max(0, counts.facts.images - counts.train) * 3 * _pixels(sizes))
    else:
        seconds += max(0, wanted - tried) * pace.of(stage)
        disk *= max(1.0, wanted / max(1, tried)) if stage in ("tokenize", "embed") else 1.0
    return Estimate(step.name, seconds, memory, disk, step.cores)


def steps_of(stage: str, sizes: Sizes) -> int:
    """Optimizer steps of a training: those of the plan, else of its recipe."""
    folder = {"train-tokenizer": "train_tokenizer", "train-tokenadapt": "tokenadapt"}.get(stage, stage)
    planned = sizes.flags[stage].get("steps")
    return int(read_recipe(sizes.recipes[stage], folder)[1]["steps"] if planned is None else planned)


def _pixels(sizes: Sizes) -> int:
    height, width = sizes.flags["train-tokenizer"]["model.image_size"]
    return height * width


def _stage_of(step: Step) -> str:
    if step.command[0] == "seitpp":
        return step.command[1]
    module = step.command[step.command.index("-m") + 1]
    return {"seitpp.tokenizers.train": "train-tokenizer", "seitpp.tokenadapt.train": "train-tokenadapt",
            "seitpp.mtm.pretrain": "pretrain", "seitpp.finetune.train": "finetune"}[module]  # fmt: skip


def _comparing(given: Given, places: list[str]) -> list[Estimate]:
    """The split: each image is read once."""
    key_of = dict(zip(given.train.places, given.train.keys, strict=True))
    keys = [key_of[place] for place in places]
    started = time.monotonic()
    find_look_alikes([str(given.train.folder / key) for key in keys], keys)
    count = len(given.train.keys)
    seconds = (time.monotonic() - started) * count / len(keys)
    return [Estimate("Split", seconds, 500e6 + 900 * count, sum(map(len, given.train.keys)) + 150 * count)]


def _run_quietly(steps: list[Step], folder: Path, lanes: int) -> None:
    """Run the steps, as they will run; of each only its name is printed, as its command is of a folder that goes."""
    out = sys.stdout
    with redirect_stdout(io.StringIO()):
        StepRunner(
            steps, folder, lanes=lanes, on_finish=lambda step: print(f"  {step.name}", file=out, flush=True)
        ).run()  # fmt: skip


def _pace(way: Way) -> Pace:
    """Read, encode and embed the trial's images with its models, once to get warm and once to measure."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer, model = load_tokenizer(way.with_tokenizer[1], device), load_encoder(way.folder / "mtm", device)
    store = open_store(way.folder / "store" / "train")
    rows = range(len(store))
    files, ids, taken = [way.images / "train" / key for key in store.keys(rows)], store.ids(rows), (0.0, 0.0)
    for _ in range(2):
        started = time.monotonic()
        tokenize_images(files, tokenizer)
        between = time.monotonic()
        embed(model, ids)
        taken = (between - started, time.monotonic() - between)
    return Pace(taken[0] / len(files), taken[1] / len(files))


def _bytes_of(place: Path) -> int:
    if place.is_file():
        return place.stat().st_size
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file() and not path.is_symlink())


def as_lines(estimates: list[Estimate], *, lanes: int, images: int, gpus: int = 0) -> list[str]:
    """A table of them, and what it was measured on.

    Args:
        estimates: of the steps.
        lanes: steps that run side by side.
        images: that were tried.
        gpus: that trainings run on.
    """
    width = max(len(each.name) for each in estimates)
    lines = [f"{'step':<{width}}  {'time':>12}  {'memory':>8}  {'disk':>8}"]
    lines += [_line(each, width) for each in estimates]
    busy = sum(each.seconds * min(each.cores, lanes) for each in estimates) / lanes
    most = max(each.memory for each in estimates) * lanes
    lines.append(_line(Estimate("all", busy, most, sum(each.disk for each in estimates)), width))
    tried = f"{images} of the images and {TRIAL['steps']} steps of each training"
    lines.append(f"measured here on {tried} ({cpu_name()}), extrapolated to the whole")
    if gpus:
        lines.append("memory is the process's; of the GPU's, batches take what there is (--shrink_batch)")
    if lanes > 1:
        lines.append(f"{lanes} steps run side by side where they can; of memory twice the most counts")
    return lines


def _line(each: Estimate, width: int) -> str:
    return f"{each.name:<{width}}  {readable_seconds(each.seconds):>12}  {_size(each.memory):>8}  {_size(each.disk):>8}"


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
