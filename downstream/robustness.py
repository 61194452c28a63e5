"""Fine-tuned classifiers on corrupted images and in other domains, each set tokenised into a store of its own.

    seitpp robustness --classifiers '[runs/finetune]' --images photos/test --tokenizer runs/tokenizer \
        --domains '{sketch: photos/sketch}' --output_dir runs/robustness
    accelerate launch -m seitpp.downstream.robustness …      shards and batches are divided among the processes

The stores are kept: to resume, rerun the same command. Other runs use them too where --stores names the same folder.
"""

import hashlib
import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seitpp.downstream.corruptions import check_corruptions
from seitpp.downstream.shifts import CLEAN, ShiftedSet, shifted_sets
from seitpp.finetune.classifier import DESCRIBED, read_classifier
from seitpp.finetune.evaluate import evaluate_classifier
from seitpp.finetune.labelled import LabelledRows
from seitpp.runtime.command import run_command
from seitpp.runtime.config import StageConfig, require
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.errors import UserError
from seitpp.runtime.locations import Location
from seitpp.runtime.locks import lock_folder
from seitpp.runtime.processes import Processes
from seitpp.runtime.progress import Progress
from seitpp.runtime.results import Result, write_results
from seitpp.runtime.rights import check_listable
from seitpp.runtime.run_folder import open_run
from seitpp.runtime.weights import fingerprint_of, load_weights
from seitpp.tokenizers.sources.listing.left_out import sentence
from seitpp.tokenizers.sources.source import source_fingerprint
from seitpp.tokenizers.tokenize import run_jobs
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.store import open_store

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


@dataclass(frozen=True, kw_only=True)
class TrainedClassifier:
    """What is known of a classifier before it is loaded.

    Attributes:
        folder: of its seed's run.
        seed: of its training.
        class_names: in the order of its logits.
        tokenizer: fingerprint of the tokenizer whose ids it reads.
        weights: fingerprint of its weights.
        origin: columns of its results: init, augmentation, label_fraction and train_images; those that weights of
            older versions do not name are unknown.
    """

    folder: Path
    seed: int
    class_names: list[str]
    tokenizer: str
    weights: str
    origin: dict[str, Any]


def measure_robustness(config: RobustnessConfig) -> None:
    """Measure every classifier on clean images, each corruption and each domain; write results.csv."""
    accelerator = make_accelerator("no")
    processes = Processes(accelerator)
    trained_on = processes.agree(lambda: _described(_seed_folders(config.classifiers[0])[0]).tokenizer)
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
    with _locked(folder, processes):
        run_jobs([each.job(config, folder, tokenizer) for each in sets], processes, accelerator.device)
    results = measure(classifiers, sets, folder, config, accelerator)
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


def find_classifiers(runs: tuple[str, ...], tokenizer: str) -> list[TrainedClassifier]:
    """The classifiers of some runs of seitpp.finetune.train, all seeds of each.

    Args:
        runs: their folders.
        tokenizer: fingerprint of the tokenizer that they must read.
    Raises: UserError if one is no such run, of another tokenizer, or has other classes than the first; or if results
        could not tell two apart.
    """
    found = [_described(folder) for run in runs for folder in _seed_folders(run)]
    known = {}
    for each in found:
        if each.tokenizer != tokenizer:
            raise UserError(f"{each.folder} was trained on tokens of another tokenizer ({each.tokenizer[:12]})")
        if each.class_names != found[0].class_names:
            raise UserError(f"{each.folder} knows other classes than {found[0].folder}: measure them in separate runs")
        twin = known.setdefault((each.seed, *sorted(each.origin.items())), each)
        if twin is not each:
            raise UserError(
                f"{each.folder} and {twin.folder} are of the same seed, start and augmentation: measure them in "
                "separate runs, which may share --stores"
            )
    return found


def measure(
    classifiers: list[TrainedClassifier],
    sets: list[ShiftedSet],
    folder: Path,
    config: RobustnessConfig,
    accelerator: "Accelerator",
) -> list[Result]:
    """Evaluate each classifier on each set, over all processes; one classifier is in memory at a time.

    Args:
        classifiers: from `find_classifiers`.
        sets: what to evaluate on.
        folder: of their stores.
        config: a RobustnessConfig.
        accelerator: accelerate.Accelerator.
    Returns: a Result a classifier, set and metric.
    """
    stores = [open_store(folder / each.name) for each in sets]
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


def _seed_folders(run):
    check_listable(run)
    folders = sorted(Path(run).glob("seed-*"), key=lambda folder: (len(folder.name), folder.name))
    if not folders:
        raise UserError(f"{run} is not a run of seitpp finetune (no seed-… folder in it)")
    return folders


def _described(folder):
    state, described = load_weights(folder, DESCRIBED)
    unknown = {"init": "", "augmentation": "", "label_fraction": 1.0, "budget_bytes": None, "train_images": 0}
    origin = described.get("origin") or {}
    return TrainedClassifier(
        folder=folder, seed=int(folder.name.removeprefix("seed-")), class_names=described["class_names"],
        tokenizer=described["tokenizer"], weights=fingerprint_of(state, {}),
        origin={name: origin.get(name, value) for name, value in unknown.items()},
    )  # fmt: skip


@contextmanager
def _locked(folder, processes):
    """Keep other runs from the stores while some are made; a run that finds them locked waits, and then uses them."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = processes.agree(lambda: lock_folder(folder, patience=math.inf) if processes.is_main else None)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def cli() -> None:
    """Run the stage from the command line."""
    run_command(measure_robustness, RobustnessConfig, recipes="robustness")


if __name__ == "__main__":
    cli()
