"""The demo's steps: commands, what each needs, and how long each takes about."""

from pathlib import Path

from seitpp.runtime.steps.step import Step, flag_words
from seitpp.runtime.tables import read_table

QUICK = {  # of each stage: enough steps for every part of it to run
    "train-tokenizer": ("--steps", "60", "--warmup_steps", "5"),
    "train-tokenadapt": ("--steps", "20", "--warmup_steps", "2"),
    "pretrain": ("--steps", "60", "--warmup_steps", "5"),
    "finetune": ("--steps", "15", "--warmup_steps", "2", "--seeds", "2"),
}


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
    stores = ("--store", f"{store}/train", "--eval_store", f"{store}/test")
    tokenizer = ("--tokenizer", f"{folder}/tokenizer")
    finetuning = ("categories",) if not (images / "subgroups.csv").exists() else ("categories", "sub-groups")
    batches = _batch_sizes(images)

    def stage(name, *flags, out, launcher="seitpp"):
        short = QUICK.get(name, ()) if quick else ()
        start = ("seitpp", name) if launcher == "seitpp" else ("accelerate", "launch", "-m", "seitpp.mtm.pretrain")
        recipe = () if name == "robustness" else ("--config", "demo")
        return (*start, *recipe, *short, *batches.get(name, ()), *flags, "--output_dir", f"{folder}/{out}")

    steps = [
        Step(
            name="Tokenizer", after=(), seconds=75, cores=2,
            command=stage("train-tokenizer", "--images", f"{images}/train", out="tokenizer"),
        ),
        Step(
            name="Tokens of the training images", after=("Tokenizer",), seconds=12,
            command=stage("tokenize", "--images", f"{images}/train", *tokenizer, out="store/train"),
        ),
        Step(
            name="Tokens of the test images", after=("Tokens of the training images",), seconds=8,
            command=stage(
                "tokenize", "--images", f"{images}/test", *tokenizer, "--like", f"{store}/train", out="store/test"
            ),
        ),
        Step(
            name="TokenAdapt", after=("Tokens of the test images",), seconds=65, cores=2,
            command=stage("train-tokenadapt", "--images", f"{images}/train", *tokenizer, out="tokenadapt"),
        ),
        Step(
            name="MTM pre-training", after=("TokenAdapt", "Tokens of the test images"), seconds=260,
            command=stage(
                "pretrain", *stores, *tokenizer, "--augment.token_adapt", f"{folder}/tokenadapt", out="mtm",
                launcher="accelerate",
            ),
        ),
    ]  # fmt: skip
    for task in finetuning:
        labels = () if task == "categories" else ("--labels", f"{images}/subgroups.csv")
        shorter = () if task == "categories" or quick else ("--steps", "200")  # it has half as many images
        short = task.replace("-", "")
        common = (*stores, *labels, "--dataset", task)
        steps += [
            Step(
                name=f"From scratch, {task}", after=("Tokens of the test images",), seconds=70 if not shorter else 50,
                command=stage("finetune", *common, *shorter, out=f"scratch-{short}"),
            ),
            Step(
                name=f"Fine-tuning, {task}", after=("MTM pre-training",), seconds=70 if not shorter else 50,
                command=stage(
                    "finetune", *common, *shorter, "--weights", f"{folder}/mtm", out=f"finetune-{short}"
                ),
            ),
            Step(
                name=f"Probe, {task}", after=("MTM pre-training",), seconds=15,
                command=stage(
                    "probe", *common, "--weights", f"{folder}/mtm", "--images", f"{images}/train",
                    "--eval_images", f"{images}/test", out=f"probe-{short}",
                ),
            ),
        ]  # fmt: skip
    steps += _few_labels(images, store, stage, Path(folder), shorter=not quick)
    steps += [
        Step(
            name="MTM without TokenAdapt and ColorAdapt", after=("Tokens of the test images",), seconds=150,
            command=stage(
                "pretrain", *stores, *tokenizer, "--augment.color_adapt", "0", out="mtm-plain", launcher="accelerate"
            ),
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
    steps += _looks(images, stores, tokenizer, stage, folder, quick=quick)
    report = ("seitpp", "report", f"{folder}", "--images", f"{images}", "--out", f"{folder}/report.html")
    steps.append(Step(name="Report", command=report, after=tuple(step.name for step in steps), seconds=8))
    return steps


_MANY = {"train": 300, "test": 100}
"""Labelled images that a storage curve and a map of features need to show anything."""


def _looks(images, stores, tokenizer, stage, folder, *, quick):
    """Steps that look closer: mistakes, neighbours, a storage curve; and what is taken home, a bundle."""
    classifier = f"{folder}/finetune-categories"
    common = (*stores, *tokenizer, "--dataset", "categories")
    steps = [
        Step(
            name="Evaluation", after=("Fine-tuning, categories",), seconds=8,
            command=(
                "seitpp", "evaluate", "--classifier", classifier, "--store", f"{folder}/store/test", *tokenizer,
                "--dataset", "categories", "--output_dir", f"{folder}/evaluation",
            ),
        ),
        Step(
            name="Bundle", after=("Fine-tuning, categories",), seconds=5,
            command=(
                "seitpp", "export-model", "--weights", classifier, "--kind", "bundle", *tokenizer,
                "--out", f"{folder}/bundle",
            ),
        ),
    ]  # fmt: skip
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
    if labelled // 3 < _BATCH["finetune"]:
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


_BATCH = {"train-tokenizer": 32, "train-tokenadapt": 64, "pretrain": 32, "finetune": 48}
"""Batch sizes of the demo's recipes."""


def _batch_sizes(images):
    """Flags that make batches fit where there are few images: even, at most a third of what a step learns from."""
    every = sum(1 for _ in (images / "train").rglob("*.png"))
    labelled = sum(1 for _ in (images / "train").glob("*/*.png"))
    if (images / "subgroups.csv").exists():
        labelled = min(
            labelled,
            sum((images / "train" / key).exists() for key in read_table(images / "subgroups.csv", ("key",))["key"]),
        )
    counts = {stage: labelled if stage == "finetune" else every for stage in _BATCH}
    return {
        stage: ("--batch_size", str(max(2, count // 3 // 2 * 2)))
        for stage, count in counts.items()
        if count // 3 < _BATCH[stage]
    }
