"""How one process of many ends: which of them tells what went wrong, and what has to be let go in which order.

torch's own `elastic.multiprocessing.errors.record` is no help: it makes the launcher print the error a second time,
with a stack trace, and without that launcher it does nothing.
"""

import atexit
import gc
import os
import sys
import time
import traceback
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import NoReturn

_GLOO = "gloo/transport"
"""In the errors by which gloo says that another process has ended: plain RuntimeErrors, up to torch 2.14 at least."""

_PATIENCE = 2.0
"""Seconds that a process which failed waits for another that may have failed, or ended, too."""

_LONG_PATIENCE = 10.0
"""Seconds that the main process, having failed by itself, waits for the others, who may be in the middle of a step."""


def lost_a_process(error: BaseException) -> bool:
    """Whether an error means that another process of this run has ended."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(error, RuntimeError) or not torch.distributed.is_available():
        return False
    return isinstance(error, torch.distributed.DistError) or _GLOO in str(error)


def tell(error: BaseException, message: str, *, rank: int, said: bool) -> None:
    """Print an error in one line, once of all processes: the main one does, or one that is alone with what it met.

    The main process then lets go of what the failed stage held, which ends the others, and waits until they know.

    Args:
        error: what this process met.
        message: the line.
        rank: of this process.
        said: whether the error was told, or shared with the others, before.
    """
    grouped = _grouped()
    store = _store(rank) if grouped else None
    if _speaks(error, rank, store, said=said) if grouped else rank == 0:
        print(message, file=sys.stderr, flush=True)
    if rank == 0 and store is not None:  # not before it has spoken: a launcher kills it as soon as another ends
        _end_others(error, store)


def _store(rank):
    """A connection of our own to the store by which the processes found each other; None if that has ended."""
    from torch.distributed import PrefixStore, TCPStore  # pyright: ignore[reportPrivateImportUsage] - public names

    with _silent(), suppress(RuntimeError, KeyError):
        store = TCPStore(
            os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), wait_for_workers=False,
            is_master=rank == 0 and not _launcher_keeps_store(), multi_tenant=True,  # joins the server that there is
            timeout=timedelta(seconds=_PATIENCE),
        )  # fmt: skip
        return PrefixStore("seitpp", store)


def _launcher_keeps_store():
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _speaks(error, rank, store, *, said):
    try:
        if store is not None:
            with _silent():  # torch prints a C++ stack trace where the store has ended
                if rank == 0:  # of a lost process, who ended it has given the reason
                    return store.add("failed", 1) == 1 or not lost_a_process(error)
                told = said or _waited_for(lambda: store.check(["main failed"]), _PATIENCE)
                speaks = not told and store.add("failed", 1) == 1
                store.add("asked", 1)  # and needs the store no longer
                return speaks
    except RuntimeError:
        pass
    return rank == 0 or lost_a_process(error)  # the launcher has ended, or the main process: killed, or with its word


def _end_others(error, store):
    """Of the main process: have the others fail in the operation that they wait in, and ask the store why."""
    from torch.distributed import get_world_size

    others = get_world_size() - 1
    with _silent(), suppress(RuntimeError):
        store.set("main failed", "")
    traceback.clear_frames(error.__traceback__)  # gloo's connections close when nothing holds them any more
    gc.collect()
    leave_process_group()
    if not _launcher_keeps_store():  # the store ends with us
        patience = _PATIENCE if lost_a_process(error) else _LONG_PATIENCE
        with _silent(), suppress(RuntimeError):
            _waited_for(lambda: store.add("asked", 0) == others, patience)


def leave_process_group() -> None:
    """End the process group of a multi-process run, without a warning, whatever happened."""
    if _grouped():
        sys.modules["torch"].distributed.destroy_process_group()


class Ending:
    """The end of one process of many: what Python does at its end, except for taking the interpreter down.

    Sharded tensors keep gloo's threads alive, and one that lets go of a tensor while the interpreter goes down aborts
    the process ("terminate called without an active exception"). So the process ends before that, in the function that
    `atexit` calls last of all those registered since the Ending was made: make it before the work. What imports have
    registered before is left out; it frees what the system frees as well.
    """

    def __init__(self) -> None:
        self.code = None
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            atexit.register(self._leave)

    def end(self, code: int) -> NoReturn:
        """End the process."""
        self.code = code
        sys.exit(code)

    def _leave(self):
        if self.code is None:  # it ends in another way
            return
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # the reader has closed it
                stream.flush()
        os._exit(self.code)


def _grouped():
    """Whether this process is in a process group; a command that failed early may not even have imported torch."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized()


def _waited_for(condition, patience):
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@contextmanager
def _silent():
    """Let nothing reach standard error, C++'s words included."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
