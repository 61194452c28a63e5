"""Classifiers on corrupted images, in other domains and on benchmarks, each set tokenised into a store of its own.

    seitpp robustness --classifiers '[runs/finetune]' --images photos/test --tokenizer runs/tokenizer \
        --domains '{sketch: photos/sketch}' --output_dir runs/robustness
    seitpp robustness --classifiers '[runs/finetune]' --images imagenet/val --tokenizer runs/tokenizer \
        --corruptions '[]' --benchmarks '{imagenet-a: imagenet-a, imagenet-c: imagenet-c}' --output_dir runs/robustness
    accelerate launch -m seitpp.downstream.robustness …      shards and batches are divided among the processes

The stores are kept: to resume, rerun the same command. Other runs use them too where --stores names the same folder.

The run folder gets results.csv, a row a measured number, and robustness.csv, a row a classifier and a column a set.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from seitpp.downstream.corruptions import check_corruptions
from seitpp.downstream.imagenet.imagenet_classes import is_whole
from seitpp.downstream.imagenet.known import BENCHMARKS
from seitpp.downstream.robustness_table import corruption_results, wide_table
from seitpp.downstream.set_answers import HeldClassifiers, Judged, answers_of_stores, judge
from seitpp.downstream.shifts import CLEAN, ShiftedSet, set_fingerprints, shifted_sets
from seitpp.finetune.trained import TrainedClassifier, classifiers_of, find_classifiers
from seitpp.runtime.command import run_command
from seitpp.runtime.config import StageConfig, require
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.files import replacing
from seitpp.runtime.locations import Location
from seitpp.runtime.processes import Processes
from seitpp.runtime.progress import Progress
from seitpp.runtime.results import Result, write_results
from seitpp.runtime.run_folder import open_run
from seitpp.tokenizers.kept_stores import make_kept_stores
from seitpp.tokenizers.sources.listing.left_out import LeftOut, sentence
from seitpp.tokenizers.tokenizer import Tokenizer, load_tokenizer
from seitpp.tokens.store import TokenStore

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True, kw_only=True)
class RobustnessConfig(StageConfig):
    """Accuracy of classifiers on corrupted images, in other domains and on benchmarks."""

    classifiers: tuple[Location, ...]
    """runs of seitpp.finetune.train; every seed in them is measured"""
    tokenizer: Location
    """run or weights of the classifiers' tokenizer"""
    images: Location
    """the clean test images: a folder of class folders, or .tar files as for seitpp tokenize; one flat folder with
    --ground_truth"""
    ground_truth: Location | None = None
    """classes of clean images in one flat folder, as for seitpp evaluate"""
    class_list: Location | None = None
    """what the numbers in --ground_truth mean, as for seitpp evaluate"""
    corruptions: tuple[str, ...] = ("gaussian_noise", "contrast")
    """names of ImageNet-C, made of the clean images"""
    severities: tuple[int, ...] = (1, 3, 5)
    """1 (least) to 5; each is measured by itself"""
    domains: dict[str, Location] = field(default_factory=dict)
    """other images of the same classes: name to folder or .tar files"""
    benchmarks: dict[str, Location] = field(default_factory=dict)
    """published test sets of ImageNet's classes: name to folder as its authors give it out. There are imagenet-a,
    imagenet-r, imagenet-sketch, imagenet-v2, imagenet-v2-threshold, imagenet-v2-top, objectnet, imagenet-c and
    imagenet-real (the file real.json, or timm; --images are ImageNet's validation set)"""
    noise_stds: tuple[float, ...] = ()
    """Gaussian noise on the clean images: standard deviations, where pixels lie in [0, 1]"""
    blur_sigmas: tuple[float, ...] = ()
    """Gaussian blur of the clean images: standard deviations in pixels of the tokenizer's size"""
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
        for name in ("corruptions", "severities", "noise_stds", "blur_sigmas"):
            require(self, name, len(set(getattr(self, name))) == len(getattr(self, name)), "must name each once")
        for name in ("noise_stds", "blur_sigmas"):
            require(self, name, all(each >= 0 for each in getattr(self, name)), "must be at least 0")
        for name in self.domains:
            fits = name and name == Path(name).name and name not in (CLEAN, *self.corruptions, *BENCHMARKS)
            demand = f"has {name!r}: choose a name without /, other than clean, a corruption's or a benchmark's"
            require(self, "domains", fits, demand)
        for name in self.benchmarks:
            require(self, "benchmarks", name in BENCHMARKS, f"has {name!r}; there are: {', '.join(BENCHMARKS)}")
        require(self, "class_list", self.ground_truth or self.class_list is None, "is for --ground_truth")
        require(self, "batch_size", self.batch_size >= 1, "must be at least 1")
        require(self, "max_skipped", 0 <= self.max_skipped <= 1, "must lie in [0, 1]")


