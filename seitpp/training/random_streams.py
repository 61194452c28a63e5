"""Random numbers that are a function of where they are used, not of who drew before.

Every draw of a training step is keyed by (seed, step, position of the sample in the global batch, name of the
draw), through the counter-based generator Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
1, 2, 3", SC 2011). So a run does not depend on the number of processes or on what was drawn before, resuming needs
no generator state, and a CPU and a GPU draw the same bits.
"""

import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import torch

_MASK = 0xFFFFFFFF


def philox(counter: Sequence[Any], key: tuple[int, int]) -> tuple[Any, Any, Any, Any]:
    """Philox4x32-10: 128 random bits for each 128-bit counter under a 64-bit key.

    Args:
        counter: four int64 tensors of one (broadcastable) shape, or Python integers, each holding 32 bits.
        key: two Python integers below 2^32.
    Returns: four int64 tensors of the broadcast shape (or integers), each holding 32 random bits.
    Source: Salmon et al. 2011, table 2; tested against the authors' known answers.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # The products need 64 bits; int64 wraps, and the masks undo the sign of the shifted half.
        product0, product1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (
            ((product1 >> 32) & _MASK) ^ c1 ^ k0,
            product1 & _MASK,
            ((product0 >> 32) & _MASK) ^ c3 ^ k1,
            product0 & _MASK,
        )
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    return c0, c1, c2, c3


def counters_of(counts: dict[str, int], device: torch.device | str) -> tuple[torch.Tensor, torch.Tensor]:
    """The parts of a counter that tell the draws of a sample apart.

    Args:
        counts: {name: how many words of 32 bits}, each of which is rounded up to whole blocks of four.
        device: where they are to lie.
    Returns: (number within the name, name) of each block, two (blocks,) int64 tensors.
    """
    blocks = {name: math.ceil(count / 4) for name, count in counts.items()}
    numbers = [torch.arange(number, device=device) for number in blocks.values()]
    streams = [torch.full((number,), zlib.crc32(name.encode()), device=device) for name, number in blocks.items()]
    return torch.cat(numbers), torch.cat(streams)


def bits_at(
    seed: int,
    step: int,
    positions: torch.Tensor,
    counters: tuple[torch.Tensor, torch.Tensor],
    generator: Callable[..., Any] = philox,
) -> torch.Tensor:
    """The random words of some blocks for each sample, (b, 4 * blocks) int64 of 32 bits each.

    Args:
        seed: the run's seed.
        step: the optimizer step.
        positions: of the samples in the global batch, (b,) int64.
        counters: what `counters_of` returned.
        generator: `philox`, compiled or not.
    """
    numbers, streams = counters
    position = positions[:, None]
    steps = torch.full_like(position, step & _MASK)
    words = generator((numbers, position & _MASK, steps, streams), _key(seed))
    return torch.stack(words, dim=-1).flatten(1)


class Draws:
    """The random draws of one step for a batch of samples.

    Args:
        seed: the run's seed.
        step: the optimizer step.
        positions: position of each sample in the global batch, (b,) int64; its device is where draws are made.
    """

    def __init__(self, seed: int, step: int, positions: torch.Tensor):
        self.seed = seed
        self.step = step
        self.positions = positions

    @property
    def device(self) -> torch.device:
        """The device that draws are made on."""
        return self.positions.device

    def __len__(self):
        return len(self.positions)

    def _bits(self, name, count):
        """(b, count) int64 of 32 random bits each."""
        counters = counters_of({name: count}, self.device)
        return bits_at(self.seed, self.step, self.positions, counters)[:, :count]

    def uniform(self, name: str, *shape: int) -> torch.Tensor:
        """Uniform in [0, 1), float32, (b, *shape). The same name gives the same numbers."""
        bits = self._bits(name, math.prod(shape))
        return ((bits >> 8).to(torch.float32) * 2.0**-24).reshape(-1, *shape)

    def normal(self, name: str, *shape: int) -> torch.Tensor:
        """Standard normal by Box and Muller, float32, (b, *shape)."""
        count = math.prod(shape)
        first, second = self.uniform(name, 2, count).unbind(1)
        radius = (-2.0 * torch.log1p(-first)).sqrt()  # 1 - u lies in (0, 1]
        return (radius * torch.cos(2.0 * math.pi * second)).reshape(-1, *shape)

    def per_step(self, name: str) -> float:
        """One uniform Python float in [0, 1) for the whole step, the same on every rank."""
        words = philox((0, 0, self.step & _MASK, zlib.crc32(f"step/{name}".encode())), _key(self.seed))
        return (words[0] >> 8) * 2.0**-24

    def __getitem__(self, part):
        """The draws of a part of the batch; `part` is a slice or an index tensor."""
        return Draws(self.seed, self.step, self.positions[part])


def _key(seed):
    return seed & _MASK, (seed >> 32) & _MASK


def seed_dropout(seed: int, step: int, rank: int) -> None:
    """Seed torch's own generators (dropout draws from them) as a function of (seed, step, rank)."""
    torch.manual_seed(philox((step & _MASK, rank, 0, zlib.crc32(b"dropout")), _key(seed))[0])
