"""`seitpp launch`: processes that find each other, are told of signals, and whose exit code it is."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from accelerate.commands.launch import launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

import tiny
from seitpp.cli import STAGES
from seitpp.launch import launch, recipe_names
from seitpp.runtime import launch as module
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.errors import UserError
from seitpp.runtime.launch import check_devices, environment_of, run_processes
from seitpp.runtime.recipes import recipes_folder

VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TOLD")
WRITES = (
    f"import json, os; json.dump({{n: os.environ[n] for n in {VARIABLES}}}, open('rank-' + os.environ['RANK'], 'w'))"
)
ENDS_AS = "import os, sys, time; code = sys.argv[1 + int(os.environ['RANK'])]; {}"


def test_processes_get_what_they_find_each_other_by(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_processes([sys.executable, "-c", WRITES], 3, {"TOLD": "yes"}) == 0
    told = [json.loads((tmp_path / f"rank-{rank}").read_text()) for rank in range(3)]
    assert [each["RANK"] for each in told] == [each["LOCAL_RANK"] for each in told] == ["0", "1", "2"]
    shared = [{name: each[name] for name in VARIABLES[2:]} for each in told]
    assert shared[0] == shared[1] == shared[2]
    assert shared[0] | {"MASTER_PORT": "1"} == {
        "WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "TOLD": "yes",
    }  # fmt: skip
    assert int(shared[0]["MASTER_PORT"]) > 0


@pytest.mark.parametrize(
    ("codes", "expected"), [("00", 0), ("03", 3), ("30", 3), ("41", 4), ("0k", 128 + 9), ("55", 5)]
)
def test_the_exit_code_is_that_of_the_main_process_or_else_of_the_first_that_failed(codes, expected):
    script = ENDS_AS.format("os.kill(os.getpid(), 9) if code == 'k' else sys.exit(int(code))")
    assert run_processes([sys.executable, "-c", script, *codes], 2, {}) == expected


def test_who_waits_for_one_that_failed_is_ended(monkeypatch, capfd):
    monkeypatch.setattr(module, "_PATIENCE", 0.2)
    script = ENDS_AS.format("time.sleep(60) if code == 'w' else sys.exit(int(code))")
    assert run_processes([sys.executable, "-c", script, "w", "7"], 2, {}) == 7
    assert capfd.readouterr().err == "process 1 has failed: the others are ended\n"


@pytest.mark.parametrize(
    ("sent", "got"),
    [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGTERM), (signal.SIGHUP, signal.SIGTERM)],
)
def test_a_signal_reaches_every_process_once_and_their_code_comes_back(sent, got, tmp_path):
    child = (
        "import os, signal, sys, time\n"
        "def note(number, frame):\n"
        "    os.write(1, f'rank {os.environ[\"RANK\"]} got {number}\\n'.encode())\n"
        "    sys.exit(128 + number)\n"
        "for number in (2, 15): signal.signal(number, note)\n"
        "os.write(1, b'ready\\n')\n"
        "time.sleep(60)\n"
    )
    parent = (
        "import signal, sys\n"
        "from seitpp.runtime.launch import run_processes\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "sys.exit(run_processes(sys.argv[1:], 2, {}))\n"
    )
    started = subprocess.Popen(
        [sys.executable, "-c", parent, sys.executable, "-c", child], stdout=subprocess.PIPE, text=True, cwd=tiny.ROOT
    )
    assert started.stdout is not None
    with started:
        assert [started.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
        os.kill(started.pid, sent)
        said = started.stdout.read().splitlines()
    assert sorted(said) == [f"rank {rank} got {got}" for rank in range(2)]
    assert started.returncode == 128 + got


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_means_what_it_means_to_accelerate(name):
    """The variables of `accelerate launch --config_file`, but for those that say what is the default anyway."""
    path = recipes_folder("accelerate") / f"{name}.yaml"
    content = yaml.safe_load(path.read_text())
    words = [f"--{key}={value}" for key, value in content.get("fsdp_config", {}).items()]
    use = ["--use_fsdp"] if words else ["--multi_gpu"]
    arguments = launch_command_parser().parse_args([
        *use, *words, "--mixed_precision", content["mixed_precision"], "--num_processes", "8", "--num_machines", "1",
        "--main_process_port", "29501", "--dynamo_backend", "no", "script.py",
    ])  # fmt: skip
    theirs = prepare_multi_gpu_env(arguments)
    ours = environment_of(path)
    assert ours["ACCELERATE_MIXED_PRECISION"] == "bf16"
    assert {name: theirs.get(name, "").lower() for name in ours} == {name: text.lower() for name, text in ours.items()}
    assert ("ACCELERATE_USE_FSDP" in ours) == (name == "fsdp2")


def test_a_machine_without_gpus_runs_processes_on_its_cores_and_one_with_some_needs_one_each(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(7)))
    assert check_devices(3, 0, {}) == {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "2"}
    assert check_devices(9, 0, {})["OMP_NUM_THREADS"] == "1"
    assert check_devices(4, 4, {}) == {}
    with pytest.raises(UserError, match="--processes 5: this machine has 4 GPUs"):
        check_devices(5, 4, {})
    with pytest.raises(UserError, match="no GPU, and Accelerate shards weights"):
        check_devices(2, 0, {"ACCELERATE_USE_FSDP": "true"})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "STAGE"), ("pretrian", "no stage pretrian; did you mean pretrain"),
        ("--processes 0 pretrain", "at least 1"), ("--processes two pretrain", "--processes"),
        ("--recipe fsdp pretrain", "did you mean fsdp2"), ("report runs", "is for one process"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_in_one_line(words, said):
    with pytest.raises(UserError, match=said) as refused:
        launch(words.split(), list(STAGES))
    assert "\n" not in str(refused.value)


def test_a_file_that_is_none_of_accelerates_is_refused(tmp_path):
    for text in ("distributed_type: TPU\n", "- a\n", ": :"):
        (tmp_path / "mine.yaml").write_text(text)
        with pytest.raises(UserError, match=r"mine\.yaml"):
            launch(["--recipe", str(tmp_path / "mine.yaml"), "pretrain"], list(STAGES))


@pytest.mark.usefixtures("own_accelerator")
def test_processes_that_would_each_take_themselves_for_the_only_one_are_told_what_to_do(monkeypatch):
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"2 processes were started .*: start them with seitpp launch, or set ACCEL"):
        make_accelerator("no")


@pytest.mark.slow
def test_two_processes_tokenise_and_a_refusal_is_one_line_and_exit_code_1(tmp_path):
    tiny.make_images(tmp_path / "images", {"ant": 5, "bee": 4})
    tiny.make_tokenizer(tmp_path / "tokenizer")
    words = ["-m", "seitpp.cli", "launch", "--processes", "2", "tokenize", "--images", tmp_path / "images"]
    words += ["--tokenizer", tmp_path / "tokenizer", "--output_dir", tmp_path / "store"]
    begun = time.time()
    done = tiny.run(*words, "--rows_per_shard", "3")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "store" / "store.json").read_text())
    assert np.sum([shard["rows"] for shard in manifest["shards"]]) == 9
    assert all(path.stat().st_mtime >= begun - 1 for path in (tmp_path / "store").glob("*.arrow"))
    refused = tiny.run(*words, "--rows_per_shard", "0")
    assert refused.returncode == 1
    assert tiny.one_line(refused.stderr).endswith("rows_per_shard = 0 must be at least 1")
