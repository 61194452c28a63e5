"""Measure a classifier on a labelled token store, or on images, which are tokenised first.

    seitpp evaluate --classifier runs/finetune --store stores/test --output_dir runs/evaluate
    seitpp evaluate --classifier runs/finetune --images imagenet/val --tokenizer runs/tokenizer --output_dir …
    seitpp evaluate --images val --ground_truth ILSVRC2012_validation_ground_truth.txt --tokenizer runs/tokenizer …
    accelerate launch -m seitpp.finetune.evaluation --store stores/test …      batches are divided among the processes

Images lie in a folder a class, named or numbered, or in one folder with a file that holds their classes. Their tokens
are kept in a store, which later runs of the same images and tokenizer use where --stores names the same folder.

The run folder gets results.csv and, of each seed of the classifier's run, per_class.csv, confusion.csv and .png, and
the worst mistakes as worst.csv and .png; of several seeds, in a folder a seed.
"""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from seitpp.finetune.answers import Answers, collect_answers
from seitpp.finetune.classifier import read_classifier
from seitpp.finetune.evaluation_files import write_details
from seitpp.finetune.labelled import LabelledRows, open_labelled, say_of_table
from seitpp.finetune.load import load_tokenizer_of
from seitpp.finetune.metrics import measures
from seitpp.finetune.trained import TrainedClassifier, classifiers_of
from seitpp.runtime.command import run_command
from seitpp.runtime.config import StageConfig, require
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.errors import UserError
from seitpp.runtime.locations import Location
from seitpp.runtime.processes import Processes
from seitpp.runtime.progress import Progress
from seitpp.runtime.results import Result, write_results
from seitpp.runtime.run_folder import open_run
from seitpp.tokenizers.kept_stores import kept_fingerprint, kept_job, make_kept_stores
from seitpp.tokenizers.sources.class_order import match_classes
from seitpp.tokenizers.sources.label_table import read_label_table
from seitpp.tokenizers.sources.labelled_images import open_labelled_images
from seitpp.tokens.reading import ReadsLabels
from seitpp.tokens.remote import CacheConfig

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(StageConfig, ReadsLabels):
    """Measure a classifier on a labelled token store or on images."""

    classifier: Location
    """run of seitpp.finetune.train (every seed in it is measured), one seed's folder, or weights/"""
    store: Location | None = None
    """token store to measure on; or give --images"""
    cache: CacheConfig = field(default_factory=CacheConfig)
    """how a store behind a URL is read"""
    labels: Location | None = None
    """with --store: CSV with columns key,label instead of its own labels"""
    images: Location | None = None
    """images to measure on: a folder of class folders, one flat folder (with --ground_truth), or what seitpp tokenize
    takes; they are tokenised into a store that is kept"""
    class_level: int = 0
    """which of the folders above an image of --images is its class: 0 the first, -1 the last"""
    tokenizer: Location | None = None
    """run or weights of the classifier's tokenizer: needed for images, and with --store to draw the worst mistakes"""
    ground_truth: Location | None = None
    """classes of images in one flat folder: a text file with a line an image, in the order of sorted file names, that
    is a number from 1 or a class name; or .csv with columns file,label"""
    class_list: Location | None = None
    """what the numbers in --ground_truth mean: a text file with a class name a line, or ImageNet's meta.mat. None: a
    meta.mat beside it; else they count the classifier's classes"""
    first_class: int | None = None
    """number of the first class, where classes are numbers. None: 1 in a text file of ground truth; of folders and
    tables, all of the classes sorted as numbers, else 0 or 1, whichever is among them"""
    stores: Location | None = None
    """folder of the stores that are made of images, which other runs may share; None: stores/ in the run folder"""
    dataset: str = "classification"
    """name of this data set and task in results"""
    batch_size: int = 128
    """images per forward pass"""
    mixed_precision: Literal["auto", "no", "bf16"] = "auto"
    """precision of the classifier's pass, as in a training; auto: bf16 on a GPU"""
    max_skipped: float = 0.0
    """fraction of images that may fail to decode; they are listed in the store's skipped.csv"""
    worst: int = 32
    """mistakes to show, those of the highest loss; 0: none"""

    def __post_init__(self):
        super().__post_init__()
        one = (self.store is None) != (self.images is None)
        require(self, "store", one, "but one of --store and --images is needed")
        require(self, "tokenizer", self.images is None or self.tokenizer, "is needed for --images: the classifier's")
        for name in ("ground_truth", "class_list", "stores"):
            require(self, name, self.images or getattr(self, name) is None, "is for --images")
        require(self, "class_list", self.ground_truth or self.class_list is None, "is for --ground_truth")
        require(self, "labels", self.store or self.labels is None, "is for --store: images have --ground_truth")
        require(self, "first_class", self.first_class in (None, 0, 1), "must be 0 or 1")
        require(self, "batch_size", self.batch_size >= 1, "must be at least 1")
        require(self, "max_skipped", 0 <= self.max_skipped <= 1, "must lie in [0, 1]")
        require(self, "worst", self.worst >= 0, "must be at least 0")


