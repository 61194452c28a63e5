"""Files that are whole or not there: written to a temporary name beside, then renamed.

A temporary name is `.seitpp-NAME.HOST.PID.tmp`, and while it is written `.seitpp-NAME.lock` is locked. So what a killed
process left behind is known by its lock, which is free, and the next one that writes the same NAME removes it. Some
network file systems keep locks to each machine: what another machine wrote is only removed when it is a day old, too.
"""

import json
import os
import platform
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seitpp.runtime.errors import UserError
from seitpp.runtime.locks import lock_file
from seitpp.runtime.rights import grant_as_usual
from seitpp.runtime.system_errors import name_file

HOST = re.sub(r"[^A-Za-z0-9-]", "", platform.node().split(".")[0])[:24] or "host"
"""This machine's name, as names of files hold it."""
_UNFINISHED = re.compile(r"\.seitpp-(?P<name>.+)\.(?P<host>[A-Za-z0-9-]+)\.\d+\.(?P<ending>tmp|former)")
_DAY = 24 * 3600
LITTER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
"""What file managers leave in any folder, and make again."""


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed to disk and renamed to `path`.

    On any error the temporary file or folder is removed and `path` stays as it was. A link is followed: what it points
    to is replaced, or made. Within another `replacing`, its own temporary path is yielded as it is.

    Args:
        path: the file or folder to write. A folder that exists already is replaced, if nothing in it is lost that the
            new one has not.
    Raises: UserError if another process writes it, or a folder would lose something.
    """
    path = followed(path)
    if _UNFINISHED.fullmatch(path.name):
        yield path
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path, "tmp")
    with lock_file(path.with_name(f".seitpp-{path.name}.lock"), path) as lock:
        if lock.locked:
            _remove_unfinished(path)
        _remove(temporary)
        try:
            yield temporary
            grant_as_usual(temporary)
            _put(temporary, path)
        except Exception as error:
            name_file(error, temporary, path)
            raise
        finally:
            _remove(temporary)


def followed(path: str | Path) -> Path:
    """Where a path leads: a link's target, there or not; else the path as it is, with a name."""
    path = Path(path)
    return Path(os.path.realpath(path)) if path.is_symlink() or not path.name else path


def make_folder(path: str | Path) -> None:
    """Make a folder and those above it, where they are missing; that of a link where the link points to."""
    followed(path).mkdir(parents=True, exist_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes had half written directly in a folder; what a living one writes stays."""
    names = {match["name"] for path in folder.iterdir() if (match := _UNFINISHED.fullmatch(path.name))}
    for name in sorted(names):
        try:
            with lock_file(folder / f".seitpp-{name}.lock", name, patience=0.0) as lock:
                if lock.locked:
                    _remove_unfinished(folder / name)
        except UserError:  # it is being written
            continue


def write_json(path: str | Path, value: object) -> None:
    """Write `value` as indented JSON, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write `text`, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises: ValueError if it is none, such as a pipe, which would be waited for.
    """
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise ValueError("it is no file")
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("lists in lists without end") from error


def _beside(path, ending):
    return path.with_name(f".seitpp-{path.name}.{HOST}.{os.getpid()}.{ending}")


def _put(temporary, path):
    """Give what was written its name."""
    if not temporary.is_dir():
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.rename(path)
    elif not path.is_dir():
        temporary.rename(path)
    else:
        _refuse_loss(path, temporary)
        former = _beside(path, "former")
        path.rename(former)
        temporary.rename(path)
        _remove(former)


def _refuse_loss(path, fresh):
    """Refuse to replace a folder by one that lacks something of it."""
    lost = sorted(_files_in(path) - _files_in(fresh))
    if lost:
        raise UserError(f"{path} holds {lost[0]}, which would be lost: move it elsewhere, or choose another folder")


def _files_in(folder):
    """Paths of all files below a folder, relative to it, and of links, which are not entered."""
    return {
        Path(parent, name).relative_to(folder).as_posix()
        for parent, folders, files in os.walk(folder)
        for name in [*files, *(each for each in folders if Path(parent, each).is_symlink())]
        if name not in LITTER
    }


def _remove_unfinished(path):
    """Remove what killed processes left of a path; its lock is held. A former folder without a new one comes back."""
    for other in path.parent.iterdir():
        match = _UNFINISHED.fullmatch(other.name)
        if match and match["name"] == path.name and (match["host"] == HOST or _untouched(other, _DAY)):
            if match["ending"] == "former" and not path.exists():
                other.rename(path)
            else:
                _remove(other)


def _untouched(path, seconds):
    """Whether a file, or a folder and all in it, has not changed for so long."""
    inside = (Path(parent, name) for parent, folders, files in os.walk(path) for name in (*folders, *files))
    return time.time() - max(each.lstat().st_mtime for each in (path, *inside)) > seconds


def _remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
