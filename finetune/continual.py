"""Learn classes task after task, with a memory of few bytes: class-incremental learning on a store (SeiT, section 5).

    seitpp continual --store stores/train --eval_store stores/test --methods '[naive, tokens]' --output_dir runs/tokens
    seitpp continual … --tasks 20 --memory 500kB --images photos/train --tokenizer runs/tokenizer --output_dir runs/all

The classes come in an order that the seed draws, in equal parts. One classifier, with a head for all classes, is
trained on each task in turn, on the task's rows and on what its memory replays of earlier ones; nothing tells it which
task an image is of. `--epochs`, `--steps` and the schedule are those of each task. Side by side, at the same bytes:

    naive    no memory
    jpeg     JPEGs of images at the tokenizer's size; how many fit is measured. They are trained on as tokens, too
    tokens   packed token rows

A row counts whole: its tokens or its JPEG, and its label. Which rows are kept: seitpp.finetune.replay.
"""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from seitpp.finetune.classifier import read_classifier
from seitpp.finetune.evaluate import evaluate_classifier
from seitpp.finetune.labelled import LabelledRows, fingerprints, open_train_and_test, row_counts
from seitpp.finetune.replay import JpegMemory, Memory, TokenMemory
from seitpp.finetune.start import origin_of
from seitpp.finetune.tasks import average_accuracy, divide_classes, forgetting, open_task, rows_of, write_task
from seitpp.finetune.train import FinetuneConfig, fit_classifier
from seitpp.runtime.charts import Line, line_chart, write_chart
from seitpp.runtime.command import run_command
from seitpp.runtime.config import require
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.errors import UserError
from seitpp.runtime.locations import Location
from seitpp.runtime.processes import Processes
from seitpp.runtime.results import Result, write_results
from seitpp.runtime.run_folder import open_run
from seitpp.tokenizers.sources.selected import images_of_keys
from seitpp.tokenizers.sources.source import open_source
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.subset import parse_bytes, rank_rows
from seitpp.training.rehearsal import place_for

if TYPE_CHECKING:
    from accelerate import Accelerator

Method = Literal["naive", "jpeg", "tokens"]
COLOURS = {"naive": "baseline", "jpeg": "other", "tokens": "mtm"}


@dataclass(frozen=True, kw_only=True)
class ContinualConfig(FinetuneConfig):
    """Learn classes task after task, with a memory that is limited in bytes."""

    tasks: int = 10
    """parts that the classes are divided into"""
    memory: str = "1MB"
    """bytes that may be kept of earlier tasks, such as 500kB or 1MB (10^3 and 10^6 bytes), or 0"""
    methods: tuple[Method, ...] = ("naive", "jpeg", "tokens")
    """what is compared: naive (no memory), jpeg and tokens (what the memory holds)"""
    images: Location | None = None
    """what `store` was made of, as for seitpp tokenize; needed for jpeg"""
    tokenizer: Location | None = None
    """the store's tokenizer; needed for jpeg"""
    jpeg_quality: int = 75
    """of the JPEGs, 1 to 95"""

    @property
    def trainings(self) -> int:
        """One for each task, of each method and seed."""
        return self.tasks * len(self.methods) * self.seeds

    def __post_init__(self):
        super().__post_init__()
        require(self, "tasks", self.tasks >= 2, "must be at least 2")
        require(self, "methods", self.methods and len(set(self.methods)) == len(self.methods), "must name each once")
        require(self, "jpeg_quality", 1 <= self.jpeg_quality <= 95, "must lie in [1, 95]")
        require(self, "blr_candidates", not self.blr_candidates, "is for seitpp finetune: give --blr")
        if "jpeg" in self.methods and not (self.images and self.tokenizer):
            raise UserError("jpeg needs --images and --tokenizer; or leave it out: --methods '[naive, tokens]'")
        memory_bytes(self)


def memory_bytes(config: ContinualConfig) -> int:
    """Bytes that may be kept."""
    return 0 if config.memory.strip() in ("0", "0B") else parse_bytes(config.memory)


