"""Fine-tuned classifiers on corrupted images and in other domains, each set tokenised into a store of its own.

    seitpp robustness --classifiers '[runs/finetune]' --images photos/test --tokenizer runs/tokenizer \
        --domains '{sketch: photos/sketch}' --output_dir runs/robustness
    accelerate launch -m seitpp.downstream.robustness …      shards and batches are divided among the processes

The stores are kept: to resume, rerun the same command. Other runs use them too where --stores names the same folder.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from seitpp.downstream.corruptions import check_corruptions
from seitpp.downstream.shifts import CLEAN, ShiftedSet, shifted_sets
from seitpp.finetune.classifier import read_classifier
from seitpp.finetune.evaluate import evaluate_classifier
from seitpp.finetune.labelled import LabelledRows
from seitpp.finetune.trained import TrainedClassifier, classifiers_of, find_classifiers
from seitpp.runtime.command import run_command
from seitpp.runtime.config import StageConfig, require
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.locations import Location
from seitpp.runtime.processes import Processes
from seitpp.runtime.progress import Progress
from seitpp.runtime.results import Result, write_results
from seitpp.runtime.run_folder import open_run
from seitpp.tokenizers.kept_stores import make_kept_stores
from seitpp.tokenizers.sources.listing.left_out import sentence
from seitpp.tokenizers.sources.source import source_fingerprint
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.store import TokenStore

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True, kw_only=True)
class RobustnessConfig(StageConfig):
    """Accuracy of classifiers on corrupted images and in other domains."""

    classifiers: tuple[Location, ...]
    """runs of seitpp.finetune.train; every seed in them is measured"""
    tokenizer: Location
    """run or weights of the classifiers' tokenizer"""
    images: Location
    """the clean test images: a folder of class folders, or .tar files as for seitpp tokenize"""
    corruptions: tuple[str, ...] = ("gaussian_noise", "contrast")
    """names of ImageNet-C"""
    severities: tuple[int, ...] = (1, 3, 5)
    """1 (least) to 5; each is measured by itself"""
    domains: dict[str, Location] = field(default_factory=dict)
    """other images of the same classes: name to folder or .tar files"""
    dataset: str = "classification"
    """name of this data set and task in results"""
    stores: Location | None = None
    """folder of the token stores of all sets, which other runs of the same images, tokenizer and seed may share; None:
    stores/ in the run folder"""
    batch_size: int = 128
    """images per forward pass"""
    max_skipped: float = 0.0
    """fraction of a set's images that may fail to decode; they are listed in its store's skipped.csv"""

    def __post_init__(self):
        super().__post_init__()
        require(self, "classifiers", bool(self.classifiers), "must name at least one run")
        require(self, "severities", all(1 <= level <= 5 for level in self.severities), "must lie in 1 to 5")
        require(self, "severities", self.severities or not self.corruptions, "must not be empty with corruptions")
        for name in ("corruptions", "severities"):
            require(self, name, len(set(getattr(self, name))) == len(getattr(self, name)), "must name each once")
        for name in self.domains:
            fits = name and name == Path(name).name and name not in (CLEAN, *self.corruptions)
            require(self, "domains", fits, f"has {name!r}: choose a name without /, other than clean or a corruption's")
        require(self, "batch_size", self.batch_size >= 1, "must be at least 1")
        require(self, "max_skipped", 0 <= self.max_skipped <= 1, "must lie in [0, 1]")


def measure_robustness(config: RobustnessConfig) -> None:
    """Measure every classifier on clean images, each corruption and each domain; write results.csv."""
    accelerator = make_accelerator("no")
    processes = Processes(accelerator)
    trained_on = processes.agree(lambda: classifiers_of(config.classifiers[0])[0].tokenizer)
    tokenizer = load_tokenizer(config.tokenizer, accelerator.device, fingerprint=trained_on)
    classifiers = processes.agree(lambda: find_classifiers(config.classifiers, tokenizer.fingerprint))
    sets = processes.agree(lambda: shifted_sets(config, classifiers[0].class_names))
    data = fingerprints(classifiers, sets) if processes.is_main else {}
    run = open_run(
        config, accelerator, stage="downstream.robustness", inputs={"tokenizer": tokenizer.fingerprint}, data=data,
        may_change=("stores", "max_skipped"),
    )  # fmt: skip
    if run.finished:
        accelerator.print(f"{run.path}: finished before, nothing to do")
        return
    check_corruptions(config.corruptions, tokenizer.image_size)
    folder = Path(config.stores or run.path / "stores")
    run.begin()
    jobs = [each.job(config, folder, tokenizer) for each in sets]
    stores = make_kept_stores(jobs, folder, processes, accelerator.device)
    results = measure(classifiers, sets, stores, config, accelerator)
    if accelerator.is_main_process:
        write_results(run.path, results)
        run.finish({"results": len(results)})
        given = {each.shift: each.images.left_out for each in sets if each.severity is None}
        left_out = [each for some in given.values() for each in some]
        print(f"{run.path}: {len(classifiers)} classifiers on {len(sets)} sets of images are measured"
              f"{sentence(left_out, folder / '*' / 'skipped.csv')}")  # fmt: skip
    accelerator.end_training()


def fingerprints(classifiers: list[TrainedClassifier], sets: list[ShiftedSet]) -> dict[str, str]:
    """Of what is measured and what it is measured on: `data` of a RunFolder."""
    weights = hashlib.sha256("".join(each.weights for each in classifiers).encode()).hexdigest()
    uncorrupted = {f"domains.{each.shift}" if each.shift else "images": each for each in sets if each.severity is None}
    images = {name: source_fingerprint(each.images) for name, each in uncorrupted.items()}
    return {"classifiers": weights, **images}


def measure(
    classifiers: list[TrainedClassifier],
    sets: list[ShiftedSet],
    stores: list[TokenStore],
    config: RobustnessConfig,
    accelerator: "Accelerator",
) -> list[Result]:
    """Evaluate each classifier on each set, over all processes; one classifier is in memory at a time.

    Args:
        classifiers: from `find_classifiers`.
        sets: what to evaluate on.
        stores: of each.
        config: a RobustnessConfig.
        accelerator: accelerate.Accelerator.
    Returns: a Result a classifier, set and metric.
    """
    labelled = [
        LabelledRows(store, np.arange(len(store)), store.labels.astype(np.int64), list(store.classes))
        for store in stores
    ]
    results = []
    with Progress(len(classifiers) * len(sets), "evaluate", enabled=accelerator.is_main_process) as progress:
        for trained in classifiers:
            classifier = read_classifier(trained.folder, accelerator.device)
            for each, rows in zip(sets, labelled, strict=True):
                measured = evaluate_classifier(
                    classifier, rows, batch_size=config.batch_size, accelerator=accelerator
                )  # fmt: skip
                results += [
                    Result(
                        dataset=config.dataset, shift=each.shift, severity=each.severity, metric=metric, value=value,
                        seed=trained.seed, protocol="finetune", **trained.origin, test_images=len(rows.rows),
                        tokenizer=trained.tokenizer, run=config.output_dir,
                    )
                    for metric, value in measured
                ]  # fmt: skip
                progress.update(progress.done + 1, each.name)
    return results


def cli() -> None:
    """Run the stage from the command line."""
    run_command(measure_robustness, RobustnessConfig, recipes="robustness")


if __name__ == "__main__":
    cli()
