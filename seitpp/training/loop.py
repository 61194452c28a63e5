"""The one training loop of all stages: evaluate, save, stop if done, step, log.

It knows nothing of tokens or masks. It gets a batch for any (step, micro-step), a `step` that turns a batch into a
loss, an optimizer and a schedule; because everything is a function of (config, seed, step), resuming is loading the
newest checkpoint and taking the next step.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.tensor import DTensor

from seitpp.runtime.errors import Interrupted, UserError
from seitpp.runtime.machine import peak_bytes
from seitpp.runtime.progress import Progress
from seitpp.runtime.run_folder import RunFolder
from seitpp.runtime.trackers import check_trackers, opened_trackers
from seitpp.training.best_weights import Better
from seitpp.training.checkpoint import load_checkpoint, save_checkpoint
from seitpp.training.optimizer import set_learning_rate
from seitpp.training.random_streams import seed_dropout
from seitpp.training.rehearsal import rehearse, sizes_of
from seitpp.training.schedule import Schedule
from seitpp.training.speed import Speed
from seitpp.training.step_guard import Watch, collected_signals

if TYPE_CHECKING:
    import numpy as np
    from accelerate import Accelerator

PICTURES = 10
"""How many evaluations of a training trackers get pictures of, besides the last."""


def train(
    accelerator: "Accelerator",
    run: RunFolder,
    *,
    model: torch.nn.Module,
    optimizer: Any,
    schedule: Schedule,
    batch_at: Callable[[int, int], Any],
    step: Callable[[Any, int], tuple[torch.Tensor, Mapping[str, torch.Tensor]]],
    title: str,
    evaluate: Callable[[int], dict[str, float]] | None = None,
    eval_every: int = 0,
    pictures: "Callable[[int], Mapping[str, np.ndarray]] | None" = None,
    best_by: Better | None = None,
    hooks: Sequence[tuple[int, Callable[[int], object]]] = (),
    derived: Callable[[dict[str, float]], dict[str, float]] | None = None,
    ema: Any = None,
    flops_per_image: float | None = None,
    on_begin: Callable[[int], object] = lambda first: None,
) -> dict[str, float]:
    """Train `model` to the schedule's end, from the run's newest checkpoint if there is one.

    Args:
        accelerator: accelerate.Accelerator.
        run: the RunFolder; its config is a TrainConfig.
        model: the prepared module whose parameters `optimizer` updates.
        optimizer: the prepared optimizer.
        schedule: a Schedule.
        batch_at: function (step, micro-step) to a batch, pure.
        step: function (batch, step) to (loss, {name: scalar tensor}), run once per micro-step.
        title: what the progress line calls this training.
        evaluate: function of the step to {name: number}, called every `eval_every` steps and at the end.
        eval_every: steps between evaluations; 0: at the end only.
        pictures: function of the step to {name: (height, width, 3) uint8} for trackers, called after evaluations, of
            many evaluations after some, evenly spaced.
        best_by: which number of an evaluation says that a checkpoint is the best; None: none is.
        hooks: (steps, function of the step) pairs: what else is done every so many steps, in evaluation mode.
        derived: function from the means of a log line to further numbers in it.
        ema: timm's ModelEmaV3 of the model; it is part of the checkpoints.
        flops_per_image: operations of a forward and backward pass, for the fraction of the device's peak (MFU).
        on_begin: called with the first step before it is taken.
    Returns: the last evaluation.
    Raises: Interrupted after a signal, with the state saved; UserError where the loss is not finite, or where the
        checkpoint that `config.resume` names lies at the end.
    """
    config = run.config
    meter = _Meter(accelerator)
    parts = {"meter": meter} if ema is None else {"meter": meter, "average": ema}
    first = load_checkpoint(accelerator, run, parts)
    if first >= schedule.total_steps and config.resume not in ("auto", "none"):
        raise UserError(
            f"--resume {config.resume} is of step {first}, and this training ends at step {schedule.total_steps}: "
            f"nothing is left to train; give more --steps or --epochs"
        )
    check_trackers(config.trackers)

    def update(index, watch, *, measure=False):
        """Take the optimizer step `index`; returns its learning rate and, where asked for, the gradient's norm."""
        model.train()
        lr = schedule.lr_at(index)
        set_learning_rate(optimizer, lr)
        seed_dropout(config.seed, index, accelerator.process_index)
        for micro in range(config.accum_iter):
            with nullcontext() if micro == config.accum_iter - 1 else accelerator.no_sync(model):
                loss, numbers = step(batch_at(index, micro), index)
                accelerator.backward(loss / config.accum_iter)
            watch.add(loss)
            meter.add({"loss": loss, **numbers})
        watch.before_update(index)
        norm = _clip(accelerator, model, config.clip_grad) if measure or config.clip_grad is not None else None
        optimizer.step()
        optimizer.zero_grad()
        if ema is not None:
            ema.update(accelerator.unwrap_model(model), index + 1)
        return lr, norm

    if config.dry_run:
        on_begin(first)
        watch = Watch(accelerator, run, optimizer, [])
        rehearse(
            accelerator, run, lambda index: update(index, watch), first=first, total=schedule.total_steps,
            sizes=sizes_of(accelerator.unwrap_model(model), config, best=best_by is not None),
        )  # fmt: skip
    run.begin()
    run.forget_metrics_from(first)
    on_begin(first)
    speed = Speed(accelerator, flops_per_image)
    evaluation, text = {}, ""
    with (
        collected_signals(alone=accelerator.num_processes == 1) as received,
        opened_trackers(accelerator, run, first) as trackers,
        Progress(schedule.total_steps, title, enabled=accelerator.is_main_process, start=first) as progress,
    ):
        watch = Watch(accelerator, run, optimizer, received)
        for index in range(first, schedule.total_steps + 1):
            last = index == schedule.total_steps
            stop = watch.signal
            saves = last or stop or (index % config.save_every == 0 and index > 0)
            evaluates = evaluate and (last or (not stop and eval_every and index % eval_every == 0 and index > 0))
            due = [function for every, function in hooks if index % every == 0 and index > first and not stop]
            if saves or evaluates or due:
                watch.check()
                model.eval()
            if evaluates and evaluate is not None:
                evaluation = evaluate(index)
                if evaluation:
                    trackers.evaluated({"step": index, **evaluation})
                if pictures and (last or index % (eval_every * _stride(schedule.total_steps, eval_every)) == 0):
                    trackers.show(index, pictures(index))
            for function in due:
                function(index)
            if saves:
                score = best_by.score(evaluation) if evaluates and best_by else None
                save_checkpoint(
                    accelerator, run, next_step=index, keep=config.keep_checkpoints, parts=parts, score=score
                )
            if last:
                trackers.conclude(index, evaluation)
                break
            if stop:
                raise Interrupted(stop, f"stopped before step {index} of {schedule.total_steps}; saved")

            logs = (index + 1) % config.log_every == 0 or index + 1 == schedule.total_steps
            lr, norm = update(index, watch, measure=logs)
            if logs:
                watch.check()
                means, batches, seconds = meter.take()
                numbers, text = speed.of(batches * config.batch_size * accelerator.num_processes, seconds)
                text = f"loss {means['loss']:.3f}  {text}"
                numbers |= _finite("grad_norm", norm)
                line = {"step": index, "lr": lr, **means, **(derived(means) if derived else {}), **numbers}
                trackers.trained(line, memory=peak_bytes(accelerator.device) / 1e9)
            progress.update(index + 1, text)
    return evaluation


