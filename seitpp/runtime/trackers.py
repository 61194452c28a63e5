"""Trackers: the numbers of metrics.jsonl also for TensorBoard, Weights & Biases or trackio, by Accelerate's classes.

    train/loss, train/accuracy, …     means over the steps of a log line
    eval/accuracy, …                  of an evaluation, and eval/completions, … its pictures
    optim/lr, optim/grad_norm         of the last step of a log line; the norm is that before clipping
    system/images_per_second, system/mfu, system/memory     the last is the most held so far, in GB

What they leave on this machine lies in the run folder. A run that is resumed is resumed there too: TensorBoard
forgets what it holds of the steps that are run again; the other two get the same numbers once more.
"""

import os
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from seitpp.runtime.config import flattened
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import write_text
from seitpp.runtime.run_folder import RunFolder
from seitpp.runtime.system_errors import writing

if TYPE_CHECKING:
    import numpy as np
    from accelerate import Accelerator


_PROJECT = "seitpp"
_GROUPS = {"lr": "optim", "grad_norm": "optim"} | dict.fromkeys(("images_per_second", "mfu", "memory"), "system")
"""Of the names that are not measures of what is learned."""


def check_trackers(names: Iterable[str]) -> None:
    """Refuse trackers whose packages are not installed, with a UserError."""
    for name in names:
        if find_spec(name) is None:
            raise UserError(f"--trackers: {name} is not installed: pip install 'seitpp[{name}]', or leave it out")


class Trackers:
    """What a training tells of itself; on all processes but the main one it does nothing.

    Args:
        accelerator: accelerate.Accelerator, with its trackers started.
        run: the RunFolder.
    """

    def __init__(self, accelerator: "Accelerator", run: RunFolder):
        self.accelerator, self.run = accelerator, run
        self.folder = run.path / "tensorboard"

    def trained(self, line: dict[str, Any], **more: float) -> None:
        """Write a line of a training, {"step": …, name: number}, to metrics.jsonl and all trackers.

        Args:
            line: the numbers.
            **more: those that trackers alone get, as they depend on the machine.
        """
        self.run.log(line)
        self._tell(line | more, "train")

    def evaluated(self, line: dict[str, Any]) -> None:
        """Likewise, of an evaluation."""
        self.run.log(line)
        self._tell(line, "eval")

    def show(self, step: int, pictures: "Mapping[str, np.ndarray]") -> None:
        """Give pictures, {name: (height, width, 3) uint8}, to those trackers that take some."""
        for tracker in self.accelerator.trackers:
            if pictures and hasattr(tracker, "log_images"):
                layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                with writing(self.folder):
                    images = {f"eval/{name}": image[None] for name, image in pictures.items()}
                    tracker.log_images(images, step=step, **layout)

    def conclude(self, step: int, measures: Mapping[str, float]) -> None:
        """Have TensorBoard compare the configuration with the last evaluation (its page "HParams")."""
        for tracker in self.accelerator.trackers:
            if tracker.name == "tensorboard":
                from torch.utils.tensorboard.summary import hparams

                # In the run's own file: the writer's add_hparams would make a second run of it.
                summaries = hparams(hyper_parameters(self.run), grouped(measures, "eval"))
                with writing(self.folder):
                    for summary in summaries:
                        tracker.tracker.file_writer.add_summary(summary, step)

    def _tell(self, line, group):
        numbers = {name: value for name, value in line.items() if name != "step"}
        with writing(self.folder):
            self.accelerator.log(grouped(numbers, group), step=line["step"])


@contextmanager
def opened_trackers(accelerator: "Accelerator", run: RunFolder, first: int) -> Iterator[Trackers]:
    """Yield what a training writes its numbers to: metrics.jsonl and all trackers.

    Args:
        accelerator: accelerate.Accelerator.
        run: the RunFolder; `run.config.trackers` says which.
        first: the step that the run resumes from.
    """
    names = list(dict.fromkeys(run.config.trackers))
    if names and accelerator.is_main_process:
        _silence_writer_threads()
        with writing(run.path / "tensorboard"):
            chosen: list[Any] = [_tensorboard(run, first) if name == "tensorboard" else name for name in names]
            accelerator.log_with = chosen
            accelerator.init_trackers(_PROJECT, init_kwargs=_arguments(run, names))
        for tracker in accelerator.trackers:
            if tracker.name != "tensorboard":
                tracker.store_init_configuration(hyper_parameters(run))
    try:
        yield Trackers(accelerator, run)
    finally:
        for tracker in accelerator.trackers:
            with writing(run.path / "tensorboard"):
                tracker.finish()
        accelerator.trackers = []


def grouped(numbers: Mapping[str, float], group: str) -> dict[str, float]:
    """Numbers by the tags that trackers show, such as "optim/lr"; `group` has those without a group of their own."""
    return {f"{_GROUPS.get(name, group)}/{name.removeprefix('eval_')}": value for name, value in numbers.items()}


def run_name(run: RunFolder) -> str:
    """What trackers call a run: its folder's name, and of a part of a run the way to it, "finetune-seed-0"."""
    outermost = run
    while outermost.within is not None:
        outermost = outermost.within
    whole, part = outermost.path.resolve(), run.path.resolve()
    return "-".join([whole.name, *part.relative_to(whole).parts] if part.is_relative_to(whole) else [part.name])


def hyper_parameters(run: RunFolder) -> dict[str, bool | int | float | str]:
    """The configuration in one level, "mask.mask_ratio_mean": …; what is no number or truth value as text."""
    values = {"stage": run.stage, **flattened(asdict(run.config))}
    return {name: value if isinstance(value, (bool, int, float)) else str(value) for name, value in values.items()}


@cache
def _silence_writer_threads() -> None:
    """Have TensorBoard's threads not print an error, with a stack trace, that whoever writes or closes gets as well."""
    former = threading.excepthook

    def hook(arguments):
        if not type(arguments.thread).__module__.startswith("tensorboard."):
            former(arguments)

    threading.excepthook = hook


def _tensorboard(run, first):
    """Accelerate's tracker, whose events lie in a folder with the run's name: TensorBoard shows that."""
    from accelerate.tracking import TensorBoardTracker

    return TensorBoardTracker(run_name(run), str(run.path / "tensorboard"), purge_step=first)


def _arguments(run, names):
    """What the other trackers' own libraries are told."""
    if set(names) == {"tensorboard"}:
        return {}
    if "trackio" in names:
        os.environ["TRACKIO_DIR"] = str(run.path.resolve() / "trackio")  # read when trackio is imported first
    file = run.path / "tracker_id"
    if not file.exists():
        write_text(file, secrets.token_hex(6))
    name, number = run_name(run), file.read_text()
    return {
        "wandb": {"dir": str(run.path), "name": name, "id": number, "resume": "allow"},
        "trackio": {"name": f"{name}-{number}", "resume": "allow", "embed": False},
    }
