"""Micro-batches that shrink until a step fits, on two processes of which one has less memory."""

import json

import pytest

import tiny

TESTS = tiny.TESTS
SHRINK = """
import json, sys
from pathlib import Path
import torch
from toy_training import ToyConfig
from seitpp.runtime.devices import make_accelerator
from seitpp.training.micro_batch import shrink_to_memory
from seitpp.runtime.run_folder import open_run

accelerator = make_accelerator("no")
config = ToyConfig(output_dir=sys.argv[1], batch_size=12, accum_iter=2)
run = open_run(config, accelerator, stage="toy")
fits, tried = json.loads(sys.argv[2])[accelerator.process_index], []

def attempt(size):
    tried.append(size)
    torch.empty(1 if size <= fits else 2**50, dtype=torch.uint8)  # a petabyte: the allocator itself refuses

found = {}
try:
    shrunk = shrink_to_memory(config, accelerator, run, attempt)
    found = {"batch_size": shrunk.batch_size, "accum_iter": shrunk.accum_iter}
    run.log({"step": 0})  # it has begun
except Exception as error:
    found = {"error": str(error)}
Path(f"{sys.argv[1]}-{accelerator.process_index}.json").write_text(json.dumps({"tried": tried, **found}))
accelerator.end_training()
"""


def shrunk(tmp_path, fits):
    """What each of two processes tried and found, where sizes up to `fits` fit."""
    (tmp_path / "shrink.py").write_text(SHRINK)
    done = tiny.run(
        "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", tmp_path / "shrink.py",
        tmp_path / "run", json.dumps(fits), ACCELERATE_USE_CPU="1", OMP_NUM_THREADS="1",
        PYTHONPATH=f"{TESTS.parent}:{TESTS}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads((tmp_path / f"run-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
def test_all_processes_take_what_the_one_with_least_memory_can(tmp_path):
    first, second = shrunk(tmp_path, [12, 3])
    assert (first["tried"], second["tried"]) == ([12], [12, 6, 3])
    for each in (first, second):
        assert (each["batch_size"], each["accum_iter"]) == (3, 8)
    again = shrunk(tmp_path, [12, 3])
    assert [each["tried"] for each in again] == [[3], [3]]  # as the run folder says


@pytest.mark.slow
def test_where_a_step_fits_on_one_alone_all_say_so(tmp_path):
    for each in shrunk(tmp_path, [12, 0]):
        assert "a step does not fit into memory, even with the smallest micro-batch" in each["error"]
