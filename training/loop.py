"""The one training loop of all stages: evaluate, save, stop if done, step, log.

It knows nothing of tokens or masks. It gets a batch for any (step, micro-step), a `step` that turns a batch into a
loss, an optimizer and a schedule; because everything is a function of (config, seed, step), resuming is loading the
newest checkpoint and going on with the next step.
"""

import math
import signal
import time
from contextlib import contextmanager, nullcontext

import torch

from training.chance import seed_dropout
from training.checkpoint import load_checkpoint, save_checkpoint
from training.errors import Interrupted, UserError
from training.optimizer import set_learning_rate
from training.progress import Progress


def train(accelerator, run, *, model, optimizer, schedule, batch_at, step, title, evaluate=None, eval_every=0):
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
        evaluate: function () to {name: number}, called every `eval_every` steps and at the end.
        eval_every: steps between evaluations; 0: at the end only.
    Returns: the last evaluation.
    Raises: Interrupted after a signal, with the state saved; UserError where the loss is not finite.
    """
    config = run.config
    meter = _Meter()
    accelerator.register_for_checkpointing(meter)
    first = load_checkpoint(accelerator, run)
    evaluation, text = {}, ""
    with (
        _signals() as received,
        Progress(schedule.total_steps, title, enabled=accelerator.is_main_process, start=first) as progress,
    ):
        for index in range(first, schedule.total_steps + 1):
            last = index == schedule.total_steps
            if evaluate and (last or (eval_every and index % eval_every == 0 and index > 0)):
                model.eval()
                evaluation = evaluate()
                if evaluation:
                    run.log({"step": index, **evaluation})
            stop = _anyone_received(accelerator, received, index, config.log_every)
            if last or stop or (index % config.save_every == 0 and index > first):
                save_checkpoint(accelerator, run, next_step=index, keep=config.keep_checkpoints)
            if last:
                break
            if stop:
                raise Interrupted(stop, f"stopped before step {index} of {schedule.total_steps}; saved")

            model.train()
            lr = schedule.lr_at(index)
            set_learning_rate(optimizer, lr)
            seed_dropout(config.seed, index, accelerator.process_index)
            for micro in range(config.accum_iter):
                with nullcontext() if micro == config.accum_iter - 1 else accelerator.no_sync(model):
                    loss, numbers = step(batch_at(index, micro), index)
                    _stop_unless_finite(loss, index, run)
                    accelerator.backward(loss / config.accum_iter)
                meter.add({"loss": loss, **numbers})
            if config.clip_grad is not None:
                accelerator.clip_grad_norm_(model.parameters(), config.clip_grad)
            optimizer.step()
            optimizer.zero_grad()

            if (index + 1) % config.log_every == 0 or index + 1 == schedule.total_steps:
                means, batches, seconds = meter.take(accelerator)
                images_per_second = batches * config.batch_size * accelerator.num_processes / seconds
                run.log({"step": index, "lr": lr, **means, "images_per_second": round(images_per_second, 1)})
                text = f"loss {means['loss']:.3f}  {images_per_second:,.0f} images/s"
            progress.update(index + 1, text)
    return evaluation


class _Meter:
    """Sums of the numbers since the last log line, kept on the device until they are asked for.

    It is part of a checkpoint, so that a mean over steps on both sides of an interruption is the same number.
    """

    def __init__(self):
        self._restart()

    def _restart(self):
        self.sums, self.count = {}, 0
        self.timed, self.started = 0, time.perf_counter()

    def state_dict(self):
        return {"sums": self.sums, "count": self.count}

    def load_state_dict(self, state):
        self.sums, self.count = state["sums"], state["count"]
        self.timed, self.started = 0, time.perf_counter()

    def add(self, numbers):
        for name, value in numbers.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach().float()
        self.count += 1
        self.timed += 1

    def take(self, accelerator):
        """(means over steps and processes, backward passes timed, seconds they took); then start anew."""
        names = sorted(self.sums)
        sums = torch.stack([self.sums[name].to(accelerator.device) for name in names])
        means = dict(zip(names, accelerator.reduce(sums / self.count, reduction="mean").tolist(), strict=True))
        taken = means, self.timed, time.perf_counter() - self.started
        self._restart()
        return taken


def _anyone_received(accelerator, received, index, every):
    """The signal that any process received, else 0; processes must agree, so they ask each other now and then."""
    mine = received[0] if received else 0
    if accelerator.num_processes == 1:
        return mine
    if index % every:
        return 0
    return int(accelerator.gather(torch.tensor([mine], device=accelerator.device)).max())


def _stop_unless_finite(loss, step, run):
    if not math.isfinite(loss.item()):
        saved = run.checkpoints()
        raise UserError(
            f"the loss is {loss.item()} at step {step}; nothing was updated. Last good checkpoint: "
            f"{saved[-1] if saved else 'none'}. Lower --blr, or set --clip_grad"
        )


@contextmanager
def _signals():
    """Collect SIGINT and SIGTERM instead of dying in the middle of a step; a second SIGINT dies at once."""
    received = []

    def note(number, frame):
        if received:
            raise KeyboardInterrupt
        received.append(number)

    former = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