@dataclass(frozen=True, kw_only=True)
class Course:
    """How the tasks went, of one method and seed.

    Attributes:
        accuracy: after each task, on each task up to it.
        kept: rows in the memory after each task.
        bytes: that they took.
    """

    accuracy: list[list[float]]
    kept: list[int]
    bytes: list[int]


def continual(config: ContinualConfig) -> None:
    """Train every method and seed through all tasks, write results.csv and curve.svg."""
    accelerator = make_accelerator(config.mixed_precision)
    train_set, test_set = open_train_and_test(config)
    _check(config, train_set, test_set)
    run = open_run(config, accelerator, stage="finetune.continual", **fingerprints(train_set, test_set))
    if run.finished:
        accelerator.print(f"{run.path}: finished before, nothing to do")
        return
    courses: dict[Method, list[Course]] = {}
    for method in config.methods:
        for seed in range(config.seed, config.seed + config.seeds):
            each = replace(config, seed=seed, output_dir=str(run.path / f"seed-{seed}" / method))
            course = learn(each, method, train_set, test_set, accelerator)
            courses.setdefault(method, []).append(course)
    run.begin()
    if accelerator.is_main_process:
        write_results(run.path, _results(config, courses, train_set, test_set))
        _draw(config, courses, run.path / "curve.svg")
        run.finish({name: [vars(course) for course in each] for name, each in courses.items()})
        for name, each in courses.items():
            print(_line(config, name, each))
    accelerator.end_training()


def learn(
    config: ContinualConfig, method: Method, train_set: LabelledRows, test_set: LabelledRows,
    accelerator: "Accelerator",
) -> Course:  # fmt: skip
    """Train one classifier on all tasks, one after the other.

    Args:
        config: a ContinualConfig; its `output_dir` gets a run folder for each task.
        method: what the memory holds.
        train_set: LabelledRows to learn from.
        test_set: LabelledRows to measure on.
        accelerator: accelerate.Accelerator.
    """
    tasks = divide_classes(len(train_set.classes), config.tasks, seed=config.seed)
    memory = _memory(config, method, train_set, accelerator.device)
    ranked = rank_rows(train_set.rows, train_set.targets, seed=config.seed)
    folder, course, weights = Path(config.output_dir), Course(accuracy=[], kept=[], bytes=[]), config.weights
    with place_for(folder, config, Processes(accelerator)) as place:
        store = place / ".seitpp-task"  # a name that nobody else uses: it is replaced and removed
        for number, classes in enumerate(tasks, start=1):
            if accelerator.is_main_process:
                write_task(store, train_set, rows_of(train_set, classes), memory)
            accelerator.wait_for_everyone()
            seen = np.concatenate(tasks[:number])
            each = replace(config, weights=weights, output_dir=str(folder / f"task-{number:02d}"))
            title = f"{method}, task {number} of {len(tasks)}, seed {config.seed}"
            fit_classifier(each, open_task(store), test_set.part(rows_of(test_set, seen)), title=title)
            weights = each.output_dir
            course.accuracy.append(_accuracy(config, weights, test_set, tasks[:number], accelerator))
            if accelerator.is_main_process:
                memory.keep(ranked[np.isin(train_set.labels[ranked], seen)])
            course.kept.append(len(memory.rows))
            course.bytes.append(memory.bytes)
        if accelerator.is_main_process:
            shutil.rmtree(store)
    return course


def _accuracy(config, weights, test_set, tasks, accelerator) -> list[float]:
    """Accuracy on each of the tasks."""
    classifier = read_classifier(weights, accelerator.device)
    return [
        dict(
            evaluate_classifier(
                classifier, test_set.part(rows_of(test_set, classes)), batch_size=config.batch_size,
                accelerator=accelerator,
            )
        )["accuracy"]
        for classes in tasks
    ]  # fmt: skip


