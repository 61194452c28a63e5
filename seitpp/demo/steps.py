"""The demo's steps: commands, what each needs, and how long each takes about."""

import os
from pathlib import Path
from typing import Any

from seitpp.pipeline.sizes import DEMO_BATCH, QUICK, Sizes, even_third
from seitpp.pipeline.steps import Way
from seitpp.runtime.steps.step import Step, flag_words
from seitpp.runtime.tables import read_table


def make_steps(folder: str | Path, *, quick: bool = False) -> list[Step]:
    """The steps for a demo folder whose images/ are prepared.

    Args:
        folder: the demo's folder; images/train, images/test and, where there are, images/sketch and
            images/subgroups.csv lie in it.
        quick: few optimizer steps everywhere.
    Returns: list of Step, each after those it needs.
    """
    folder = Path(folder)
    images, store = folder / "images", folder / "store"
    way = Way(folder=folder, images=images, sizes=_sizes(images, quick=quick), launched=("pretrain",))
    stores, tokenizer, stage = way.stores, way.with_tokenizer, way.stage
    finetuning = ("categories",) if not (images / "subgroups.csv").exists() else ("categories", "sub-groups")
    steps = [*way.to_tokens(), *way.to_encoder()]
    for task in finetuning:
        labels = () if task == "categories" else ("--labels", f"{images}/subgroups.csv")
        shorter = () if task == "categories" or quick else ("--steps", "200")  # it has half as many images
        ending = f"-{task.replace('-', '')}"
        steps += way.learning(task, labels=labels, shorter=shorter, seconds=50 if shorter else 70, ending=ending)
    steps += _few_labels(images, store, stage, Path(folder), shorter=not quick)
    steps += [
        Step(
            name="MTM without TokenAdapt and ColorAdapt", after=("Tokens of the test images",), seconds=150,
            command=stage("pretrain", *stores, *tokenizer, "--augment.color_adapt", "0", out="mtm-plain"),
        ),
        Step(
            name="Fine-tuning from MTM without them", after=("MTM without TokenAdapt and ColorAdapt",), seconds=45,
            command=stage(
                "finetune", *stores, "--dataset", "categories", "--weights", f"{folder}/mtm-plain", out="finetune-plain"
            ),
        ),
    ]  # fmt: skip
    classifiers = [f"{folder}/scratch-categories", f"{folder}/finetune-categories"]
    there = {name: f"{images}/{name}" for name in ("sketch", "on-black") if (images / name).exists()}
    domains = {"domains": there} if there else {}
    steps += [
        Step(
            name="Robustness", after=("From scratch, categories", "Fine-tuning, categories"), seconds=15,
            command=stage(
                "robustness", *flag_words({"classifiers": classifiers, "images": f"{images}/test", **domains}),
                *tokenizer, "--dataset", "categories", out="robustness",
            ),
        ),
    ]  # fmt: skip
    steps += [*way.closer_look("categories", "finetune-categories"), *_looks(way, quick=quick)]
    return [*steps, way.reporting(steps)]


_MANY = {"train": 300, "test": 100}
"""Labelled images that a storage curve and a map of features need to show anything."""


def _looks(way, *, quick):
    """Steps that look closer, where there is enough to look at: neighbours, a storage curve."""
    images, stage, folder, steps = way.images, way.stage, way.folder, []
    common = (*way.stores, *way.with_tokenizer, "--dataset", "categories")
    counts = {part: sum(1 for _ in (images / part).glob("*/*.png")) for part in _MANY}
    if all(counts[part] >= least for part, least in _MANY.items()):
        steps += [
            Step(
                name="Neighbours and a map of features", after=("MTM pre-training",), seconds=12,
                command=stage("explore", *common, "--weights", f"{folder}/mtm", out="explore"),
            ),
            Step(
                name="Storage curve", after=("Tokens of the test images",), seconds=60,
                command=stage(
                    "storage-curve", *common, "--images", f"{images}/train", "--eval_images", f"{images}/test",
                    "--ingredients", "scratch", "--budgets", "0.25,1.0", "--jpegs", "jpeg75",
                    "--lanes", "1",
                    *(("--quick", "true") if quick else ()), out="storage-curve",
                ),
            ),
        ]  # fmt: skip
    return steps


FIFTH = 0.2
"""Fraction of the labels of the second budget, where pre-training shows most."""
_LEAST = 4
"""Images of a class that a fifth of it must leave."""


def _few_labels(images, store, stage, folder, *, shorter):
    """Steps that learn from a fifth of the labels, where that leaves some of every class."""
    counts = {path.name: sum(1 for _ in path.glob("*.png")) for path in (images / "train").iterdir() if path.is_dir()}
    if min(counts.values(), default=0) * FIFTH < _LEAST:
        return []
    part, labelled = f"{store}/train-fifth", round(sum(counts.values()) * FIFTH)
    common = ("--store", part, "--eval_store", f"{store}/test", "--dataset", "categories")
    training = (*common, "--blr", "0.002", *(("--steps", "200") if shorter else ()))
    if labelled // 3 < DEMO_BATCH["finetune"]:
        training = (*training, "--batch_size", str(max(2, labelled // 3 // 2 * 2)))
    choice = flag_words({"classes": sorted(counts)})
    return [
        Step(
            name="A fifth of the labels", after=("Tokens of the training images",), seconds=3,
            command=(
                "seitpp", "store", "subset", f"{store}/train", *choice, "--fraction", f"{FIFTH}", "--output_dir", part
            ),
        ),
        Step(
            name="From scratch, a fifth of the labels", seconds=50,
            after=("A fifth of the labels", "Tokens of the test images"),
            command=stage("finetune", *training, out="scratch-fifth"),
        ),
        Step(
            name="Fine-tuning, a fifth of the labels", after=("A fifth of the labels", "MTM pre-training"), seconds=50,
            command=stage("finetune", *training, "--weights", f"{folder}/mtm", out="finetune-fifth"),
        ),
        Step(
            name="Probe, a fifth of the labels", after=("A fifth of the labels", "MTM pre-training"), seconds=12,
            command=stage(
                "probe", *common, "--weights", f"{folder}/mtm", "--features", "[mtm, random]", out="probe-fifth"
            ),
        ),
    ]  # fmt: skip


def _sizes(images: Path, *, quick: bool) -> Sizes:
    """The demo's recipes; where there are few images, batches are even, at most a third of what a step learns from."""
    every = sum(1 for _ in (images / "train").rglob("*.png"))
    labelled = sum(1 for _ in (images / "train").glob("*/*.png"))
    if (images / "subgroups.csv").exists():
        labelled = min(
            labelled,
            sum((images / "train" / key).exists() for key in read_table(images / "subgroups.csv", ("key",))["key"]),
        )
    flags: dict[str, dict[str, Any]] = {stage: dict(QUICK[stage]) if quick else {} for stage in DEMO_BATCH}
    for stage, usual in DEMO_BATCH.items():
        fitting = even_third(labelled if stage == "finetune" else every, usual)
        if fitting < usual:
            flags[stage]["batch_size"] = fitting
    recipes = dict.fromkeys((*DEMO_BATCH, "tokenize", "probe", "explore", "storage-curve"), "demo")
    return Sizes(recipes=recipes, flags=flags, lanes=min(2, os.cpu_count() or 1))
