"""Files that are whole or not there: written to a temporary name beside, then renamed."""

import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed to disk and renamed to `path`.

    On any error the temporary file or folder is removed and `path` stays as it was.

    Args:
        path: the file or folder to write. A folder that exists already is replaced.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _remove(temporary)
    try:
        yield temporary
        if temporary.is_dir():
            if path.exists():
                _remove(path)
        else:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.rename(path)
    finally:
        _remove(temporary)


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


def _remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
