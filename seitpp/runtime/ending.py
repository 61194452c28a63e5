"""How one process of many ends: which of them tells what went wrong, and what has to be let go in which order."""

import atexit
import gc
import os
import sys
import threading
import time
import traceback
from contextlib import contextmanager, suppress

_LOST_PROCESS = (
    "gloo/transport",
    "Connection closed by peer",
    "Connection reset by peer",
    "NCCL error",
    "ncclRemoteError",
)
"""How gloo and NCCL say that another process has ended."""

_PATIENCE = 2.0
"""Seconds that a process which failed waits for another that may have failed, or ended, too."""

_LONG_PATIENCE = 10.0
"""Seconds that the main process, having failed by itself, waits for the others, who may be in the middle of a step."""


def lost_a_process(error):
    """Whether an error means that another process of this run has ended."""
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _LOST_PROCESS)


def tell(error, message, *, rank, said):
    """Print an error in one line, once of all processes: the main one does, or one that is alone with what it met.

    The main process then lets go of what the failed stage held, which ends the others, and waits until they know.

    Args:
        error: what this process met.
        message: the line.
        rank: of this process.
        said: whether the error was told, or shared with the others, before.
    """
    if _speaks(error, rank, said=said):
        print(message, file=sys.stderr, flush=True)
    if rank == 0 and _grouped():  # not before it has spoken: a launcher kills it as soon as another ends
        _end_others(error)


def _speaks(error, rank, *, said):
    if not _grouped():
        return rank == 0
    from torch.distributed.distributed_c10d import _get_default_store

    store = _get_default_store()
    try:
        with _silent():  # torch prints a C++ stack trace where the store has ended
            if rank == 0:  # of a lost process, who ended it has given the reason
                return store.add("seitpp/failed", 1) == 1 or not lost_a_process(error)
            if said or _waited_for(lambda: store.check(["seitpp/main failed"]), _PATIENCE):
                store.add("seitpp/heard", 1)
                return False
            return store.add("seitpp/failed", 1) == 1
    except RuntimeError:  # the launcher has ended, or the main process: killed, or with a word of its own
        return rank == 0 or lost_a_process(error)


def _end_others(error):
    """Of the main process: have the others fail in the operation that they wait in, and ask the store why."""
    from torch.distributed import get_world_size
    from torch.distributed.distributed_c10d import _get_default_store

    store, others = _get_default_store(), get_world_size() - 1
    with _silent(), suppress(RuntimeError):
        store.set("seitpp/main failed", "")
    traceback.clear_frames(error.__traceback__)  # gloo's connections close when nothing holds them any more
    gc.collect()
    leave_process_group()
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":  # a store that no launcher keeps ends with us
        patience = _PATIENCE if lost_a_process(error) else _LONG_PATIENCE
        with _silent(), suppress(RuntimeError):
            _waited_for(lambda: store.add("seitpp/heard", 0) == others, patience)


def leave_process_group():
    """End the process group of a multi-process run, without a warning, whatever happened."""
    if _grouped():
        sys.modules["torch"].distributed.destroy_process_group()


def end(code):
    """End the process. One of many does what Python does at its end, except for taking the interpreter down.

    Sharded tensors keep gloo's threads alive, and one that lets go of a tensor while the interpreter goes down aborts
    the process ("terminate called without an active exception").
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        sys.exit(code)
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(BrokenPipeError):  # whoever read it has had enough
            stream.flush()
    os._exit(code)


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
