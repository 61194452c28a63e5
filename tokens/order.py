"""Which samples a process takes at a step: arithmetic on a keyed permutation, so resuming needs no state."""

from dataclasses import dataclass

import numpy as np

from tokens.permutation import permute


@dataclass(frozen=True, kw_only=True)
class SampleOrder:
    """Shuffled passes over a set; the last incomplete global batch of a pass is dropped.

    Attributes:
        length: size of the set.
        batch_size: samples of one process and micro-step.
        seed: of the order.
        accum_iter: micro-steps of an optimizer step.
        rank: this process.
        world_size: number of processes.
    """

    length: int
    batch_size: int
    seed: int
    accum_iter: int = 1
    rank: int = 0
    world_size: int = 1

    @property
    def global_batch(self):
        """Samples of an optimizer step over all processes and micro-steps."""
        return self.batch_size * self.accum_iter * self.world_size

    @property
    def steps_per_epoch(self):
        """Optimizer steps of a pass."""
        return self.length // self.global_batch

    def at(self, step, micro=0):
        """(indices into the set, places in the global batch), both (batch_size,) int64, of a step and micro-step."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        positions = (micro * self.world_size + self.rank) * self.batch_size + np.arange(self.batch_size)
        indices = permute(step_in_epoch * self.global_batch + positions, self.length, seed=self.seed, epoch=epoch)
        return indices, positions
