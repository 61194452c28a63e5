"""What a report is made of: the runs, token stores and command logs that lie in some folders.

A folder with a `config.yaml` that names a `stage` is a run, one with a `store.json` is a token store. The folders in
which a run keeps its own things (`seed-0`, `choice`, `checkpoints`, `weights`; `stores` and `sets` inside a run) belong
to it and are not searched.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from seitpp.report.found_schema import COMMAND, CONFIG, ENVIRONMENT, SUMMARY
from seitpp.runtime.errors import UserError
from seitpp.runtime.results import read_results
from seitpp.runtime.run_folder import read_metrics
from seitpp.runtime.schema import anything, check, read_described, read_lines, read_yaml
from seitpp.tokens.format.manifest import read_manifest
from seitpp.tokens.format.size import count_rows

_MEND = "mend it or remove it"
_OWNED = re.compile(r"\.|seed-|(choice|checkpoints|weights)$")


@dataclass(frozen=True)
class Run:
    """One run folder, read as it is needed.

    Attributes:
        path: its folder.
        label: what the page calls it: the path from the folder that was given.
        config: config.yaml, a dict with at least `stage`.
    """

    path: Path
    label: str
    config: dict

    @property
    def stage(self) -> str:
        """Name of the stage, such as "mtm.pretrain"."""
        return self.config["stage"]

    @cached_property
    def summary(self) -> dict[str, Any]:
        """summary.json; {} while the run is not finished."""
        return _json(self.path / "summary.json", SUMMARY)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """env.json; {} if there is none."""
        return _json(self.path / "env.json", ENVIRONMENT)

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """Records of metrics.jsonl, [] if there is none."""
        return read_metrics(self.path)

    @cached_property
    def seed_metrics(self) -> dict[str, list[dict[str, Any]]]:
        """{seed folder's name: records} of a run that trained several seeds."""
        folders = sorted(self.path.glob("seed-*"), key=lambda folder: (len(folder.name), folder.name))
        return {folder.name: read_metrics(folder) for folder in folders}

    @cached_property
    def results(self) -> pd.DataFrame:
        """results.csv as a DataFrame, without rows if there is none."""
        return read_results([self.path])


@dataclass(frozen=True)
class Store:
    """One token store.

    Attributes:
        path: its folder.
        label: what the page calls it.
        root: the folder that was given, in which it lies.
        manifest: store.json.
    """

    path: Path
    label: str
    root: Path
    manifest: dict

    @property
    def rows(self) -> int:
        """Images in it."""
        return count_rows(self.manifest)


@dataclass(frozen=True, kw_only=True)
class Found:
    """All that was found.

    Attributes:
        runs: list of Run, by path.
        stores: list of Store, by path.
        commands: records of every commands.jsonl, in order: {"command", "stage", "seconds", "peak_memory_mb"}, of
            which only the first is always there.
    """

    runs: list
    stores: list
    commands: list

    def of(self, stage: str) -> list[Run]:
        """Runs of one stage."""
        return [run for run in self.runs if run.stage == stage]


def find_runs(folders: Iterable[str | Path], *, skip: Iterable[str | Path | None] = ()) -> Found:
    """Search folders for runs, stores and command logs.

    Args:
        folders: paths; each a run, a store, or a folder with such below it.
        skip: paths that are not searched, such as a folder of images.
    Returns: Found.
    Raises: UserError if a folder is missing or holds nothing to report, or if a file in it is broken.
    """
    runs, stores, commands = {}, {}, {}
    skipped = {Path(path).resolve() for path in skip if path is not None}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder: give a run, a token store, or a folder that holds some")
        something = False
        for path in _folders_below(folder, skipped):
            key = path.resolve()
            label = path.relative_to(folder).as_posix() if path != folder else path.resolve().name
            if (path / "commands.jsonl").is_file():
                commands[key] = read_lines(path / "commands.jsonl", COMMAND, _MEND)
            if (path / "store.json").is_file():
                stores.setdefault(key, Store(path, label, folder, read_manifest(path / "store.json")))
            elif (config := _config(path / "config.yaml")) is not None:
                runs.setdefault(key, Run(path, label, config))
            something = something or key in stores or key in runs
        if not something:
            raise UserError(f"nothing to report in {folder}: no run (config.yaml) and no token store (store.json)")
    logged = [record for log in commands.values() for record in log]
    return Found(runs=_told_apart(runs.values()), stores=_told_apart(stores.values()), commands=logged)


@contextmanager
def reading(file: Path) -> Iterator[Path]:
    """Yield `file`; what is wrong with its content becomes a UserError that names it."""
    try:
        yield file
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{file} cannot be read ({reason}): mend it or remove it") from error


def _folders_below(folder, skipped):
    """`folder` and those below it, in order, without what belongs to runs."""

    def refuse(error):
        raise error

    for parent, names, _ in os.walk(folder, onerror=refuse):
        here = Path(parent)
        in_run = (here / "config.yaml").is_file()
        names[:] = [
            name
            for name in sorted(names)
            if not (_OWNED.match(name) or (in_run and name in ("stores", "sets")) or (here / name).resolve() in skipped)
        ]
        yield here


def _told_apart(found):
    """The same list, with the whole path as the label of those that would share one."""
    found = list(found)
    counts = Counter(each.label for each in found)
    return [replace(each, label=each.path.as_posix()) if counts[each.label] > 1 else each for each in found]


def _config(file):
    """The content of a run's config.yaml; None where there is none, or it is of something else."""
    if not file.is_file():
        return None
    config = read_yaml(file, anything, _MEND)
    if not isinstance(config, dict) or "stage" not in config:
        return None
    return check(config, CONFIG, file, _MEND)


def _json(file, schema):
    return read_described(file, schema, _MEND) if file.is_file() else {}
