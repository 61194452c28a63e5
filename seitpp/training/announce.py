"""What a training says of itself: what it runs on and as what, before the first step; how it went, after the last.

    MTM: 3,461 samples, 2.9 million parameters, 2.1 of them trained
      on the CPU (AMD EPYC, 2 threads), float32, 1 process; effective batch 32 = 32 x 1 x 1
      4,600 steps (42.6 epochs), warm-up 460, peak learning rate 0.0012
      resumed from step 500

The runs that are parts of another, such as the seeds of a fine-tuning, speak once.
"""

import shlex
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from weakref import WeakSet

import torch
from torch import nn

from seitpp.runtime.machine import cpu_name, peak_bytes, peak_memory
from seitpp.runtime.run_folder import RunFolder
from seitpp.training.config import TrainConfig
from seitpp.training.schedule import Schedule

if TYPE_CHECKING:
    from accelerate import Accelerator

_PRECISIONS = {"no": "float32", "bf16": "bfloat16", "fp16": "float16", "fp8": "float8"}
_ANNOUNCED: WeakSet[RunFolder] = WeakSet()
"""Runs that have spoken, or a part of which has."""


class Announcer:
    """Prints, on the main process, what a training is and how it went.

    Args:
        run: the RunFolder; its config is a TrainConfig.
        accelerator: accelerate.Accelerator.
        model: the module, prepared or not.
        title: what the training is called.
        samples: size of the training set.
        schedule: its Schedule.
    """

    def __init__(
        self, run: RunFolder, accelerator: "Accelerator", model: nn.Module, *, title: str, samples: int,
        schedule: Schedule,
    ) -> None:  # fmt: skip
        outermost = run
        while outermost.within is not None:
            outermost = outermost.within
        self.run, self.accelerator, self.title = run, accelerator, title
        self.samples, self.schedule = samples, schedule
        self.parameters = sum(each.numel() for each in model.parameters())
        self.trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
        self.alone = outermost is run
        self.speaks = accelerator.is_main_process and outermost not in _ANNOUNCED
        if accelerator.is_main_process:
            _ANNOUNCED.add(outermost)
        self.first, self.started = 0, time.monotonic()

    @property
    def batch(self) -> int:
        """Samples of an optimizer step, of all processes."""
        config = self.run.config
        return config.batch_size * config.accum_iter * self.accelerator.num_processes

    def begin(self, first: int) -> None:
        """Say what begins, or goes on, at a step."""
        self.first, self.started = first, time.monotonic()
        if self.speaks:
            print("\n".join(self.opening(first)), flush=True)

    def end(self) -> None:
        """Say how it went, where the training is a run of its own; the run keeps how fast it was in any case."""
        seconds = time.monotonic() - self.started
        self.run.rates = self.rates(seconds)
        if self.speaks and self.alone:
            print(self.closing(seconds), flush=True)

    def rates(self, seconds: float) -> dict[str, float]:
        """{"steps" that were taken, "images_per_second" of them, evaluations included, "peak_memory_bytes"}."""
        steps = self.schedule.total_steps - self.first
        images = steps * self.batch
        rate = {"images_per_second": round(images / seconds, 2)} if steps and seconds > 0 else {}
        return {"steps": steps, **rate, "peak_memory_bytes": peak_bytes(self.accelerator.device)}

    def opening(self, first: int) -> list[str]:
        """Lines of what begins at a step."""
        config, processes, schedule = self.run.config, self.accelerator.num_processes, self.schedule
        assert isinstance(config, TrainConfig)
        trained = "" if self.trained == self.parameters else f", {_millions(self.trained)} of them trained"
        batch = self.batch
        precision = _PRECISIONS.get(self.accelerator.mixed_precision, self.accelerator.mixed_precision)
        epochs = schedule.total_steps / schedule.steps_per_epoch
        lines = [
            f"{self.title}: {self.samples:,} samples, {_millions(self.parameters)} parameters{trained}",
            f"  on {_device(self.accelerator.device)}, {precision}, {processes} process{'es' * (processes > 1)}; "
            f"effective batch {batch:,} = {config.batch_size} x {config.accum_iter} x {processes} "
            "(batch_size x accum_iter x processes)",
            f"  {schedule.total_steps:,} steps ({epochs:,.1f} epochs), warm-up {schedule.warmup_steps:,}, "
            f"peak learning rate {schedule.lr:.3g}",
        ]
        return [*lines, f"  resumed from step {first:,}"] if first else lines

    def closing(self, seconds: float) -> str:
        """A line of how it went."""
        known = self.rates(seconds)
        rate = f", {known['images_per_second']:,.0f} images/s" if "images_per_second" in known else ""
        memory = peak_memory(self.accelerator.device)
        return f"{self.title}: done in {_duration(seconds)}{rate}, {memory}; weights are in {self.run.weights}"


def say_result(title: str, measures: Mapping[str, float], *, following: Sequence[str]) -> None:
    """Print what was measured last, and the command that usually comes next.

    Args:
        title: what the training is called.
        measures: {name: number}; none where nothing was measured.
        following: words of the command; those in capitals are to be filled in.
    """
    numbers = ", ".join(
        f"{name.removeprefix('eval_').replace('_', ' ')} {value:.4g}" for name, value in measures.items()
    )
    if numbers:
        print(f"{title}: {numbers}")
    print(f"next: {shlex.join(following)}", flush=True)


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} million" if count >= 100_000 else f"{count:,}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"the CPU ({cpu_name()}, {threads} thread{'s' if threads > 1 else ''})"
