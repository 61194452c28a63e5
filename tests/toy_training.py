"""A training small enough to kill: a linear model with dropout under the real loop, run folder and command line.

As a script it starts attempts one after the other, each a process of its own that may kill itself at a given step:

    python tests/toy_training.py '[{"argv": ["--output_dir", "run"], "signal": "SIGKILL", "step": 3}, …]'

It prints a list of {"code", "stderr"}; a code below zero is the signal that ended the process. Attempts are forked
from one process that has imported everything, so each takes a fraction of a second.
"""

import importlib
import json
import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from seitpp.runtime.command import run_command
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.run_folder import RunFolder, read_metrics
from seitpp.training.config import TrainConfig
from seitpp.training.loop import train
from seitpp.training.optimizer import make_adamw, parameter_groups
from seitpp.training.random_streams import Draws
from seitpp.training.schedule import make_schedule

SAMPLES = 60


@dataclass(frozen=True, kw_only=True)
class ToyConfig(TrainConfig):
    """A linear regression."""

    batch_size: int = 4
    lr: float | None = 0.05
    dropout: float = 0.3
    """of the hidden layer"""


def toy_batch(config, step, micro):
    """Inputs (b, 3) and targets (b, 2), a function of (seed, step, micro-step)."""
    positions = micro * config.batch_size + torch.arange(config.batch_size)
    inputs = Draws(config.seed, step, positions).normal("inputs", 3)
    return inputs, torch.stack([inputs.sum(1), inputs[:, 0] - inputs[:, 2]], dim=1)


def main(config, *, before_batch=lambda step, micro: None, before_saving=lambda: None):
    """Train the toy; `before_batch` and `before_saving` are where a test steps in."""
    accelerator = make_accelerator("no")
    run = RunFolder(config, stage="toy", is_main=accelerator.is_main_process)
    if run.finished:
        return
    torch.manual_seed(config.seed)
    model = nn.Sequential(nn.Linear(3, 5), nn.Dropout(config.dropout), nn.Linear(5, 2))
    optimizer = make_adamw(parameter_groups(model, weight_decay=config.weight_decay), config)
    optimizer.register_state_dict_pre_hook(lambda _: before_saving())
    schedule = make_schedule(config, samples=SAMPLES, world_size=accelerator.num_processes)
    model, optimizer = accelerator.prepare(model, optimizer)

    def batch_at(step, micro):
        before_batch(step, micro)
        return toy_batch(config, step, micro)

    def step(batch, _):
        loss = (model(batch[0]) - batch[1]).square().mean()
        return loss, {"root": loss.sqrt()}

    train(
        accelerator, run, model=model, optimizer=optimizer, schedule=schedule, batch_at=batch_at, step=step, title="toy"
    )
    run.finish({"done": True})
    accelerator.end_training()


def losses(folder):
    """What a run logged, without what depends on the clock."""
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in read_metrics(folder)]


def saved_steps(folder):
    """The steps that checkpoints of a run are of."""
    return [int(path.name.removeprefix("step-")) for path in sorted(Path(folder, "checkpoints").glob("step-*"))]


def toy(folder, **fields):
    """Twelve steps in a folder."""
    return ToyConfig(output_dir=str(folder), **{"steps": 12, "log_every": 1, "save_every": 4, **fields})


class Stop(Exception):
    """Ends a training from within."""


def stopping_at(wanted):
    """A `before_batch` that ends the training before a step."""

    def before_batch(step, micro):
        if step == wanted:
            raise Stop

    return before_batch


def attempt(argv, *, signal_name=None, step=None, saving=None, times=1):
    """Run the toy's command line; send oneself a signal before a step, or while the checkpoint of a step is written."""

    def strike():
        for _ in range(times):
            os.kill(os.getpid(), getattr(signal, signal_name))

    def before_batch(now, micro):
        if signal_name and now == step and micro == 0:
            strike()

    def stage(config):
        def before_saving():
            if saving and Path(config.output_dir, "checkpoints", f".step-{saving:08d}.tmp").exists():
                strike()

        main(config, before_batch=before_batch, before_saving=before_saving)

    run_command(stage, ToyConfig, recipes="pretrain", argv=argv)


def forked(words):
    """Run an attempt in a forked process: its exit code and what it said."""
    with tempfile.TemporaryFile("w+") as said:
        child = os.fork()
        if child == 0:
            os.dup2(said.fileno(), 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            try:
                attempt(words.pop("argv"), signal_name=words.pop("signal", None), **words)
            except SystemExit as stop:
                sys.stderr.flush()
                os._exit(stop.code)
        _, status = os.waitpid(child, 0)
        said.seek(0)
        return {"code": os.waitstatus_to_exitcode(status), "stderr": said.read()}


if __name__ == "__main__":
    for name in ("accelerate.utils", "jsonargparse", "torch._dynamo"):  # what is imported late, once for all attempts
        importlib.import_module(name)
    print(json.dumps([forked(words) for words in json.loads(sys.argv[1])]))
