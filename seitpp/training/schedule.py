"""How long a training runs and how fast it learns, as pure functions of the step."""

import math
from dataclasses import dataclass

from seitpp.runtime.errors import UserError
from seitpp.training.config import TrainConfig

_SCALINGS = {"linear": lambda batch: batch / 256, "sqrt": lambda batch: math.sqrt(batch) / 8}
"""What `blr` is multiplied with, of the effective batch."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A training's length and learning rate, in optimizer steps; `lr_at(step)` is warm-up, then the decay.

    Attributes:
        poly_power: of the decay (1 - progress)^power; None: half a cosine.
    """

    total_steps: int
    warmup_steps: int
    steps_per_epoch: int
    lr: float
    min_lr: float
    poly_power: float | None = None

    def lr_at(self, step: int) -> float:
        """Learning rate of a step in [0, total_steps)."""
        if step < self.warmup_steps:  # 1. linear warm-up; the first step is not wasted on a rate of zero
            return self.lr * (step + 1) / self.warmup_steps
        if step >= self.total_steps:  # 2. after the end
            return self.min_lr
        progress = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)  # 3. down to min_lr
        if self.poly_power is not None:
            return self.min_lr + (self.lr - self.min_lr) * (1.0 - progress) ** self.poly_power
        return self.min_lr + (self.lr - self.min_lr) * 0.5 * (1.0 + math.cos(math.pi * progress))


def make_schedule(config: TrainConfig, *, samples: int, world_size: int) -> Schedule:
    """Turn a TrainConfig's epochs or steps into a Schedule.

    Args:
        config: a TrainConfig.
        samples: size of the training set.
        world_size: number of processes.
    Raises: UserError if the set is smaller than one effective batch, or the warm-up or `min_lr` does not fit.
    """
    effective_batch = config.batch_size * config.accum_iter * world_size
    steps_per_epoch = samples // effective_batch
    if steps_per_epoch == 0:
        raise UserError(
            f"the training set has {samples} samples, fewer than one effective batch of {effective_batch} "
            f"(batch_size x accum_iter x processes): lower --batch_size"
        )
    total_steps = config.steps if config.steps is not None else max(1, round(config.epochs * steps_per_epoch))
    warmup_steps = config.warmup_steps
    if warmup_steps is None:
        warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    if warmup_steps >= total_steps:
        raise UserError(f"the warm-up of {warmup_steps} steps does not fit into a training of {total_steps} steps")
    lr = config.lr if config.lr is not None else config.blr * _SCALINGS[config.lr_scaling](effective_batch)
    if config.min_lr > lr:
        raise UserError(f"min_lr = {config.min_lr:g} is above the peak of {lr:g} that blr makes: lower --min_lr")
    return Schedule(
        total_steps=total_steps, warmup_steps=warmup_steps, steps_per_epoch=steps_per_epoch, lr=lr,
        min_lr=config.min_lr, poly_power=config.poly_power if config.lr_decay == "poly" else None,
    )  # fmt: skip