def evaluate(config: EvaluateConfig) -> None:
    """Tokenise what is missing, measure each seed's classifier, write results and tables."""
    accelerator = make_accelerator(config.mixed_precision)
    processes = Processes(accelerator)
    classifiers = processes.agree(lambda: classifiers_of(config.classifier))
    tokenizer = processes.agree(lambda: _tokenizer(config, classifiers[0], accelerator.device))
    known = classifiers[0].class_names
    images = labelled = None
    if config.images is not None:
        images = processes.agree(lambda: _images(config, known))
        data = {"images": kept_fingerprint(images, tokenizer)}
    else:
        labelled = processes.agree(lambda: _stored(config, classifiers[0]))
        data = {"store": labelled.store.fingerprint, "labels": _sha256(labelled.labels.astype("<i8").tobytes())}
    weights = _sha256("".join(each.weights for each in classifiers).encode())
    run = open_run(
        config, accelerator, stage="finetune.evaluation", inputs={"tokenizer": classifiers[0].tokenizer},
        data={"classifiers": weights, **data}, may_change=("stores", "max_skipped"),
    )  # fmt: skip
    if run.finished:
        accelerator.print(f"{run.path}: finished before, nothing to do")
        return
    run.begin()
    if images is not None:
        folder = Path(config.stores or run.path / "stores")
        job = kept_job(config, folder / data["images"][:16], images, tokenizer)
        (store,) = make_kept_stores([job], folder, processes, accelerator.device)
        labelled = LabelledRows(store, np.arange(len(store)), store.labels.astype(np.int64), known)
        if len(store) < len(images):
            left_out = len(images) - len(store)
            accelerator.print(f"{left_out} of {len(images)} images can't be decoded: {store.folder}/skipped.csv")
    assert labelled is not None
    results = []
    for each in classifiers:
        answers = answers_of(each, labelled, config, accelerator)
        if accelerator.is_main_process:
            measured = dict(measures(answers, config.seed))
            results += _results(each, measured, len(answers), config)
            folder = run.path if len(classifiers) == 1 else run.path / f"seed-{each.seed}"
            write_details(folder, answers, labelled, worst=config.worst, images=images, tokenizer=tokenizer)
            print(_line(config.dataset, each, measured, len(answers)))
    if accelerator.is_main_process:
        write_results(run.path, results)
        run.finish({"results": len(results), "images": len(labelled.rows)})
    accelerator.end_training()


def answers_of(
    trained: TrainedClassifier, labelled: LabelledRows, config: EvaluateConfig, accelerator: "Accelerator"
) -> Answers:
    """Classify labelled rows over all processes; called on all of them.

    Raises: UserError if an answer is not finite.
    """
    classifier = read_classifier(trained.folder, accelerator.device)
    with Progress(len(labelled.rows), "evaluate", enabled=accelerator.is_main_process) as progress:
        answers = collect_answers(
            classifier, labelled, batch_size=config.batch_size, accelerator=accelerator, progress=progress
        )
    broken = np.flatnonzero(~np.isfinite(answers.loss) | ~np.isfinite(answers.confidence))
    if len(broken):
        row = int(labelled.rows[broken[0]])
        raise UserError(
            f"{trained.folder} answers nothing finite to {len(broken)} of {len(answers)} rows (first: "
            f"{labelled.store.keys(range(row, row + 1))[0]}): its training diverged, or try --mixed_precision no"
        )
    return answers


def _tokenizer(config, trained, device):
    return config.tokenizer and load_tokenizer_of(trained.tokenizer, config.tokenizer, device)


def _images(config, known):
    return open_labelled_images(
        config.images, known, ground_truth=config.ground_truth, class_list=config.class_list,
        first_class=config.first_class, class_level=config.class_level,
    )  # fmt: skip


def _stored(config, trained):
    """The labelled rows of a store, their classes numbered as the classifier numbers them."""
    table = None if config.labels is None else read_label_table(config)
    labelled = open_labelled(config.store, table, cache=config.cache, fingerprint=trained.tokenizer or None)
    if table is not None and labelled.in_table is not None:
        say_of_table(table, labelled.in_table, config.store)
    match = match_classes(
        labelled.classes, trained.class_names, config.labels or config.store, used=np.unique(labelled.targets),
        first=config.first_class,
    )  # fmt: skip
    return replace(labelled, labels=np.append(match, -1)[labelled.labels], classes=trained.class_names)


def _results(trained, measured, images, config):
    return [
        Result(
            dataset=config.dataset, metric=metric, value=value, seed=trained.seed, protocol="finetune",
            **trained.origin, test_images=images, tokenizer=trained.tokenizer, run=config.output_dir,
        )
        for metric, value in measured.items()
    ]  # fmt: skip


def _line(dataset, trained, measured, images):
    """What a classifier reaches, in one line."""
    interval = f"{measured['accuracy_low']:.3f} to {measured['accuracy_high']:.3f}"
    return (
        f"{dataset}, seed {trained.seed}: accuracy {measured['accuracy']:.3f} (95 %: {interval}), top-5 "
        f"{measured['top5']:.3f}, mean per class {measured['mean_per_class']:.3f}, calibration error "
        f"{measured['ece']:.3f}, on {images} images"
    )


def _sha256(content):
    return hashlib.sha256(content).hexdigest()


def cli() -> None:
    """Run the stage from the command line."""
    run_command(evaluate, EvaluateConfig, recipes="evaluate")


if __name__ == "__main__":
    cli()
