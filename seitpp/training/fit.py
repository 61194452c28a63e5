"""One way to train, for every stage: what is around the loop.

`fit` prepares model and optimizer, averages (EMA), shrinks the micro-batch, compiles and shards; it evaluates over all
processes, keeps the best and the last checkpoint, resumes, and writes `weights/` (and `weights_ema/`). A stage brings
its data, its model, its parameter groups and its step:

    run = open_run(config, accelerator, stage="mtm.pretrain", ...)
    fitted = fit(run, accelerator, model, samples=len(store), batches=batches, step=step, save=save, title="MTM")
    run.finish(fitted.measures)
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from seitpp.runtime.devices import compile_in_place
from seitpp.runtime.errors import UserError
from seitpp.runtime.run_folder import RunFolder
from seitpp.runtime.trackers import check_trackers
from seitpp.training.announce import Announcer
from seitpp.training.best_weights import Better, keep_best
from seitpp.training.config import TrainConfig
from seitpp.training.ema import averaged
from seitpp.training.fsdp import WholeModel
from seitpp.training.loop import train
from seitpp.training.micro_batch import shrink_to_memory, take_memory
from seitpp.training.optimizer import make_adamw, parameter_groups
from seitpp.training.schedule import Schedule, make_schedule

if TYPE_CHECKING:
    import numpy as np
    from accelerate import Accelerator


Batch = Any
BatchAt = Callable[[int, int], Batch]
"""(optimizer step, micro-step) to a batch, pure."""
Step = Callable[[nn.Module, Batch, int], tuple[Tensor, Mapping[str, Tensor]]]
"""(prepared model, batch, optimizer step) to (loss, {name: scalar tensor}), run once per micro-step."""


@dataclass(frozen=True, kw_only=True)
class Hook:
    """Something else that is done on the way, in evaluation mode, on all processes.

    Attributes:
        every: epochs between calls.
        call: function of (the whole model, number of epochs that are done).
    """

    every: int
    call: Callable[[nn.Module, int], None]


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What a training leaves.

    Attributes:
        model: the trained module, in one piece and in evaluation mode.
        measures: the last evaluation, {name: number}; those of the averaged weights end in `_ema`.
    """

    model: nn.Module
    measures: dict[str, float]


def batch_layout(config: TrainConfig, accelerator: "Accelerator") -> dict[str, Any]:
    """What a loader must know to give each process its part of every step: arguments of TrainingBatches and others."""
    return {
        "batch_size": config.batch_size,
        "seed": config.seed,
        "device": accelerator.device,
        "accum_iter": config.accum_iter,
        "rank": accelerator.process_index,
        "world_size": accelerator.num_processes,
    }


def fit(
    run: RunFolder,
    accelerator: "Accelerator",
    model: nn.Module,
    *,
    samples: int,
    batches: Callable[[TrainConfig], BatchAt],
    step: Step,
    save: Callable[[Path, nn.Module], None],
    title: str,
    groups: Iterable[dict] | None = None,
    largest_step: Step | None = None,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    pictures: "Callable[[nn.Module], Mapping[str, np.ndarray]] | None" = None,
    best_by: Better | None = None,
    hooks: Iterable[Hook] = (),
    derived: Callable[[dict[str, float]], dict[str, float]] | None = None,
    flops_per_image: float | None = None,
) -> Fitted:
    """Train `model` as `run.config` (a TrainConfig) says, from the run's newest checkpoint if there is one.

    Args:
        run: the RunFolder.
        accelerator: accelerate.Accelerator.
        model: the module, initialised, not prepared.
        samples: size of the training set.
        batches: makes the batches of a configuration, whose batch_size and accum_iter may have been changed to fit into
            memory.
        step: the loss of a micro-batch.
        save: writes the weights of the whole model into a folder; called on the main process.
        title: what the progress line calls this training.
        groups: parameter groups, see `parameter_groups`; None: weight decay alone divides them.
        largest_step: like `step`, with the most memory that one ever takes; None: `step` itself. For `shrink_batch`.
        evaluate: measures the whole model in evaluation mode, over all processes; called on all of them.
        pictures: shows what the whole model does, {name: (height, width, 3) uint8}, for trackers; called on the main
            process after some evaluations. A few images at most.
        best_by: which number of an evaluation says that a checkpoint, and weights, are the best; None: none are.
        hooks: what else is done on the way.
        derived: function from the means of a log line to further numbers in it.
        flops_per_image: operations of a forward and backward pass, for the fraction of the device's peak (MFU).
    Raises: Interrupted after a signal, with the state saved; UserError where the loss is not finite, a part of the
        configuration does not work with sharded weights, or a step does not fit into memory.
    """
    config = run.config
    check_trackers(config.trackers)
    schedule = make_schedule(config, samples=samples, world_size=accelerator.num_processes)
    ema, whole = averaged(model, config.ema_decay, accelerator), WholeModel(model, accelerator)
    if config.shrink_batch:
        if whole.sharded:
            raise UserError("--shrink_batch does not work with FSDP: set --batch_size and --accum_iter yourself")
        attempt = partial(take_memory, model, batches, largest_step or step, config, accelerator)
        run.config = config = shrink_to_memory(config, accelerator, run, attempt)
    announcer = Announcer(run, accelerator, model, title=title, samples=samples, schedule=schedule)
    groups = parameter_groups(model, weight_decay=config.weight_decay) if groups is None else groups
    prepared, optimizer = accelerator.prepare(model, make_adamw(groups, config))
    if config.compile:
        compile_in_place(prepared)

    def evaluate_all(index: int) -> dict[str, float]:
        candidates = {"trained": ("", whole.of(prepared))}
        if ema is not None:
            candidates["averaged"] = ("_ema", ema.module)
        measures = {}
        for suffix, each in candidates.values():
            measures |= {f"{name}{suffix}": value for name, value in (evaluate(each) if evaluate else {}).items()}
        if best_by and accelerator.is_main_process:
            keep_best(run, best_by, measures, index, candidates, save)
        return measures

    def picture_all(index: int) -> "Mapping[str, np.ndarray]":
        shown = whole.of(prepared)
        with torch.no_grad():
            return pictures(shown) if pictures and accelerator.is_main_process else {}

    def at_steps(hook: Hook):
        every = hook.every * schedule.steps_per_epoch
        return every, lambda index: hook.call(whole.of(prepared), index // schedule.steps_per_epoch)

    measures = train(
        accelerator, run, model=prepared, optimizer=optimizer, schedule=schedule, batch_at=batches(config),
        step=lambda batch, index: step(prepared, batch, index), title=title,
        evaluate=evaluate_all if evaluate else None, best_by=best_by,
        eval_every=_evaluation_steps(config, schedule), pictures=picture_all if pictures and config.trackers else None,
        hooks=[at_steps(hook) for hook in hooks], derived=derived, ema=ema, flops_per_image=flops_per_image,
        on_begin=announcer.begin,
    )  # fmt: skip
    final = whole.of(prepared)
    if accelerator.is_main_process:
        save(run.weights, final)
        if ema is not None:
            save(run.path / "weights_ema", ema.module)
    accelerator.wait_for_everyone()
    announcer.end()
    return Fitted(model=final, measures=measures)


def _evaluation_steps(config: TrainConfig, schedule: Schedule) -> int:
    """Steps between evaluations; 0: at the end only."""
    if config.eval_every_epochs is not None:
        return config.eval_every_epochs * schedule.steps_per_epoch
    return config.save_every if config.eval_every is None else config.eval_every
