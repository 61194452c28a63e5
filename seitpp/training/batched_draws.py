"""All draws of a training step in one pass of the generator.

Whatever it draws, a pass of Philox is some 130 operations, on a GPU as many kernels, and a step of pre-training asks
five times: 660 of its 1,500 operations would be draws. What a step asks for, the step before it asked for too, and
draws are a function of (seed, step, position, name) alone. So with the first of them all the others are made.
"""

import math

import torch

from seitpp.training.random_streams import Draws, bits_at, counters_of, philox


class BatchedDraws:
    """Makes the Draws of a training's steps. They are the bits of plain Draws, in fewer operations.

    Args:
        seed: the run's seed.
        compiled: whether torch.compile makes one kernel of a pass; the bits are the same.
    """

    def __init__(self, seed: int, *, compiled: bool = False):
        self.seed = seed
        self.philox = torch.compile(philox, dynamic=False) if compiled else philox
        self.asked = {}
        self.counters = {}

    def at(self, step: int, positions: torch.Tensor) -> Draws:
        """The Draws of a step, for samples at `positions` of the global batch, (b,) int64."""
        expected, self.asked = self.asked, {}
        return _Batch(self, step, positions, expected)

    def make(self, step: int, positions: torch.Tensor, counts: dict[str, int]) -> dict[str, torch.Tensor]:
        """{name: (b, count or a little more) int64 of 32 random bits each} for {name: count}, in one pass."""
        plan = tuple(counts.items()), positions.device
        if plan not in self.counters:
            self.counters[plan] = counters_of(counts, positions.device)
        # A name alone comes at the first step and never again.
        generator = self.philox if len(counts) > 1 else philox
        bits = bits_at(self.seed, step, positions, self.counters[plan], generator)
        widths = [4 * math.ceil(count / 4) for count in counts.values()]
        return dict(zip(counts, bits.split(widths, dim=1), strict=True))


class _Batch(Draws):
    """Draws of one step that are made together.

    Args:
        maker: the BatchedDraws.
        step: the optimizer step.
        positions: of the samples, (b,) int64.
        expected: {name: count} of what the step before asked for.
    """

    def __init__(self, maker, step, positions, expected):
        super().__init__(maker.seed, step, positions)
        self.maker = maker
        self.expected = expected
        self.made = {}

    def _bits(self, name, count):
        self.maker.asked[name] = max(count, self.maker.asked.get(name, 0))
        if name not in self.made or self.made[name].shape[1] < count:
            wanted = {name: count, **{each: n for each, n in self.expected.items() if each not in self.made}}
            wanted[name] = max(count, self.expected.get(name, 0))
            self.made |= self.maker.make(self.step, self.positions, wanted)
        return self.made[name][:, :count]

    def __getitem__(self, part):
        return _Part(self, part)


class _Part(Draws):
    """The draws of a part of a batch, cut from those of the whole."""

    def __init__(self, whole, part):
        super().__init__(whole.seed, whole.step, whole.positions[part])
        self.whole = whole
        self.part = part

    def _bits(self, name, count):
        return self.whole._bits(name, count)[self.part]

    def __getitem__(self, part):
        return _Part(self, part)
