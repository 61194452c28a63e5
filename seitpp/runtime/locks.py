"""Locks among processes, also over a network file system: who writes a run, a store or a file keeps others from it.

A lock ends with its process, however that ends, so nothing has to be cleared up after a kill.
"""

import errno
import fcntl
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from seitpp.runtime.errors import UserError
from seitpp.runtime.system_errors import name_file

PATIENCE = 10.0
"""Seconds to wait for another process to end; one whose starter was killed takes a moment."""
_TAKEN = (errno.EAGAIN, errno.EACCES)
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


@dataclass
class _Held:
    descriptor: int
    locked: bool
    times: int = 0


_held: dict[tuple[int, str], _Held] = {}
"""By process and file. The system gives up all of a process's locks on a file as soon as it closes it once."""
_told = False


class Lock:
    """A file that this process has locked, until `release` or its end; it may lock it several times.

    Args:
        file: the lock's file, which is made where it is missing.
        busy: what the error says where another process holds it.
        patience: seconds to wait for that process; None: PATIENCE.
        remove: whether the file goes when the lock is given up.

    Attributes:
        locked: False where the file system has no locks: then nobody is kept away, and standard error says so once.
    Raises: UserError if another process holds it still.
    """

    def __init__(self, file: str | Path, *, busy: str, patience: float | None = None, remove: bool = False) -> None:
        self.file = Path(file)
        self.remove = remove
        self._key = (os.getpid(), os.path.realpath(file))
        held = _held.get(self._key)
        if held is None:
            held = _held[self._key] = _wait_for(self.file, busy, PATIENCE if patience is None else patience)
        held.times += 1
        self.locked = held.locked

    @property
    def shared(self) -> bool:
        """Whether this process has locked the file once more."""
        held = _held.get(self._key)
        return held is not None and held.times > 1

    def release(self) -> None:
        """Give the lock up; in a process that was forked from its owner nothing happens."""
        held = _held.get(self._key) if self._key[0] == os.getpid() else None
        if held is None:
            return
        held.times -= 1
        if held.times == 0:
            del _held[self._key]
            if self.remove:  # before it is unlocked: whoever waits for it sees that it is gone, and makes it anew
                self.file.unlink(missing_ok=True)
            os.close(held.descriptor)

    def __enter__(self) -> "Lock":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def lock_folder(folder: str | Path, *, patience: float | None = None, remove: bool = False) -> Lock:
    """Keep other processes from writing into a folder.

    Args:
        folder: a run, or a store.
        patience: seconds to wait for another process to end; None: PATIENCE.
        remove: whether the lock's file goes when it is given up: then its name is one that nobody else would use.
    Raises: UserError if another process holds it still.
    """
    return Lock(
        Path(folder) / (".seitpp-lock" if remove else ".lock"), busy=_busy(folder), patience=patience, remove=remove
    )


def lock_file(path: str | Path, name: str | Path, *, patience: float | None = None) -> Lock:
    """The lock of what is written to a path in one go; its file goes with it.

    Args:
        path: of the lock's own file.
        name: what is written, for the message.
        patience: seconds to wait for another process to end; None: PATIENCE.
    Raises: UserError if another process holds it still.
    """
    try:
        return Lock(path, busy=_busy(name), patience=patience, remove=True)
    except OSError as error:  # a folder that may not be written, or is read only: the lock's own name would say nothing
        name_file(error, Path(path), Path(name))
        raise


def lacks_locks(error: OSError, file: str | Path) -> bool:
    """Whether an error of locking means that the file system has no locks, which standard error then says once."""
    global _told
    if error.errno not in _NO_LOCKS:
        return False
    if not _told:
        _told = True
        print(
            f"note: the file system of {Path(file).parent} has no locks ({error.strerror}): "
            f"see to it that no two commands write to one place",
            file=sys.stderr, flush=True,
        )  # fmt: skip
    return True


def _busy(what):
    return f"{what} is being written by another process: wait for it, or end it"


def _wait_for(file, busy, patience):
    deadline = time.monotonic() + patience
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, file):
                return _Held(descriptor, locked=True)
        except OSError as error:
            if lacks_locks(error, file):
                return _Held(descriptor, locked=False)
            if error.errno not in _TAKEN:
                os.close(descriptor)
                raise
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise UserError(busy) from error
            time.sleep(0.2)
        os.close(descriptor)


def _is_at(descriptor, file):
    """Whether an open file still has its name: its last owner may have removed it meanwhile."""
    try:
        return os.path.samestat(os.fstat(descriptor), Path(file).stat())
    except FileNotFoundError:
        return False
