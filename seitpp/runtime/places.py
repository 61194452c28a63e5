"""Where a command reads and writes: to a URL only where it says so, and not into what it reads, nor around it.

The names of fields are the same in all commands, so this is decided for all of them here.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from seitpp.runtime.errors import UserError
from seitpp.runtime.ownership import is_ours, refuse_foreign

_WRITTEN = ("output_dir", "out", "stores", "root")
_READ = (
    *("images", "masks", "eval_images", "domains", "folders", "store", "eval_store", "like", "labels", "weights"),
    "classifiers",
    *("tokenizer", "token_adapt", "augment.token_adapt", "data", "checkpoint", "codebook", "synonyms", "mask_classes"),
)
_PATTERN = re.compile(r"[*?\[{]")


def check_places(config: Any) -> None:
    """Refuse a configuration that would write where it can't or must not; nothing is written.

    A folder that holds its own run or store already may go on: it was begun before, or by an older version.

    Args:
        config: of any command, a dataclass.
    Raises: UserError naming both flags and places.
    """
    values = dict(_values(config))
    for name in _WRITTEN:
        if "://" in str(values.get(name) or "") and name not in getattr(config, "written_to_urls", ()):
            raise UserError(
                f"--{name} {values[name]} is a URL, which can't be written to: name a folder of this machine, "
                f"and upload it from there"
            )
    output = values.get("output_dir")
    if "://" in str(output or ""):
        _refuse_overlap_of_urls("output_dir", str(output), values)
    elif output and (values.get("resume") == "none" or not is_ours(output)):
        _refuse_overlap("output_dir", output, values)


def claim(config: Any, own: Callable[[Path], bool], what: str) -> Path:
    """The folder `config.output_dir`, if the command may write into it; see `check_places` and `refuse_foreign`.

    Args:
        config: of a command, a dataclass.
        own: proves that the folder is one that the command may go on in.
        what: what that is, for the message.
    """
    check_places(config)
    refuse_foreign(config.output_dir, own, what)
    return Path(config.output_dir)


def fresh_output(config: Any, *, folder: bool) -> Path:
    """What a command makes anew (`output_dir` or `out`), if nothing has that name; an empty folder may.

    Args:
        config: of a command, a dataclass.
        folder: whether a folder is made; else a file, which may lie beside what is read.
    Raises: UserError if it is there, or overlaps with what is read.
    """
    check_places(config)
    name = "output_dir" if hasattr(config, "output_dir") else "out"
    path = Path(getattr(config, name))
    if path.exists() and not (folder and path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{path} is there already: choose another --{name}, or remove it")
    if folder:
        _refuse_overlap(name, path, dict(_values(config)))
    return path


def _refuse_overlap(name: str, output: str | Path, values: dict[str, Any]) -> None:
    written = Path(os.path.realpath(output))
    for field in _READ:
        for spec in _specs(values.get(field)):
            place, whole = _place(spec)
            if place is None:
                continue
            relation = ""
            if place == written:
                relation = "is"
            elif written in place.parents:
                relation = "holds"
            elif whole and place in written.parents:
                relation = "lies in"
            if relation:
                raise UserError(
                    f"--{name} {output} {relation} --{field} {spec}, which is read: choose another --{name}"
                )


def _refuse_overlap_of_urls(name: str, output: str, values: dict[str, Any]) -> None:
    """Among URLs: what is written must not be what is read, lie in it, or around it."""
    written = f"{output.rstrip('/')}/"
    for field in _READ:
        for spec in _texts(values.get(field)):
            read = f"{_PATTERN.split(spec)[0].rstrip('/')}/"
            if "://" in spec and (read.startswith(written) or (written.startswith(read) and not _is_tar(spec))):
                relation = "is" if read == written else "holds" if read.startswith(written) else "lies in"
                raise UserError(
                    f"--{name} {output} {relation} --{field} {spec}, which is read: choose another --{name}"
                )


def _is_tar(spec: str) -> bool:
    """Whether files are named, not a folder and all in it."""
    return _PATTERN.search(spec) is not None or spec.endswith(".tar")


def _specs(value: Any) -> list[str]:
    """Texts of a field that name places of this machine."""
    return [each for each in _texts(value) if "://" not in each]


def _texts(value: Any) -> list[str]:
    """Texts of a field that names one place or several."""
    if isinstance(value, dict):
        parts = (vars(each).values() if is_dataclass(each) else [each] for each in value.values())
        value = tuple(part for each in parts for part in each)
    parts = value if isinstance(value, tuple | list) else (value,)
    return [str(part) for part in parts if isinstance(part, str | Path) and str(part)]


def _place(spec: str) -> tuple[Path | None, bool]:
    """(where it lies, whether all of a folder is meant); of a pattern, its folder's files. (None, …): not here."""
    path = Path(os.path.realpath(spec))
    if path.exists():
        return path, path.is_dir()
    match = _PATTERN.search(spec)
    if match is None:
        return None, False
    folder = os.path.realpath(Path(f"{spec[: match.start()]}_").parent)
    return Path(folder, "*"), False


def _values(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Fields of a configuration by dotted names."""
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from _values(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value
