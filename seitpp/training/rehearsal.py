"""`--dry_run true`: what a training would be, from a few of its steps; nothing is written.

MTM: 3,461 samples, 2.9 million parameters
  …
dry run: a step took 0.21 s (152 images/s), at most 1.2 GB of memory
  4,600 steps take about 16 min, evaluations and pictures not counted
  on disk about 140 MB: 3 checkpoints of 35 MB and weights of 12 MB; 120.1 GB are free
nothing was written; without --dry_run the training begins
"""

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from seitpp.runtime.errors import Rehearsed
from seitpp.runtime.files import followed
from seitpp.runtime.machine import peak_memory
from seitpp.runtime.processes import Processes
from seitpp.runtime.progress import readable_seconds
from seitpp.runtime.run_folder import RunFolder
from seitpp.training.config import TrainConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

WARM_UP, TIMED = 2, 4
"""Steps that are not timed (the first ones compile, or choose algorithms), and steps that are."""


@dataclass(frozen=True)
class Sizes:
    """Bytes of what a training leaves on the disk, all processes together.

    Attributes:
        weights: of one copy of the model.
        state: of a checkpoint: weights, the optimizer's averages, averaged weights.
        copies: of the weights outside of checkpoints: the last, averaged and best ones.
        checkpoints: how many are kept at a time, the one that is being written included.
    """

    weights: int
    state: int
    copies: int
    checkpoints: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.state * self.checkpoints + self.weights * self.copies


def sizes_of(model: torch.nn.Module, config: TrainConfig, *, best: bool) -> Sizes:
    """What a training leaves, from its model.

    Args:
        model: whole, not sharded.
        config: a TrainConfig.
        best: whether the best checkpoint and weights are kept, too.
    """
    weights = sum(each.numel() * each.element_size() for each in model.state_dict().values())
    averages = 2 * sum(each.numel() * each.element_size() for each in model.parameters() if each.requires_grad)
    averaged = int(config.ema_decay is not None)
    return Sizes(
        weights=weights,
        state=weights * (1 + averaged) + averages,
        copies=1 + averaged + best,
        checkpoints=config.keep_checkpoints + 1 + best,
    )


def rehearse(
    accelerator: "Accelerator", run: RunFolder, update: Callable[[int], object], *, first: int, total: int,
    sizes: Sizes,
) -> None:  # fmt: skip
    """Take a few steps, say what all of them need, and end.

    Args:
        accelerator: accelerate.Accelerator.
        run: the RunFolder; its config is a TrainConfig.
        update: takes the optimizer step of an index.
        first: the step that the training would begin with.
        total: steps of the whole training.
        sizes: of what it leaves.
    Raises: Rehearsed, always.
    """
    config = run.config
    started = 0.0
    for number in range(WARM_UP + TIMED):
        if number == WARM_UP:
            started = _now(accelerator)
        update(min(first + number, total - 1))
    seconds = (_now(accelerator) - started) / TIMED
    batch = config.batch_size * config.accum_iter * accelerator.num_processes
    if accelerator.is_main_process:
        print("\n".join(_said(run, seconds, batch, first, total, sizes, peak_memory(accelerator.device))), flush=True)
    accelerator.wait_for_everyone()
    raise Rehearsed("nothing was written; without --dry_run the training begins")


def _said(run, seconds, batch, first, total, sizes, memory) -> list[str]:
    left = max(0, total - first)
    steps = f"{left:,} steps{' that are left' if first else ''}"
    lines = [
        f"dry run: a step took {seconds:.3g} s ({batch / seconds:,.0f} images/s), {memory}",
        f"  {steps} take about {readable_seconds(math.ceil(left * seconds))}, evaluations and pictures not counted",
    ]
    trainings = run.config.trainings
    if trainings > 1:
        whole = readable_seconds(math.ceil(trainings * total * seconds))
        lines.append(f"  this is one of {trainings} trainings, all of them about {whole}")
    free = shutil.disk_usage(_existing(run.path)).free
    lines.append(
        f"  on disk about {_size(sizes.total * trainings)}: "
        f"{'each ' if trainings > 1 else ''}{sizes.checkpoints} checkpoints of {_size(sizes.state)} and "
        f"{sizes.copies} x weights of {_size(sizes.weights)}; {_size(free)} are free"
    )
    if sizes.total * trainings > free:
        lines.append(f"  the disk of {run.path} is too small: free some, or give another --output_dir")
    return lines


@contextmanager
def place_for(folder: Path, config: TrainConfig, processes: Processes) -> Iterator[Path]:
    """Where a training may write what it needs before its first step: `folder`; in a dry run, one that goes again.

    Called on all processes.
    """
    if not config.dry_run:
        yield folder
        return
    place = processes.from_main(lambda: tempfile.mkdtemp(prefix="seitpp-dry-run-"))
    try:
        yield Path(place)
    finally:
        if processes.is_main:
            shutil.rmtree(place, ignore_errors=True)


def _now(accelerator: Any) -> float:
    """The time, once the device has done all that it was told to."""
    if accelerator.device.type == "cuda":
        torch.cuda.synchronize(accelerator.device)
    return time.perf_counter()


def _existing(folder: Path) -> Path:
    place = followed(folder)
    return next(each for each in (place, *place.parents) if each.exists())


def _size(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
