"""The toy training on two processes that talk over gloo, one of which something happens to.

    python tests/toy_processes.py '[{"argv": ["--output_dir", "run"], "on": 1, "step": 3, "does": "raise"}, …]'

It prints a list of {"codes": of both, "stderr": of both together}. The processes are forked from one that has imported
everything. `does` is a signal's name, "raise" or "nan"; it happens `on` one of them before the batch of `step`, while
the other takes `lag` seconds.
"""

import importlib
import json
import os
import signal
import socket
import sys
import tempfile
import time

import toy_training
from seitpp.runtime.command import run_command
from seitpp.runtime.errors import UserError

PATIENCE = 60.0


def dawdles(lag, step):
    """A `before_batch` of toy_training that sleeps before a step."""
    return lambda now, micro: time.sleep(lag) if now == step and micro == 0 else None


def happens(does, step):
    """A `before_batch` of toy_training in which something happens."""
    plain = toy_training.toy_batch

    def poisoned(config, now, micro):
        inputs, targets = plain(config, now, micro)
        return inputs, targets * float("nan") if now == step else targets

    if does == "nan":
        toy_training.toy_batch = poisoned

    def before_batch(now, micro):
        if now == step and micro == 0 and does == "raise":
            raise UserError("its shard is gone")
        if now == step and micro == 0 and does not in (None, "nan"):
            os.kill(os.getpid(), getattr(signal, does))

    return before_batch


def process(rank, port, said, *, argv, processes=2, does=None, step=None, on=None, lag=0.0):
    """Become process `rank`: train, and end as a process of a launch ends."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes), LOCAL_WORLD_SIZE=str(processes),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), ACCELERATE_USE_CPU="1",
    )  # fmt: skip
    os.dup2(said.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    before_batch = happens(does, step) if on == rank else dawdles(lag, step)
    run_command(
        lambda config: toy_training.main(config, before_batch=before_batch), toy_training.ToyConfig,
        recipes="pretrain", argv=argv,
    )  # fmt: skip


def launch(words):
    """Run one scenario."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryFile("a+") as said:
        children = []
        for rank in range(words.get("processes", 2)):
            child = os.fork()
            if child == 0:
                process(rank, port, said, **words)
                os._exit(70)  # never go on as a second copy of the script
            children.append(child)
        codes, deadline = {}, time.monotonic() + PATIENCE
        while len(codes) < len(children):
            for child in children:
                if child not in codes and (ended := os.waitpid(child, os.WNOHANG))[0]:
                    codes[child] = os.waitstatus_to_exitcode(ended[1])
                elif child not in codes and time.monotonic() > deadline:
                    os.kill(child, signal.SIGKILL)
            time.sleep(0.01)
        said.seek(0)
        return {"codes": [codes[child] for child in children], "stderr": said.read()}


if __name__ == "__main__":
    for name in ("accelerate.utils", "jsonargparse", "torch._dynamo", "torch.utils.tensorboard"):
        importlib.import_module(name)
    print(json.dumps([launch(words) for words in json.loads(sys.argv[1])]))
