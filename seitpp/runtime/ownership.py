"""What a folder or file proves to be: a program overwrites and deletes only what it can show to be its own.

    a run              config.yaml with the fields that every stage writes
    a tokenising job   job.json with the fields that `seitpp tokenize` writes
    a token store      store.json of our format; a subset, which holds no shards, has an entry that says so
    a coding           coding.json with the fields that `seitpp store code` writes
    a tokenizer        tokenizer.json that names its kind
    a demo             demo.txt, a line that says of what
    a fit              fit.json with the fields that `seitpp fit` writes

A folder with nothing in it is anyone's. Hidden files and what systems put into every folder do not count, as they stay
where they are. Files of runs and stores of older versions prove the same.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seitpp.runtime.errors import UserError
from seitpp.runtime.files import LITTER, read_json

_OF_SYSTEMS = LITTER | {"@eaDir", "#recycle", "lost+found", "__MACOSX"}
_STAGE_FIELDS = {"stage", "output_dir", "resume", "seed"}
_JOB_FIELDS = {"tokenizer", "images", "keys", "labels", "rows_per_shard"}
_CODING_FIELDS = {"store", "fit_rows", "tables"}
_FIT_FIELDS = {"images", "settings", "facts", "sizes"}
_STORE_FORMAT = "seitpp token store"
_DEMO = re.compile(r"(OpenMoji|/[^\n]*)\n(\w+[^\n]*\n)?")


def is_run(folder: str | Path) -> bool:
    """Whether a folder is the run of a stage."""
    file = Path(folder) / "config.yaml"
    if not file.is_file():
        return False
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return isinstance(content, dict) and content.keys() >= _STAGE_FIELDS


def is_job(folder: str | Path) -> bool:
    """Whether a folder is a store that `seitpp tokenize` made, or has begun to make."""
    content = _read(Path(folder) / "job.json")
    if not (isinstance(content, dict) and content.keys() >= _JOB_FIELDS):
        return False
    return all(type(content[name]) is int and content[name] >= 1 for name in ("images", "rows_per_shard"))


def is_coding(folder: str | Path) -> bool:
    """Whether a folder is a store that `seitpp store code` made, or has begun to make."""
    content = _read(Path(folder) / "coding.json")
    return isinstance(content, dict) and content.keys() >= _CODING_FIELDS


def is_subset(folder: str | Path) -> bool:
    """Whether a folder is a subset, which points to another store's shards."""
    content = _read(Path(folder) / "store.json")
    return isinstance(content, dict) and content.get("format") == _STORE_FORMAT and "subset" in content


def is_tokenizer(folder: str | Path) -> bool:
    """Whether a folder holds a tokenizer."""
    content = _read(Path(folder) / "tokenizer.json")
    return isinstance(content, dict) and isinstance(content.get("kind"), str)


def is_demo(folder: str | Path) -> bool:
    """Whether a folder is that of a demo."""
    try:
        return bool(_DEMO.fullmatch((Path(folder) / "demo.txt").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return False


def is_fit(folder: str | Path) -> bool:
    """Whether a folder is what `seitpp fit` made, or has begun to make."""
    content = _read(Path(folder) / "fit.json")
    return isinstance(content, dict) and content.keys() >= _FIT_FIELDS


def is_ours(folder: str | Path) -> bool:
    """Whether a folder is any of these that a command may go on in."""
    return any(proof(folder) for proof in (is_run, is_job, is_coding, is_subset, is_tokenizer, is_demo, is_fit))


def visible(folder: str | Path) -> list[str]:
    """Names of what lies in a folder, sorted, but for what is hidden and what systems put there; [] if it is missing.

    Raises: UserError if it is no folder.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; --output_dir needs a folder")
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    return sorted(name for name in names if name[0] != "." and name not in _OF_SYSTEMS)


def refuse_foreign(folder: str | Path, own: Callable[[Path], bool], what: str) -> None:
    """Refuse to write into a folder that holds something and is none of ours.

    Args:
        folder: where a command is about to write; it may be missing.
        own: proves that the folder is one that the command may go on in, such as `is_run`.
        what: what that is, for the message: "a run".
    Raises: UserError naming what lies there.
    """
    folder = Path(folder)
    found = visible(folder)
    if found and not own(folder):
        raise UserError(
            f"{folder} holds {found[0]} and is not {what}: choose another --output_dir, "
            f"or move what lies there elsewhere"
        )


def refuse_foreign_file(file: str | Path, own: Callable[[Path], bool], what: str, remedy: str) -> None:
    """Refuse to write a file where another lies that is none of ours.

    Args:
        file: what a command is about to write.
        own: proves that a file is ours.
        what: what it would be then, for the message: "a table of results".
        remedy: what to do.
    Raises: UserError naming it.
    """
    file = Path(file)
    if file.exists() and not (file.is_file() and own(file)):
        raise UserError(f"{file} is there already and is not {what} of seitpp: {remedy}")


def begins_with(file: Path, words: bytes, *, within: int) -> bool:
    """Whether a file has some words among its first bytes."""
    with file.open("rb") as content:
        return words in content.read(within)


def _read(file: Path) -> Any:
    """Content of a JSON file; None if it is missing, or something else."""
    try:
        return read_json(file) if file.is_file() else None
    except (OSError, ValueError):
        return None
