"""Two processes of one training: what stops one stops both, and one of them says why."""

import json

import pytest

import tiny
from toy_training import losses, saved_steps


@pytest.fixture(scope="module")
def launches(tmp_path_factory):
    """Toy runs on two processes: name to (what came of each launch, folder)."""
    folder = tmp_path_factory.mktemp("two")
    plan = {
        "whole": [{}],
        "stopped": [{"on": 1, "step": 6, "does": "SIGTERM"}, {}],
        "killed": [{"on": 1, "step": 7, "does": "SIGKILL"}, {"on": 0, "step": 9, "does": "SIGKILL"}, {}],
        "failed": [{"on": 1, "step": 7, "does": "raise"}, {}],
        "main failed": [{"on": 0, "step": 7, "does": "raise"}],
        "main failed early": [{"on": 0, "step": 7, "does": "raise", "lag": 3.0}],
        "exploded": [{"on": 1, "step": 7, "does": "nan"}, {"processes": 1}],
    }
    words, owners = [], []
    for name, tries in plan.items():
        for each in tries:
            flags = ["--steps", "12", "--log_every", "4", "--save_every", "5"]
            words.append({"argv": ["--output_dir", str(folder / name), *flags], **each})
            owners.append(name)
    done = tiny.run(tiny.TESTS / "toy_processes.py", json.dumps(words), timeout=600)
    assert done.returncode == 0, done.stderr
    results = {name: ([], folder / name) for name in plan}
    for name, result in zip(owners, json.loads(done.stdout), strict=True):
        results[name][0].append(result)
    return results


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_at_the_same_step_and_the_run_goes_on_bit_for_bit(launches):
    (first, second), folder = launches["stopped"]
    assert first["codes"] == [143, 143]
    line = "stopped before step 7 of 12; saved. To resume, rerun the same command"
    assert tiny.one_line(first["stderr"]) == line
    assert second == {"codes": [0, 0], "stderr": ""}
    assert losses(folder) == losses(launches["whole"][1])


@pytest.mark.slow
def test_a_killed_process_ends_the_others_in_one_line_and_the_run_goes_on_bit_for_bit(launches):
    tries, folder = launches["killed"]
    assert [sorted(each["codes"]) for each in tries] == [[-9, 1], [-9, 1], [0, 0]]
    line = "error: another process ended early; to resume, rerun the same command"
    assert tiny.one_line(tries[0]["stderr"]) == line
    assert tiny.one_line(tries[1]["stderr"]) == line.replace("another", "process 1: another", 1)
    assert losses(folder) == losses(launches["whole"][1])


@pytest.mark.slow
def test_an_error_on_any_process_is_said_once_and_ends_all(launches):
    (failed, after), folder = launches["failed"]
    assert failed["codes"] == [1, 1]
    assert tiny.one_line(failed["stderr"]) == "error: process 1: its shard is gone"
    assert after["codes"] == [0, 0]
    assert losses(folder) == losses(launches["whole"][1])
    for name in ("main failed", "main failed early"):
        ((failed,), _) = launches[name]
        assert failed["codes"] == [1, 1]
        assert tiny.one_line(failed["stderr"]) == "error: its shard is gone"


@pytest.mark.slow
def test_a_loss_that_is_not_finite_on_one_process_stops_all(launches):
    (exploded, _), folder = launches["exploded"]
    assert exploded["codes"] == [1, 1]
    assert "the loss is nan at step 7; nothing was updated. Newest checkpoint" in tiny.one_line(exploded["stderr"])
    assert saved_steps(folder) == [5]


@pytest.mark.slow
def test_going_on_with_another_effective_batch_is_refused(launches):
    (_, alone), _ = launches["exploded"]
    assert alone["codes"] == [1]
    assert "(effective_batch: 8 there, 4 here): start as many processes as before" in tiny.one_line(alone["stderr"])


@pytest.mark.slow
def test_a_launcher_that_ends_all_with_the_first_lets_the_main_process_speak(tmp_path):
    done = tiny.run(
        "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "seitpp.mtm.pretrain",
        "--store", tmp_path / "none", "--output_dir", tmp_path / "run",
        ACCELERATE_USE_CPU="1", OMP_NUM_THREADS="1",
    )  # fmt: skip
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    assert "none is not a token store" in said[0]


ORPHAN = """
import os, subprocess, sys
import torch.distributed as dist
from seitpp.runtime.command import run_command
from seitpp.runtime.config import StageConfig
from seitpp.runtime.errors import UserError

HOST = "import time; from torch.distributed import TCPStore; s = TCPStore('127.0.0.1', 0, 1, True); " \\
    "print(s.port, flush=True); time.sleep(60)"

def main(config):
    host = subprocess.Popen([sys.executable, "-c", HOST], stdout=subprocess.PIPE, text=True)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=host.stdout.readline().strip())
    os.environ.update(TORCHELASTIC_USE_AGENT_STORE="True")
    dist.init_process_group("gloo", rank=0, world_size=1)
    host.kill()
    host.wait()
    raise UserError("its shard is gone")

run_command(main, StageConfig, recipes="pretrain", argv=["--output_dir", "out"])
"""


@pytest.mark.slow
def test_the_main_process_speaks_though_its_launcher_is_gone():
    done = tiny.run("-c", ORPHAN)
    assert done.returncode == 1
    assert tiny.one_line(done.stderr) == "error: its shard is gone"


ENDS = """
import atexit, os, sys, threading, time
from seitpp.runtime.command import run_command
from seitpp.runtime.config import StageConfig

class Kept:
    def __del__(self):
        os.write(1, b"interpreter taken down ")

def main(config):
    atexit.register(lambda: os.write(1, b"exit functions called "))
    threading.Thread(target=lambda: (time.sleep(0.3), os.write(1, b"thread ended "))).start()
    sys.stdout.write("written ")

kept = Kept()
run_command(main, StageConfig, recipes="pretrain", argv=["--output_dir", "out"])
"""


def test_one_process_of_many_ends_without_taking_its_interpreter_down():
    ends = "thread ended exit functions called written "
    for processes, more in ((1, "interpreter taken down "), (2, "")):
        done = tiny.run("-c", ENDS, WORLD_SIZE=str(processes), RANK="0", PYTHONUNBUFFERED="")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == ends + more