def _memory(
    config: ContinualConfig, method: Method, train_set: LabelledRows, device: torch.device | str = "cpu"
) -> Memory:
    store = train_set.store
    if method == "jpeg":
        tokenizer = load_tokenizer(str(config.tokenizer), device)
        store.check_tokenizer(tokenizer.fingerprint, str(config.tokenizer))
        images = images_of_keys(
            open_source(str(config.images)), store.keys(), where=str(config.images), store=store.folder
        )
        return JpegMemory(memory_bytes(config), images, tokenizer, quality=config.jpeg_quality)
    return TokenMemory(0 if method == "naive" else memory_bytes(config), store)


def _check(config: ContinualConfig, train_set: LabelledRows, test_set: LabelledRows) -> None:
    """Refuse what would fail after the first tasks are trained."""
    if not isinstance(train_set.labels, np.ndarray):
        raise UserError(f"{config.store}: continual learning needs one label a row: leave --multi_label out")
    divide_classes(len(train_set.classes), config.tasks, seed=config.seed)
    for labelled, store in ((train_set, config.store), (test_set, config.eval_store)):
        rows = np.bincount(labelled.targets, minlength=len(labelled.classes))
        if not rows.all():
            raise UserError(
                f"{store} has no rows of class {labelled.classes[int(rows.argmin())]}: every task needs some of each"
            )
    for method in config.methods:
        _memory(config, method, train_set)


def _results(config, courses, train_set, test_set) -> list[Result]:
    """Average accuracy after each task and forgetting from the second on; `split` says on which tasks."""
    results = []
    for method, each in courses.items():
        for seed, course in enumerate(each, start=config.seed):
            tasks = divide_classes(len(train_set.classes), config.tasks, seed=seed)
            measures = {
                "average_accuracy": average_accuracy(course.accuracy),
                "forgetting": forgetting(course.accuracy),
            }
            for metric, values in measures.items():
                for number, value in enumerate(values, start=1 + len(tasks) - len(values)):
                    seen = np.concatenate(tasks[:number])
                    counts: dict[str, Any] = {
                        **row_counts(train_set, test_set),
                        "train_images": len(rows_of(train_set, seen)),
                        "test_images": len(rows_of(test_set, seen)),
                        "budget_bytes": 0 if method == "naive" else memory_bytes(config),
                    }
                    results.append(
                        Result(
                            dataset=config.dataset, split=f"tasks-1-to-{number}", metric=metric, value=value, seed=seed,
                            protocol=f"continual-{method}", run=config.output_dir, **counts,
                            **origin_of(config.weights),
                        )
                    )  # fmt: skip
    return results


def _draw(config: ContinualConfig, courses: dict[Method, list[Course]], path: Path) -> None:
    """Average accuracy over tasks, mean over seeds, a line a method."""
    lines = [
        Line(label=method, colour=COLOURS[method], marked=True, points=list(enumerate(100 * _mean(each), start=1)))
        for method, each in courses.items()
    ]
    chart = line_chart(
        lines, title=f"Accuracy on all tasks so far, memory {config.memory}", x_label="tasks learned",
        y_label=f"accuracy on all tasks so far, % (memory {config.memory})",
    )  # fmt: skip
    write_chart(path, chart)


def _mean(courses: list[Course]) -> np.ndarray:
    """Average accuracy after each task, mean over seeds, (tasks,)."""
    return np.mean([average_accuracy(course.accuracy) for course in courses], axis=0)


def _line(config: ContinualConfig, method: Method, courses: list[Course]) -> str:
    lost = np.mean([forgetting(course.accuracy)[-1] for course in courses])
    kept, size = courses[0].kept[-1], courses[0].bytes[-1]
    memory = "no memory" if method == "naive" else f"{kept} rows in {size} bytes"
    return f"{config.dataset}, {method}: average accuracy {_mean(courses)[-1]:.3f}, forgetting {lost:.3f} ({memory})"


def cli() -> None:
    """Run the stage from the command line."""
    run_command(continual, ContinualConfig, recipes="continual")


if __name__ == "__main__":
    cli()
