"""Slurm scripts and the Dockerfile: they parse, their commands are ours, and a preempted training is queued again.

There is no Slurm here: stand-ins for `srun` and `scontrol` start the processes and write down what is asked of them.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
from test_documented_commands import _MODULES, config_of

import tiny
from seitpp.runtime.command import parse
from seitpp.tokens.store import open_store

SCRIPTS = sorted((tiny.ROOT / "examples" / "slurm").glob("*.sbatch"))
DOCKERFILE = tiny.ROOT / "examples" / "docker" / "Dockerfile"
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
for rank in 0 1; do
    SLURM_PROCID=$rank SLURM_LOCALID=$rank SLURM_NTASKS=2 SLURM_NNODES=1 "$@" &
    pids+=($!)
done
echo "${pids[@]}" > "$SLURM_STANDIN/pids"
worst=0
for pid in "${pids[@]}"; do
    wait "$pid"
    code=$?
    ((code > worst)) && worst=$code
done
exit "$worst"
"""
SCONTROL = """#!/bin/bash
if [[ $1 == show ]]; then echo localhost; else echo "$@" >> "$SLURM_STANDIN/asked"; fi
"""


def commands():
    """(words, file) of every command of ours in the comments of scripts and Dockerfile."""
    for path in [*SCRIPTS, DOCKERFILE]:
        comments = "\n".join(line[1:] for line in path.read_text().split("\n") if line.startswith("#"))
        for line in re.sub(r"\\\n\s*", "", comments).split("\n"):
            if found := re.search(r"-m (?=seitpp\.)(.*)", line):
                yield found[1], path.name


COMMANDS = dict(sorted(commands()))


def test_every_script_and_the_dockerfile_show_commands():
    assert set(COMMANDS.values()) == {"train.sbatch", "tokenize.sbatch", "Dockerfile"}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_in_a_comment_is_one_that_its_stage_takes(command, monkeypatch):
    module, *words = shlex.split(command)
    config_class, recipes = config_of(_MODULES.get(module, module), monkeypatch)
    parse(config_class, words, recipes=recipes)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_bash_reads_the_script(path):
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_dockerfile_is_made_of_known_instructions_and_runs_our_command():
    text = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text())
    lines = [line for line in text.split("\n") if line and not line.startswith("#")]
    assert {line.split()[0] for line in lines} == {"ARG", "FROM", "ENV", "RUN", "COPY", "WORKDIR", "ENTRYPOINT", "CMD"}
    assert lines[1] == "FROM ${BASE}"
    assert 'ENTRYPOINT ["seitpp"]' in lines


# With stand-ins


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder with `srun` and `scontrol` on the path, and the variables of a job of two tasks on CPUs."""
    for name, content in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "asked").touch()
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    job = str(os.getpid())  # the port follows from it
    variables = {"PATH": path, "SLURM_STANDIN": str(tmp_path), "SLURM_JOB_ID": job, "SLURM_JOB_NODELIST": "n[1-2]",
                 "ACCELERATE_USE_CPU": "1"}  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def start(name, *words):
    """The script as it runs, with `python` for its command."""
    script = tiny.ROOT / "examples" / "slurm" / f"{name}.sbatch"
    return subprocess.Popen(
        ["bash", script, sys.executable, *map(str, words)], cwd=tiny.ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(("code", "asked"), [(0, ""), (1, ""), (143, "requeue")])
def test_a_job_is_queued_again_if_it_was_preempted_and_never_else(slurm, code, asked):
    job = start("train", "-c", f"import sys; sys.exit({code})")
    job.communicate(timeout=60)
    assert job.returncode == code
    assert (slurm / "asked").read_text().split()[:1] == asked.split()


def test_every_process_knows_its_place(slurm):
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    program = f"import os; os.write(1, (' '.join(map(os.environ.get, {names})) + chr(10)).encode())"  # in one piece
    for name in ("train", "tokenize"):
        out, _ = start(name, "-c", program).communicate(timeout=60)
        assert sorted(out.split("\n")) == ["", "0 0 2 2", "1 1 2 2"]


@pytest.mark.slow
def test_two_tasks_make_one_store_and_the_next_element_has_nothing_to_do(slurm, images, tokenizer_folder, tmp_path):
    words = ["-m", "seitpp.tokenizers.tokenize", "--images", images, "--tokenizer", tokenizer_folder,
             "--rows_per_shard", 7, "--output_dir", tmp_path / "store"]  # fmt: skip
    for _ in range(2):
        job = start("tokenize", *words)
        out, err = job.communicate(timeout=120)
        assert (job.returncode, out.count("30 images")) == (0, 1), err
        made = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("*.arrow")}
    assert len(made) == 5
    open_store(tmp_path / "store").verify()


@pytest.mark.slow
def test_a_preempted_training_is_queued_again_and_then_finishes(slurm, tmp_path):
    store = tiny.make_store(tmp_path / "store", tiny.random_ids(30, tiny.CODES, tiny.GRID))
    run = tmp_path / "run"
    words = ["-m", "seitpp.mtm.pretrain", "--config", "debug", "--store", store, "--batch_size", 4, "--log_every", 1,
             "--trackers", "[]", "--output_dir", run, "--steps", 200]  # fmt: skip
    job = start("train", *words)
    deadline = time.monotonic() + 120
    while not (run / "metrics.jsonl").exists():
        assert job.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for pid in map(int, (slurm / "pids").read_text().split()):
        os.kill(pid, signal.SIGTERM)
    _, err = job.communicate(timeout=120)
    assert job.returncode == 143, err
    assert "requeue" in (slurm / "asked").read_text()
    assert not (run / "summary.json").exists()
    job = start("train", *words)
    _, err = job.communicate(timeout=240)
    assert job.returncode == 0, err
    assert (run / "summary.json").exists()
