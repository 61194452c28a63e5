"""The folder of one run: config.yaml, env.json, metrics.jsonl, checkpoints/, weights/, pictures, summary.json."""

import dataclasses
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import weakref
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from seitpp.runtime.config import flattened
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import write_json, write_text
from seitpp.runtime.schema import (
    anything,
    both,
    integer,
    measured,
    optional,
    read_described,
    read_lines,
    read_yaml,
    record,
    table,
)  # fmt: skip

if TYPE_CHECKING:
    from accelerate import Accelerator


_MAY_CHANGE = {
    "output_dir", "resume", "log_every", "save_every", "keep_checkpoints", "trackers", "preview_every",
    "cache.folder", "cache.gigabytes", "cache.attempts", "verify_shards",
}  # fmt: skip
_MEND = "mend or remove it, or start afresh with --resume none"
_METRICS = both(record({"step": integer(0)}), table(optional(measured)))
_PREPARED = ("config.yaml", "env.json", "micro_batch.json")  # written before a run begins


class RunFolder:
    """Open or create the folder of a run.

    A folder that holds the same stage with the same configuration is resumed; `config.resume` = "none" clears what the
    earlier run wrote, and so does any configuration if the earlier run never started.

    Args:
        config: the stage's configuration (a StageConfig).
        stage: the stage's name, such as "mtm.pretrain".
        is_main: whether this process writes; the others only read.
        inputs: fingerprints of what its weights belong to ({"tokenizer": "…"}), kept in env.json and in checkpoints.
        data: fingerprints of what is learned from ({"store": "…"}), kept in env.json: a checkpoint may go on elsewhere
            on other data, a run may not.
        may_change: fields that may differ from those of the run that the folder holds, besides those of every stage.
    Raises: UserError if the folder holds another run.
    """

    def __init__(
        self,
        config: Any,
        *,
        stage: str,
        is_main: bool = True,
        inputs: dict[str, Any] | None = None,
        data: dict[str, Any] | None = None,
        may_change: Sequence[str] = (),
    ):
        self.path = Path(config.output_dir)
        self.config = config
        self.stage = stage
        self.is_main = is_main
        self.inputs = inputs or {}
        self.data = data or {}
        self.may_change = _MAY_CHANGE | set(may_change)
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file; --output_dir needs a folder")
        if is_main:
            self._open()

    def _open(self):
        self.path.mkdir(parents=True, exist_ok=True)
        weakref.finalize(self, os.close, lock_folder(self.path))
        described = {"stage": self.stage, **_plain(self.config)}
        if self.config.resume == "none" or not self._has_work():
            self._clear()
        elif self.config_file.exists():
            self._refuse_another_run(described)
        write_text(self.config_file, yaml.safe_dump(described, sort_keys=False))
        write_json(self.path / "env.json", {**environment(), "inputs": {**self.inputs, **self.data}})

    def _refuse_another_run(self, described):
        former, described = flattened(read_yaml(self.config_file, record({}), _MEND)), flattened(described)
        different = [
            f"{key}: {former.get(key)!r} there, {described.get(key)!r} now"
            for key in sorted(former.keys() | described.keys())
            if key not in self.may_change and former.get(key) != described.get(key)
        ]
        if different:
            raise UserError(
                f"{self.path} holds another run ({'; '.join(different[:3])}): "
                f"choose another --output_dir, or --resume none to start afresh in this one"
            )
        environment_file = self.path / "env.json"
        if not environment_file.exists():
            return
        before = read_described(environment_file, record({"inputs": table(anything)}), _MEND)
        if before["inputs"] != {**self.inputs, **self.data}:
            raise UserError(
                f"{self.path} holds a run on other input (its tokenizer, store or recipe was made anew since): "
                f"choose another --output_dir, or --resume none to start afresh in this one"
            )

    def _has_work(self):
        """Whether there is more than what a run writes before it begins; a refused first try is no run."""
        return any(
            any(path.iterdir()) if path.is_dir() else path.stat().st_size > 0
            for path in self.path.iterdir()
            if path.name not in {*_PREPARED, ".lock"}
        )

    def _clear(self):
        for name in ("summary.json", "metrics.jsonl", "results.csv", "best.json", "tracker_id", *_PREPARED):
            (self.path / name).unlink(missing_ok=True)
        for folder in ("checkpoints", "weights", "weights_ema", "previews", "tensorboard", "wandb", "trackio"):
            shutil.rmtree(self.path / folder, ignore_errors=True)

    @property
    def config_file(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def weights(self) -> Path:
        """Folder of the trained weights (safetensors and config.json)."""
        return self.path / "weights"

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end."""
        return (self.path / "summary.json").exists()

    @property
    def summary(self) -> dict[str, Any]:
        """What `finish` wrote."""
        return read_described(self.path / "summary.json", record({}), _MEND)

    def finish(self, summary: dict[str, Any]) -> None:
        """Mark the run as finished and keep its last numbers."""
        if self.is_main:
            write_json(self.path / "summary.json", summary)

    def checkpoints(self) -> list[Path]:
        """Folders of whole checkpoints, oldest first."""
        return sorted((self.path / "checkpoints").glob("step-*"))

    def log(self, record: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        if self.is_main:
            with (self.path / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(record) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """All whole lines of metrics.jsonl as a list of dicts."""
        return read_metrics(self.path)

    def forget_metrics_from(self, step: int) -> None:
        """Drop the lines of steps that will be run again after a resume."""
        file = self.path / "metrics.jsonl"
        if self.is_main and file.exists():
            kept = [record for record in self.metrics() if record.get("step", 0) < step]
            write_text(file, "".join(json.dumps(record) + "\n" for record in kept))


def open_run(config: Any, accelerator: "Accelerator", *, stage: str, **others: Any) -> RunFolder:
    """The RunFolder of a stage, once the main process has made it ready for all.

    Args:
        config: the stage's configuration.
        accelerator: accelerate.Accelerator.
        stage: the stage's name.
        others: further arguments of RunFolder.
    """
    run = RunFolder(config, stage=stage, is_main=accelerator.is_main_process, **others)
    accelerator.wait_for_everyone()
    return run


def lock_folder(folder: str | Path, *, patience: float = 10.0) -> int:
    """Keep other processes from writing into a run folder.

    Args:
        folder: the run folder.
        patience: seconds to wait for another process to end; one whose starter was killed takes a moment.
    Returns: a file descriptor; closing it, or the end of the process, gives the lock up.
    Raises: UserError if another process holds it still.
    """
    import fcntl

    descriptor = os.open(Path(folder) / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise UserError(f"{folder} is being written by another process: wait for it, or end it") from error
            time.sleep(0.2)


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """Read a run's metrics.jsonl; a last line cut off by a kill is left out."""
    file = Path(folder) / "metrics.jsonl"
    return read_lines(file, _METRICS, "mend or remove that line") if file.exists() else []


def environment() -> dict[str, Any]:
    """Versions, git commit, machine and device that a run ran with."""
    import torch

    packages = ("torch", "torchvision", "timm", "accelerate", "diffusers", "numpy", "pyarrow", "seitpp")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in packages},
        "git_commit": _git_commit(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "command": " ".join(sys.argv),
        "pid": os.getpid(),
    }


def _version(package):
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_commit():
    here = Path(__file__).resolve().parent
    try:
        answer = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    except OSError:  # git is not installed
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def _plain(config):
    """The configuration as YAML can hold it."""
    return json.loads(json.dumps(dataclasses.asdict(config)))
