"""`seitpp evaluate` on two and then three processes that talk over gloo, forked from one that has imported everything.

    python tests/evaluating_processes.py OUTPUT --classifier run --store store

The runs are OUTPUT/2 and OUTPUT/3. It exits with 0 if all processes do.
"""

import importlib
import os
import socket
import sys

from seitpp.finetune import evaluation
from seitpp.runtime.command import run_command


def exit_codes(count, argv):
    """Those of `count` processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(count):
        child = os.fork()
        if child == 0:
            os.environ.update(
                RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count), LOCAL_WORLD_SIZE=str(count),
                MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), ACCELERATE_USE_CPU="1",
            )  # fmt: skip
            run_command(evaluation.evaluate, evaluation.EvaluateConfig, recipes="evaluate", argv=argv)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


if __name__ == "__main__":
    for name in ("accelerate.utils", "jsonargparse", "torch._dynamo", "torchmetrics.functional.classification"):
        importlib.import_module(name)
    output, *argv = sys.argv[1:]
    sys.exit(any(code for count in (2, 3) for code in exit_codes(count, [*argv, "--output_dir", f"{output}/{count}"])))
