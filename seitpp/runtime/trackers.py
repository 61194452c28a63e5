"""Trackers: the numbers of metrics.jsonl also for TensorBoard, Weights & Biases or trackio, by Accelerate's classes.

What they leave on this machine lies in the run folder. A run that is resumed is resumed there too: TensorBoard
forgets what it holds of the steps that are run again; the other two get the same numbers once more.
"""

import os
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from seitpp.runtime.errors import UserError
from seitpp.runtime.files import write_text
from seitpp.runtime.run_folder import RunFolder
from seitpp.runtime.system_errors import writing

if TYPE_CHECKING:
    from accelerate import Accelerator


_PROJECT = "seitpp"


def check_trackers(names: Iterable[str]) -> None:
    """Refuse trackers whose packages are not installed, with a UserError."""
    for name in names:
        if find_spec(name) is None:
            raise UserError(f"--trackers: {name} is not installed: pip install 'seitpp[{name}]', or leave it out")


@contextmanager
def opened_trackers(
    accelerator: "Accelerator", run: RunFolder, first: int
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield a function that writes a line of numbers ({"step": …, name: number}) to metrics.jsonl and all trackers.

    Args:
        accelerator: accelerate.Accelerator.
        run: the RunFolder; `run.config.trackers` says which.
        first: the step that the run resumes from.
    """
    names = list(dict.fromkeys(run.config.trackers))
    if names and accelerator.is_main_process:
        accelerator.log_with = names
        accelerator.project_configuration.logging_dir = str(run.path / "tensorboard")
        _silence_writer_threads()
        with writing(run.path / "tensorboard"):
            accelerator.init_trackers(_PROJECT, init_kwargs=_arguments(run, first, names))

    def track(line):
        run.log(line)
        with writing(run.path / "tensorboard"):
            accelerator.log({name: value for name, value in line.items() if name != "step"}, step=line["step"])

    try:
        yield track
    finally:
        for tracker in accelerator.trackers:
            with writing(run.path / "tensorboard"):
                tracker.finish()
        accelerator.trackers = []


@cache
def _silence_writer_threads() -> None:
    """Have TensorBoard's threads not print an error, with a stack trace, that whoever writes or closes gets as well."""
    former = threading.excepthook

    def hook(arguments):
        if not type(arguments.thread).__module__.startswith("tensorboard."):
            former(arguments)

    threading.excepthook = hook


def _arguments(run, first, names):
    """What each tracker's own library is told."""
    arguments = {"tensorboard": {"purge_step": first}}
    if set(names) == {"tensorboard"}:
        return arguments
    if "trackio" in names:
        os.environ["TRACKIO_DIR"] = str(run.path.resolve() / "trackio")  # read when trackio is imported first
    file = run.path / "tracker_id"
    if not file.exists():
        write_text(file, secrets.token_hex(6))
    number = file.read_text()
    arguments["wandb"] = {"dir": str(run.path), "name": run.path.name, "id": number, "resume": "allow"}
    arguments["trackio"] = {"name": f"{run.path.name}-{number}", "resume": "allow", "embed": False}
    return arguments
