"""The folder of one run: config.yaml, env.json, metrics.jsonl, checkpoints/, weights/, pictures, summary.json."""

import dataclasses
import json
import os
import platform
import subprocess
import sys
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from seitpp.runtime import run_log
from seitpp.runtime.config import flattened
from seitpp.runtime.errors import Rehearsed, UserError
from seitpp.runtime.files import followed, write_json, write_text
from seitpp.runtime.locks import lock_folder
from seitpp.runtime.machine import cpu_name
from seitpp.runtime.ownership import is_run
from seitpp.runtime.places import claim
from seitpp.runtime.run_content import checkpoints_in, clear_run, has_work, refuse_foreign_weights
from seitpp.runtime.same_run import Described, differences
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
from seitpp.runtime.system_errors import writing

if TYPE_CHECKING:
    from accelerate import Accelerator


_MAY_CHANGE = {
    "output_dir", "resume", "dry_run", "log_every", "save_every", "keep_checkpoints", "trackers", "preview_every",
    "cache.folder", "cache.gigabytes", "cache.attempts", "verify_shards",
}  # fmt: skip
TOOK = "took"
"""Part of summary.json: {"seconds": of the command that finished the run, its checks left out; of a training, too,
"steps" that it took, "images_per_second" of them, "peak_memory_bytes" of the main process}. It is no measure."""
_MEND = "mend or remove it, or start afresh with --resume none"
_METRICS = both(record({"step": integer(0)}), table(optional(measured)))


class RunFolder:
    """Open or create the folder of a run.

    A folder that holds the same stage with the same configuration is resumed, with inputs that are the same however
    they are spelt (`same_run`); `config.resume` = "none" clears what the earlier run wrote, and so does any
    configuration if the earlier run never started. Opening it only locks the folder: what is refused before `begin`
    leaves everything as it was.

    Args:
        config: the stage's configuration (a StageConfig).
        stage: the stage's name, such as "mtm.pretrain".
        is_main: whether this process writes; the others only read.
        inputs: fingerprints of what its weights belong to ({"tokenizer": "…"}), kept in env.json and in checkpoints.
        data: fingerprints of all else that it reads ({"store": "…", "weights": "…"}), by the names of the fields that
            say where it lies, kept in env.json: a checkpoint may go on elsewhere on other data, a run may not. Only
            the main process needs them.
        may_be_mended: data that may be other while no checkpoint has seen them: images of which one was broken, which
            shows only when it is read.
        may_change: fields that may differ from those of the run that the folder holds, besides those of every stage.
        within: the run that this one is a part of, which begins with it.

    Attributes:
        fresh: whether this is a new run: what an earlier one left does not count, and is cleared when it begins.
        rates: what `finish` keeps of how fast it was.
    Raises: UserError if the folder holds another run, or something that is no run.
    """

    def __init__(
        self,
        config: Any,
        *,
        stage: str,
        is_main: bool = True,
        inputs: dict[str, Any] | None = None,
        data: dict[str, Any] | None = None,
        may_be_mended: Sequence[str] = (),
        may_change: Sequence[str] = (),
        within: "RunFolder | None" = None,
    ):
        self.path = Path(config.output_dir)
        self.config = config
        self.stage = stage
        self.is_main = is_main
        self.inputs = inputs or {}
        self.data = data or {}
        self.may_be_mended = () if checkpoints_in(self.path) else may_be_mended
        self.may_change = _MAY_CHANGE | set(may_change)
        self.within = within
        self._described = {"stage": stage, **_plain(config)}
        self._begun, self._started = False, 0.0
        self.rates: dict[str, float] = {}
        claim(config, is_run, "a run of seitpp")
        if is_main:
            self._lock()
        self.fresh = config.resume == "none" or not has_work(self.path)
        if is_main and not self.fresh:
            self._refuse_another_run(self._described)
        refuse_foreign_weights(self.path)

    def _lock(self):
        place = followed(self.path)
        made = [folder for folder in (place, *place.parents) if not folder.exists()]
        place.mkdir(parents=True, exist_ok=True)
        weakref.finalize(self, _leave, lock_folder(place), made)

    def begin(self) -> None:
        """Write the configuration, and clear what an earlier run left if this is a new one: all is in order to run.

        Called on all processes once nothing can be refused any more; `log` and `finish` do it by themselves.

        Raises: Rehearsed in a dry run.
        """
        if self._begun:
            return
        if getattr(self.config, "dry_run", False):
            raise Rehearsed(f"{self.path}: no step is left to try; nothing was written")
        self._begun, self._started = True, time.monotonic()
        if self.within is not None:
            self.within.begin()
        if self.is_main:
            if self.fresh:
                clear_run(self.path)
            write_text(self.config_file, yaml.safe_dump(self._described, sort_keys=False))
            write_json(self.path / "env.json", {**environment(), "inputs": {**self.inputs, **self.data}})
            run_log.keep(self.path)
        self.fresh = False

    def _refuse_another_run(self, described):
        environment_file, recorded = self.path / "env.json", {}
        if environment_file.exists():
            recorded = read_described(environment_file, record({"inputs": table(anything)}), _MEND)["inputs"]
        recorded = {name: each for name, each in recorded.items() if name not in self.may_be_mended}
        there = Described(flattened(read_yaml(self.config_file, record({}), _MEND)), recorded)
        here = Described(flattened(described), {**self.inputs, **self.data})
        if different := differences(there, here, self.may_change):
            raise UserError(
                f"{self.path} holds another run ({'; '.join(different[:3])}): "
                f"choose another --output_dir, or --resume none to start afresh in this one"
            )

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
        return not self.fresh and (self.path / "summary.json").exists()

    @property
    def summary(self) -> dict[str, Any]:
        """What `finish` was given."""
        return {name: value for name, value in self._summary_file().items() if name != TOOK}

    @property
    def took(self) -> dict[str, float]:
        """How long the last command of the run ran, and how fast; {} of runs that an older version has made."""
        return self._summary_file().get(TOOK, {})

    def _summary_file(self):
        return read_described(self.path / "summary.json", record({}), _MEND)

    def finish(self, summary: dict[str, Any]) -> None:
        """Mark the run as finished and keep its last numbers, and beside them how long it took."""
        self.begin()
        if self.is_main:
            seconds = round(time.monotonic() - self._started, 2)
            write_json(self.path / "summary.json", {**summary, TOOK: {"seconds": seconds, **self.rates}})
            run_log.leave(self.path)

    def checkpoints(self) -> list[Path]:
        """Folders of whole checkpoints, oldest first."""
        return [] if self.fresh else checkpoints_in(self.path)

    def log(self, record: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        self.begin()
        if self.is_main:
            metrics = self.path / "metrics.jsonl"
            with writing(metrics), metrics.open("a") as file:
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


def _leave(lock, made):
    """Give the lock up. Folders that were made for a run that did not begin go again."""
    with suppress(OSError):  # there is something else in one of them, or somebody has removed it
        if made and not lock.shared and [path.name for path in made[0].iterdir()] == [lock.file.name]:
            lock.file.unlink()
            for folder in made:
                folder.rmdir()
    lock.release()


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
        "cpu": cpu_name(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
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
