"""What the operating system refused, in one line: whichever library met it, and in whatever words it passes it on.

safetensors, torch and Arrow write files by themselves; their errors are no OSError, or one that does not name the file.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WRITTEN = "_seitpp_written"
"""Attribute of an error that says which file was being written, by its final name."""
_NO_PERMISSION = "no permission to write or read {file}: choose another folder or change its rights"
_BROKEN_DISK = "{reason} at {file}: its disk, or the network file system, does not answer; start again once it does"
_LINES = {
    errno.ENOSPC: "no space left on the disk while writing {file}: free some and start again",
    errno.EDQUOT: "the disk quota is used up while writing {file}: free some of it and start again",
    errno.EFBIG: "{file} gets larger than its file system or `ulimit -f` allows: choose another folder",
    errno.EROFS: "{file} lies on a file system that can't be written: choose another folder",
    errno.EACCES: _NO_PERMISSION,
    errno.EPERM: _NO_PERMISSION,
    errno.EMFILE: "too many files are open at {file}: allow more (ulimit -n)",
    errno.ENFILE: "too many files are open at {file}: close other programs",
    errno.ENOMEM: "not enough memory: lower --batch_size, or close other programs",
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV), _BROKEN_DISK),
}
_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
_NUMBER = re.compile(r"(?:os error|errno) (\d+)", re.IGNORECASE)
_FILE = re.compile(r"(?:local file|directory) '([^']+)'")
_CUT_SHORT = ("PytorchStreamWriter failed writing file", "unexpected pos", "iostream error")
"""What torch says where a file could not be written to its end; it keeps the reason to itself."""
_NO_ROOM = "no space left on the disk, or in its quota, while writing {file}: free some and start again"
_NO_MEMORY = ("can't allocate memory", "out of memory")


def refusal(error: BaseException) -> str | None:
    """One line for an error that the operating system caused, with the file where it is known; None for another."""
    if isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY):
        return _LINES[errno.ENOMEM]
    number, file = _number(error), _file(error)
    if _is_cut_short(error):
        return _NO_ROOM.format(file=file or "a file")
    if number in _LINES:
        return _LINES[number].format(file=file or "a file", reason=os.strerror(number))
    if isinstance(error, OSError) and file is not None and error.strerror:
        return f"{error.strerror}: {file}"
    return None


def name_file(error: BaseException, temporary: Path, path: Path) -> None:
    """Have an error of writing name the file that it is about, by its final name.

    Args:
        error: what was raised while it was written.
        temporary: the name that it was written under.
        path: its final name.
    """
    named = getattr(error, "filename", None)
    if named is not None and str(named).startswith(str(temporary)):
        written = path / Path(named).relative_to(temporary)
    elif named is None and (_is_cut_short(error) or _number(error) in _OF_WRITING):
        written = path
    else:
        return
    vars(error).setdefault(_WRITTEN, str(written))  # not `filename`: with it an OSError without a number loses its text


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Have errors of writing a file in its place name it."""
    try:
        yield
    except OSError as error:
        name_file(error, path, path)
        raise


def _is_cut_short(error: BaseException) -> bool:
    return any(words in str(error) for words in _CUT_SHORT)


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno:
        return error.errno
    if isinstance(error, PermissionError):
        return errno.EACCES
    if found := _NUMBER.search(str(error)):
        return int(found[1])
    return next((number for number in _LINES if os.strerror(number) in str(error)), None)


def _file(error: BaseException) -> str | None:
    named = vars(error).get(_WRITTEN) or getattr(error, "filename", None)
    if isinstance(named, str | bytes | os.PathLike):
        return os.fsdecode(named)
    found = _FILE.search(str(error))
    return found[1] if found else None
