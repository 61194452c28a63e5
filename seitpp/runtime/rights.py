"""Rights of files: as the umask says for what is written, and told from damage for what is read."""

import os
import stat
from contextlib import suppress
from pathlib import Path


def grant_as_usual(path: Path) -> None:
    """Give a file, or all those in a folder, the rights that the umask leaves to new files.

    Libraries that write a temporary file of their own, as safetensors does, keep it for its owner alone.
    """
    files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
    private = [each for each in files if not each.is_symlink() and not stat.S_IMODE(each.stat().st_mode) & 0o077]
    if private:
        rights = _rights_of_new_files(path if path.is_dir() else path.parent)
        for file in private:
            with suppress(PermissionError):  # a file system that knows no rights
                file.chmod(rights)


def check_readable(path: str | Path) -> None:
    """Raise a PermissionError that names the file, if it may not be read; to be asked before it is called broken.

    safetensors calls a file that it may not read missing, and Arrow's error names no file.
    """
    try:
        with Path(path).open("rb"):
            pass
    except PermissionError:
        raise
    except OSError:  # it is missing, or a folder: its reader says so
        pass


def check_listable(folder: str | Path) -> None:
    """Raise the PermissionError that pathlib's globs pass over in silence, if a folder may not be looked into."""
    try:
        os.scandir(folder).close()
    except PermissionError:
        raise
    except OSError:  # it is missing, or no folder: its reader says so
        pass


def _rights_of_new_files(folder: Path) -> int:
    """What the umask leaves, asked of the file system: the umask itself can only be read by changing it."""
    probe = folder / f".seitpp-rights.{os.getpid()}"
    descriptor = os.open(probe, os.O_CREAT | os.O_WRONLY, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
        probe.unlink()