def measure_robustness(config: RobustnessConfig) -> None:
    """Measure every classifier on every set of images; write results.csv and robustness.csv."""
    accelerator = make_accelerator("no")
    processes = Processes(accelerator)
    trained_on = processes.agree(lambda: classifiers_of(config.classifiers[0])[0].tokenizer)
    tokenizer = load_tokenizer(config.tokenizer, accelerator.device, fingerprint=trained_on)
    classifiers = processes.agree(lambda: find_classifiers(config.classifiers, tokenizer.fingerprint))
    sets = processes.agree(lambda: shifted_sets(config, classifiers[0].class_names))
    data = fingerprints(classifiers, sets, config) if processes.is_main else {}
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
    judged: dict[tuple[int, int], Judged] = {}
    held, left_out = HeldClassifiers(accelerator), []
    for group in in_groups(sets, processes.count):
        stores, more = make_stores(group, config, folder, tokenizer, processes)
        left_out += more
        judged |= measure(classifiers, sets, stores, held, config, accelerator, done=len(judged))
    if accelerator.is_main_process:
        results = results_of(judged, classifiers, sets, config)
        results += corruption_results(results, of_imagenet=is_whole(classifiers[0].class_names))
        write_results(run.path, results)
        with replacing(run.path / "robustness.csv") as temporary:
            wide_table(results).to_csv(temporary, index=False)
        run.finish({"results": len(results)})
        print(f"{run.path}: {len(classifiers)} classifiers on {len(sets)} sets of images are measured"
              f"{sentence(left_out, folder / '*' / 'skipped.csv')}")  # fmt: skip
    accelerator.end_training()


def fingerprints(
    classifiers: list[TrainedClassifier], sets: list[ShiftedSet], config: RobustnessConfig
) -> dict[str, str]:
    """Of what is measured and what it is measured on: `data` of a RunFolder."""
    weights = hashlib.sha256("".join(each.weights for each in classifiers).encode()).hexdigest()
    return {"classifiers": weights, **set_fingerprints(sets, config)}


def in_groups(sets: list[ShiftedSet], count: int) -> Iterator[list[ShiftedSet]]:
    """Sets whose stores are made together, and then measured: as many stores as there are processes.

    So each process has one to make, and no store waits for all the others before it is classified.
    """
    names = list(dict.fromkeys(each.store or each.name for each in sets))
    for start in range(0, len(names), count):
        chosen = names[start : start + count]
        yield [each for each in sets if (each.store or each.name) in chosen]


def make_stores(
    group: list[ShiftedSet], config: RobustnessConfig, folder: Path, tokenizer: Tokenizer, processes: Processes
) -> tuple[dict[str, TokenStore], list[LeftOut]]:
    """Make what is missing of the stores of some sets, over all processes.

    Args:
        group: of sets; each store is made once.
        config: a RobustnessConfig.
        folder: of all stores.
        tokenizer: a Tokenizer on its device.
        processes: the launch's.
    Returns: (the store of each set, by the set's name; what its sources left out, those of clean images once).
    Raises: UserError if a folder holds a store of other input, or too many images can't be decoded.
    """
    owners = {each.name: each for each in group if not each.store}
    jobs = processes.agree(lambda: {name: each.job(config, folder, tokenizer) for name, each in owners.items()})
    made = make_kept_stores(list(jobs.values()), folder, processes, tokenizer.codebook.device)
    stores = dict(zip(jobs, made, strict=True))
    left_out = []
    for name, each in owners.items():
        images = jobs[name].images
        left_out += images.left_out if each.given else []
        if processes.is_main and each.complete and len(images) != each.complete:
            print(f"{each.name}: {len(images):,} images, its authors give out {each.complete:,}")
    return {each.name: stores[each.store or each.name] for each in group}, left_out


def measure(
    classifiers: list[TrainedClassifier],
    sets: list[ShiftedSet],
    stores: dict[str, TokenStore],
    held: HeldClassifiers,
    config: RobustnessConfig,
    accelerator: "Accelerator",
    *,
    done: int = 0,
) -> dict[tuple[int, int], Judged]:
    """Evaluate each classifier on the sets that have a store, over all processes.

    Args:
        classifiers: from `find_classifiers`.
        sets: all of the run.
        stores: of some, by their names.
        held: reads classifiers.
        config: a RobustnessConfig.
        accelerator: accelerate.Accelerator.
        done: evaluations before these, for the display.
    Returns: what was reached, by the places of classifier and set.
    """
    places = [place for place, each in enumerate(sets) if each.name in stores]
    read = [(stores[sets[place].name], sets[place].classes) for place in places]
    judged = {}
    total = len(classifiers) * len(sets)
    with Progress(total, "evaluate", enabled=accelerator.is_main_process, start=done) as progress:
        for number, trained in enumerate(classifiers):
            answered = answers_of_stores(held(trained), read, batch_size=config.batch_size, accelerator=accelerator)
            for place, answers in zip(places, answered, strict=True):
                truths = sets[place].truths
                keys = stores[sets[place].name].keys() if truths else []
                judged[number, place] = judge(answers, keys, truths)
                progress.update(done + len(judged), sets[place].name)
    return judged


def results_of(
    judged: dict[tuple[int, int], Judged],
    classifiers: list[TrainedClassifier],
    sets: list[ShiftedSet],
    config: RobustnessConfig,
) -> list[Result]:
    """Rows of what was reached, classifier by classifier."""
    return [
        Result(
            dataset=config.dataset, shift=sets[place].shift, severity=sets[place].severity, metric=metric, value=value,
            seed=classifiers[number].seed, protocol="finetune", **classifiers[number].origin, test_images=each.images,
            tokenizer=classifiers[number].tokenizer, run=config.output_dir,
        )
        for (number, place), each in sorted(judged.items())
        for metric, value in each.measures
    ]  # fmt: skip


def cli() -> None:
    """Run the stage from the command line."""
    run_command(measure_robustness, RobustnessConfig, recipes="robustness")


if __name__ == "__main__":
    cli()
