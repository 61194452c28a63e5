"""What a training says of itself at its start and at its end."""

import re

import pytest
import torch
from accelerate import Accelerator

from seitpp.runtime.run_folder import RunFolder
from seitpp.training.announce import Announcer, say_result
from seitpp.training.config import TrainConfig
from seitpp.training.schedule import make_schedule


@pytest.fixture
def announcer(tmp_path):
    def make(run=None, **fields):
        config = TrainConfig(output_dir=str(tmp_path / "run"), batch_size=8, accum_iter=2, steps=40, lr=0.25, **fields)
        run = run or RunFolder(config, stage="toy")
        model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 2))
        model[0].requires_grad_(False)
        schedule = make_schedule(config, samples=160, world_size=1)
        return Announcer(run, Accelerator(cpu=True), model, title="toy", samples=160, schedule=schedule)

    return make


def test_the_opening_says_size_device_batch_and_length(announcer, capsys):
    announcer().begin(0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "toy: 160 samples, 32 parameters, 12 of them trained"
    assert re.fullmatch(
        r"  on the CPU \(.+, \d+ threads?\), float32, 1 process; effective batch 16 = 8 x 2 x 1 .*", lines[1]
    )
    assert lines[2] == "  40 steps (4.0 epochs), warm-up 0, peak learning rate 0.25"
    assert len(lines) == 3


def test_a_resumed_training_says_from_where(announcer, capsys):
    announcer().begin(10)
    assert capsys.readouterr().out.splitlines()[-1] == "  resumed from step 10"


def test_the_closing_counts_the_images_of_the_steps_that_were_taken(announcer):
    one = announcer()
    one.first = 30
    said = one.closing(2.0)
    assert said.startswith("toy: done in 2 s, 80 images/s, at most ")
    assert said.endswith(f"weights are in {one.run.weights}")


def test_the_parts_of_a_run_speak_once(announcer, tmp_path, capsys):
    whole = RunFolder(TrainConfig(output_dir=str(tmp_path / "whole")), stage="toy")
    parts = [
        RunFolder(TrainConfig(output_dir=str(tmp_path / "whole" / f"seed-{seed}")), stage="part", within=whole)
        for seed in range(2)
    ]
    for part in parts:
        one = announcer(part)
        one.run.config = TrainConfig(output_dir=str(part.path), batch_size=8, accum_iter=2)
        one.begin(0)
        one.end()
    said = capsys.readouterr().out
    assert said.count("toy: 160 samples") == 1
    assert "done in" not in said


def test_the_result_comes_with_the_command_that_comes_next(capsys):
    say_result("MTM", {"eval_cross_entropy": 4.01234, "eval_accuracy": 0.5}, following=("seitpp", "probe", "a b"))
    assert capsys.readouterr().out == "MTM: cross entropy 4.012, accuracy 0.5\nnext: seitpp probe 'a b'\n"
