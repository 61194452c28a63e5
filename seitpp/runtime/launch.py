"""Several processes of a stage on this machine, as `seitpp launch` starts them.

They find each other by the variables that torch and Accelerate read, as they do under Slurm (`examples/slurm`). torch's
own launcher would turn every exit code into 1, with a stack trace; here they are the stage's: 130 and 143 say that the
state is saved.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from seitpp.runtime.errors import UserError

_PATIENCE = 30.0
"""Seconds that processes have to end by themselves once one of them has failed: they notice, and some still save."""
_RENAMED = {"FSDP_TRANSFORMER_LAYER_CLS_TO_WRAP": "FSDP_TRANSFORMER_CLS_TO_WRAP"}
_SIGNALS = {signal.SIGINT: signal.SIGINT, signal.SIGTERM: signal.SIGTERM, signal.SIGHUP: signal.SIGTERM}
"""What we are told, and what the processes are told then: a terminal that is closed is a reason to save."""


def environment_of(recipe: Path) -> dict[str, str]:
    """The variables by which Accelerate knows what one of its configuration files says.

    Args:
        recipe: such as configs/accelerate/fsdp2.yaml.
    Raises: UserError if it is none, or asks for what is neither several GPUs, CPUs nor FSDP.
    """
    import yaml

    try:
        content: Any = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{recipe} can't be read: {' '.join(str(error).split())}") from error
    known = ("MULTI_GPU", "MULTI_CPU", "FSDP", "NO")
    if not isinstance(content, dict) or content.get("distributed_type") not in known:
        raise UserError(
            f"{recipe} is no file of Accelerate's with distributed_type {', '.join(known[:-1])} or {known[-1]}: "
            "start others with accelerate launch --config_file"
        )
    variables = {}
    if content.get("mixed_precision"):
        variables["ACCELERATE_MIXED_PRECISION"] = _text(content["mixed_precision"])
    if content["distributed_type"] == "FSDP":
        variables["ACCELERATE_USE_FSDP"] = "true"
        for name, value in (content.get("fsdp_config") or {}).items():
            variables[_RENAMED.get(name.upper(), name.upper())] = _text(value)
    return variables


def _text(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


def check_devices(processes: int, gpus: int, variables: Mapping[str, str]) -> dict[str, str]:
    """What else the processes must be told on this machine.

    Args:
        processes: how many there will be.
        gpus: how many the machine has.
        variables: of the recipe.
    Raises: UserError if they don't fit.
    """
    if gpus == 0 and "ACCELERATE_USE_FSDP" in variables:
        raise UserError("this machine has no GPU, and Accelerate shards weights (FSDP) on GPUs only: take no --recipe")
    if processes > gpus > 0:
        raise UserError(f"--processes {processes}: this machine has {gpus} GPUs, and each process needs one")
    if gpus:
        return {}
    cores = len(os.sched_getaffinity(0))
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, cores // processes)))
    return {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": threads}


def run_processes(command: Sequence[str], processes: int, variables: Mapping[str, str]) -> int:
    """Run a command as several processes that find each other; SIGINT and SIGTERM are passed on to all of them.

    Args:
        command: the words of each.
        processes: how many.
        variables: of their environment, besides ours.
    Returns: 0 if all end well; else the code of the first that does not, the main process before others, and
        128 + signal for one that a signal has ended.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {
        **os.environ, **variables, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
    }  # fmt: skip
    received: list[int] = []
    heard = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # nohup ignores SIGHUP
    former = {number: signal.signal(number, lambda number, _: received.append(number)) for number in heard}
    running: list[subprocess.Popen] = []
    try:
        for rank in range(processes):
            # A session of its own: Ctrl-C on the terminal reaches us alone, and is passed on once.
            environment = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            running.append(subprocess.Popen(list(command), env=environment, start_new_session=True))
        return _waited_for(running, received)
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        _send(running, signal.SIGKILL)


def _waited_for(running: list[subprocess.Popen], received: list[int]) -> int:
    """The exit code of all; those that are left behind by one that failed are ended."""
    failed: list[int] = []
    deadline, told, ended = None, 0, False
    while None in [each.poll() for each in running]:
        while told < len(received):
            _send(running, _SIGNALS[signal.Signals(received[told])])
            told += 1
        if not ended:
            failed += [rank for rank, each in enumerate(running) if each.returncode and rank not in failed]
        if failed and not received and deadline is None:
            deadline = time.monotonic() + _PATIENCE
        if not ended and deadline is not None and time.monotonic() > deadline:
            print(f"process {failed[0]} has failed: the others are ended", file=sys.stderr)
            _send(running, signal.SIGKILL)
            ended = True
        time.sleep(0.05)
    codes = [each.returncode for each in running]
    first = sorted(failed, key=lambda rank: rank != 0)
    code = next((codes[rank] for rank in [*first, *range(len(codes))] if codes[rank]), 0)
    return code if code >= 0 else 128 - code


def _send(running: Iterable[subprocess.Popen], number: int) -> None:
    for each in running:
        if each.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(each.pid, number)