def _stride(total: int, every: int) -> int:
    """Of evaluations every so many steps, each how manieth has pictures."""
    return max(1, math.ceil(total / every / PICTURES))


def _clip(accelerator, model, limit):
    """The norm of the gradient, which is cut down to `limit`; None: it stays."""
    norm = accelerator.clip_grad_norm_(model.parameters(), math.inf if limit is None else limit)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def _finite(name, value):
    """{name: number}; {} where there is none, or, as float16 has it, it was too large."""
    number = math.nan if value is None else float(value)
    return {name: number} if math.isfinite(number) else {}


class _Meter:
    """Sums of the numbers since the last log line, kept on the device until they are asked for.

    It is part of a checkpoint, so that a mean over steps on both sides of an interruption is the same number.
    """

    def __init__(self, accelerator):
        self.accelerator = accelerator
        self._restart()

    def _restart(self):
        self.sums, self.count = {}, 0
        self.timed, self.started = 0, time.perf_counter()

    def state_dict(self):
        """Name to the sums of all processes, (processes,) float32, and the number of backward passes of each."""
        names = sorted(self.sums)
        state = {"": torch.tensor([self.count])}
        if names:
            mine = torch.stack([self.sums[name].to(self.accelerator.device) for name in names])
            table = self.accelerator.gather(mine[None]).cpu()
            state |= {name: table[:, column] for column, name in enumerate(names)}
        return state

    def load_state_dict(self, state):
        """Take this process's sums; where there are more or fewer processes now, all take the mean."""
        self._restart()
        self.count = int(state.pop(""))
        for name, sums in state.items():
            same = len(sums) == self.accelerator.num_processes
            mine = sums[self.accelerator.process_index] if same else sums.mean()
            self.sums[name] = mine.to(self.accelerator.device)

    def add(self, numbers):
        for name, value in numbers.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach().float()
        self.count += 1
        self.timed += 1

    def take(self):
        """(means over steps and processes, backward passes timed, seconds they took); then start anew."""
        names = sorted(self.sums)
        sums = torch.stack([self.sums[name].to(self.accelerator.device) for name in names])
        reduced = self.accelerator.reduce(sums / self.count, reduction="mean")
        means = dict(zip(names, reduced.tolist(), strict=True))
        taken = means, self.timed, time.perf_counter() - self.started
        self._restart()
        return taken
