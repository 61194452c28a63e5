"""Fine-tuned classifiers under attack: FGSM and PGD on pixels, through the tokenizer by a straight-through gradient.

    seitpp adversarial --classifiers '[runs/finetune]' --images photos/test --tokenizer runs/tokenizer \
        --budgets '[1, 2, 4]' --output_dir runs/adversarial
    seitpp adversarial --config demo --max_images 200 …      by the demo's recipe, on 200 of the images
    accelerate launch -m seitpp.downstream.adversarial …     batches are divided among the processes

What is measured is no approximation: an attacked image is rounded to 8 bits, tokenised again and classified. Beside
FGSM and PGD there are random changes of the same size, as a control. To resume, rerun the same command: attacks that
are done are not run again. docs/adversarial.md says what may be concluded.
"""

import hashlib
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from seitpp.downstream.attacked_images import Tally, attack_images
from seitpp.downstream.attacks import KINDS, Attack
from seitpp.downstream.straight_through import AttackedPath
from seitpp.finetune.classifier import read_classifier
from seitpp.finetune.trained import TrainedClassifier, classifiers_of, find_classifiers
from seitpp.runtime.command import run_command
from seitpp.runtime.config import StageConfig, require, require_each_once
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.locations import Location
from seitpp.runtime.processes import Processes
from seitpp.runtime.progress import Progress
from seitpp.runtime.results import Result, write_results
from seitpp.runtime.run_folder import open_run
from seitpp.tokenizers.sources.labelled_images import open_labelled_images
from seitpp.tokenizers.sources.listing.left_out import sentence
from seitpp.tokenizers.sources.source import ImageSource, source_fingerprint
from seitpp.tokenizers.tokenizer import load_tokenizer


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig(StageConfig):
    """Accuracy of classifiers on images that are changed to mislead them."""

    classifiers: tuple[Location, ...]
    """runs of seitpp.finetune.train; every seed in them is attacked by itself"""
    tokenizer: Location
    """run or weights of the classifiers' tokenizer; a custom class needs a method latents(images)"""
    images: Location
    """the test images: a folder of class folders, or .tar files as for seitpp tokenize"""
    attacks: tuple[str, ...] = KINDS
    """random (a control, without a gradient), fgsm, pgd"""
    budgets: tuple[int, ...] = (1, 2, 4)
    """largest change of a pixel (L-infinity), in 255ths; each is measured by itself"""
    steps: int = 10
    """of PGD"""
    step_size: float = 2.5
    """of PGD, as a multiple of budget / steps"""
    restarts: int = 1
    """random starts of PGD and of the control; an image counts as classified rightly if it is after all of them"""
    temperature: float = 0.15
    """T of the gradient's weights, softmax(-distance² / T), in units of the median squared distance of a code to its
    nearest other. The default did best on the demo's classifiers (docs/adversarial.md): try others on yours"""
    neighbours: int = 32
    """nearest codes of a token that have a weight; with all codes of a large codebook, memory would grow with it"""
    max_images: int | None = None
    """attack so many of the images, at even distances; None: all"""
    dataset: str = "classification"
    """name of this data set and task in results"""
    batch_size: int = 32
    """images per forward and backward pass"""
    max_skipped: float = 0.0
    """fraction of the images that may fail to decode"""

    def __post_init__(self):
        super().__post_init__()
        require(self, "classifiers", bool(self.classifiers), "must name at least one run")
        require_each_once(self, "attacks", "budgets")
        for kind in self.attacks:
            require(self, "attacks", kind in KINDS, f"has {kind!r}; there are: {', '.join(KINDS)}")
        require(self, "budgets", all(0 <= each <= 255 for each in self.budgets), "must lie in 0 to 255")
        for name in ("steps", "restarts", "neighbours", "batch_size"):
            require(self, name, getattr(self, name) >= 1, "must be at least 1")
        for name in ("step_size", "temperature"):
            require(self, name, getattr(self, name) > 0, "must be above 0")
        require(self, "max_images", self.max_images is None or self.max_images >= 1, "must be at least 1")
        require(self, "max_skipped", 0 <= self.max_skipped <= 1, "must lie in [0, 1]")

    @property
    def all_attacks(self) -> tuple[Attack | None, ...]:
        """None, which is the clean images, and each attack at each budget."""
        how = {"steps": self.steps, "step_size": self.step_size, "restarts": self.restarts}
        return None, *(Attack(kind=kind, budget=each, **how) for kind in self.attacks for each in self.budgets)


