"""A stage on several processes that talk over gloo, launch after launch, forked from one that has imported everything.

    python tests/stage_processes.py seitpp.finetune.probe probe ProbeConfig '[{"processes": 2, "argv": [...]}, …]'

It prints a list of {"codes": of all, "said": by all together}.
"""

import importlib
import json
import os
import socket
import sys
import tempfile

from seitpp.runtime.command import run_command


def launch(main, config_class, processes, argv):
    """One launch of `processes`; waits for all of them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryFile("a+") as said:
        children = []
        for rank in range(processes):
            child = os.fork()
            if child == 0:
                os.environ.update(
                    RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes), LOCAL_WORLD_SIZE=str(processes),
                    MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), ACCELERATE_USE_CPU="1",
                )  # fmt: skip
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                run_command(main, config_class, recipes="probe", argv=argv)
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        said.seek(0)
        return {"codes": codes, "said": said.read()}


if __name__ == "__main__":
    module = importlib.import_module(sys.argv[1])
    for name in ("accelerate.utils", "jsonargparse", "sklearn.linear_model", "torch._dynamo"):
        importlib.import_module(name)
    stage = getattr(module, sys.argv[2]), getattr(module, sys.argv[3])
    print(json.dumps([launch(*stage, **each) for each in json.loads(sys.argv[4])]))