def measure_adversarial(config: AdversarialConfig) -> None:
    """Attack every classifier with every attack at every budget; write results.csv."""
    accelerator = make_accelerator("no")
    processes = Processes(accelerator)
    trained_on = processes.agree(lambda: classifiers_of(config.classifiers[0])[0].tokenizer)
    tokenizer = processes.agree(
        lambda: load_tokenizer(config.tokenizer, accelerator.device, fingerprint=trained_on)
    )  # fmt: skip
    classifiers = processes.agree(lambda: find_classifiers(config.classifiers, tokenizer.fingerprint))
    images = processes.agree(lambda: open_labelled_images(config.images, classifiers[0].class_names))
    data = fingerprints(classifiers, images) if processes.is_main else {}
    run = open_run(
        config, accelerator, stage="downstream.adversarial", inputs={"tokenizer": tokenizer.fingerprint}, data=data,
        may_change=("max_skipped",),
    )  # fmt: skip
    if run.finished:
        accelerator.print(f"{run.path}: finished before, nothing to do")
        return
    loaded = classifiers[0]  # one is in memory at a time
    path = processes.agree(lambda: path_to(loaded, tokenizer, config))  # what can't be attacked is said here
    run.begin()
    rows = evenly_chosen(len(images), config.max_images)
    cells = [(each, attack) for each in classifiers for attack in config.all_attacks]
    known = processes.from_main(lambda: {each["step"]: Tally.of(each) for each in run.metrics()})
    with Progress(len(cells) * len(rows), "attack", enabled=processes.is_main) as progress:
        for step, (each, attack) in enumerate(cells):
            if step not in known:
                if loaded is not each:
                    path, loaded = processes.agree(partial(path_to, each, tokenizer, config)), each
                known[step] = attack_images(
                    path, attack, images, rows, seed=config.seed, batch_size=config.batch_size,
                    max_skipped=config.max_skipped, accelerator=accelerator, processes=processes, progress=progress,
                )  # fmt: skip
                run.log({"step": step, **known[step].record})
            progress.update((step + 1) * len(rows), attack.name if attack else "clean")
    if processes.is_main:
        results = [each for step, cell in enumerate(cells) for each in results_of(*cell, known[step], config)]
        write_results(run.path, results)
        run.finish({"results": len(results)})
        counted = f"{len(classifiers)} classifier{'s' * (len(classifiers) > 1)}"
        print(f"{run.path}: {counted} under {len(config.all_attacks) - 1} attacks on {len(rows)} "
              f"images are measured{sentence(images.left_out)}")  # fmt: skip
    accelerator.end_training()


def fingerprints(classifiers: list[TrainedClassifier], images: ImageSource) -> dict[str, str]:
    """Of what is attacked: `data` of a RunFolder."""
    weights = hashlib.sha256("".join(each.weights for each in classifiers).encode()).hexdigest()
    return {"classifiers": weights, "images": source_fingerprint(images)}


def evenly_chosen(count: int, wanted: int | None) -> np.ndarray:
    """Which of `count` images are attacked, (n,) int64 rising: all, or so many at even distances."""
    if wanted is None or wanted >= count:
        return np.arange(count)
    return np.arange(wanted) * count // wanted


def path_to(trained: TrainedClassifier, tokenizer: Any, config: AdversarialConfig) -> AttackedPath:
    """From pixels to the logits of a trained classifier, on the tokenizer's device."""
    classifier = read_classifier(trained.folder, tokenizer.codebook.device)
    return AttackedPath(tokenizer, classifier, temperature=config.temperature, neighbours=config.neighbours)


def results_of(
    trained: TrainedClassifier, attack: Attack | None, tally: Tally, config: AdversarialConfig
) -> list[Result]:
    """Results of one classifier under one attack; clean images have no changed tokens to count."""
    measures = tally.measures if attack else {"accuracy": tally.measures["accuracy"]}
    return [
        Result(
            dataset=config.dataset, shift=attack.name if attack else "", metric=metric, value=value, seed=trained.seed,
            protocol="finetune", **trained.origin, test_images=tally.images, tokenizer=trained.tokenizer,
            run=config.output_dir,
        )
        for metric, value in measures.items()
    ]  # fmt: skip


def cli() -> None:
    """Run the stage from the command line."""
    run_command(measure_adversarial, AdversarialConfig, recipes="adversarial")


if __name__ == "__main__":
    cli()
