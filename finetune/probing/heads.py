"""Grids of heads on frozen features, all of which learn at once from the same batches.

What the features cost, to make or to read, they cost once for all heads. Heads never meet: the loss is the sum of
theirs, so each gets the gradients, and by AdamW takes the steps, that it would take alone.

Shapes: b batch, g heads of the grid, c classes, d width, n patches, a attention heads.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby, product
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, repeat
from torch import Tensor, nn

from seitpp.finetune.probing.features import Layout
from seitpp.runtime.config import require

Inputs = Literal["cls", "mean", "both"]
"""What a linear head reads of a block: the cls token, the mean over patches, or the two side by side."""


@dataclass(frozen=True, kw_only=True)
class HeadsConfig:
    """A grid of heads and how they are trained: AdamW, half a cosine, as CAPI and DINOv3 do."""

    blr: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    """base learning rates: lr = blr x effective batch / 256"""
    weight_decay: tuple[float, ...] = (0.0, 0.1)
    """AdamW's decays of the weights"""
    inputs: tuple[Inputs, ...] = ("cls", "mean", "both")
    """what linear heads read: the cls token, the mean over patches, both"""
    blocks: tuple[int, ...] = (1, 4)
    """of how many last blocks, side by side"""
    attention_heads: int = 8
    """of attentive heads"""
    batch_size: int = 1024
    """rows per process and step; of smaller sets all"""
    epochs: float = 10
    """passes over the training rows"""
    steps: int | None = None
    """steps instead of `epochs`"""
    refit: bool = True
    """whether the chosen head is trained once more, alone, on all training rows; else it stays as it was chosen"""

    def __post_init__(self):
        for name in ("blr", "weight_decay", "inputs", "blocks"):
            require(self, name, getattr(self, name), "must have at least one value")
        require(self, "blr", all(each > 0 for each in self.blr), "must be above 0")
        require(self, "weight_decay", all(each >= 0 for each in self.weight_decay), "must not be below 0")
        require(self, "blocks", all(each >= 1 for each in self.blocks), "must be at least 1")
        for name in ("attention_heads", "batch_size"):
            require(self, name, getattr(self, name) >= 1, "must be at least 1")

    def within(self, depth: int) -> "HeadsConfig":
        """The same on an encoder of so many blocks."""
        return replace(self, blocks=tuple(sorted({min(each, depth) for each in self.blocks})))

    @property
    def layout(self) -> Layout:
        """What linear heads need of an encoder; the mean of the last block, which other probes read, among it."""
        return Layout(max(self.blocks), ("cls", "mean"))

    def linear_grid(self) -> list["Head"]:
        """Every linear head, those that read the same side by side."""
        reads = product(self.blocks, self.inputs)
        rates = list(product(self.blr, self.weight_decay))
        return [Head(*rate, *read) for read in reads for rate in rates]

    def attentive_grid(self) -> list["Head"]:
        """Every attentive head; all read the patches of the last block."""
        return [Head(*rate) for rate in product(self.blr, self.weight_decay)]


@dataclass(frozen=True)
class Head:
    """One head of a grid.

    Attributes:
        blr: base learning rate.
        weight_decay: of its weights.
        blocks: of how many last blocks it reads.
        inputs: what it reads of each; "patches": an attentive head.
    """

    blr: float
    weight_decay: float
    blocks: int = 1
    inputs: Inputs | Literal["patches"] = "patches"

    @property
    def described(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class LinearHeads(nn.Module):
    """Linear heads on standardised features: (b, blocks, poolings, d) to a list of logits, (b, g, c) a kind of input.

    They start at zero, as the loss is convex: so a head is the same in every grid.

    Args:
        grid: list of Head, those that read the same side by side.
        layout: the Layout of the features.
        classes: how many.
        moments: mean and standard deviation of the features, (blocks, poolings, d) each.
    """

    def __init__(self, grid: Sequence[Head], layout: Layout, classes: int, moments: tuple[Tensor, Tensor]):
        super().__init__()
        self.grid, self.layout = list(grid), layout
        self.register_buffer("mean", moments[0])
        self.register_buffer("deviation", moments[1])
        width = moments[0].shape[-1]
        sizes = [head.blocks * (2 if head.inputs == "both" else 1) * width for head in self.grid]
        self.weights = nn.ParameterList([nn.Parameter(torch.zeros(classes, size)) for size in sizes])
        self.biases = nn.ParameterList([nn.Parameter(torch.zeros(classes)) for _ in sizes])

    def forward(self, features: Tensor) -> list[Tensor]:
        """Logits of all heads, in the order of the grid."""
        with torch.autocast(features.device.type, enabled=False):  # heads learn in float32
            standardised = (features.float() - self.mean) / self.deviation
            logits = []
            for (blocks, inputs), places in _alike(self.grid):
                read = self._inputs(standardised, blocks, inputs)
                weights = torch.cat([self.weights[place] for place in places])
                biases = torch.cat([self.biases[place] for place in places])
                logits.append(rearrange(F.linear(read, weights, biases), "b (g c) -> b g c", g=len(places)))
        return logits

    def _inputs(self, features, blocks, inputs):
        """What heads of one kind read: (b, blocks, poolings, d) to (b, numbers)."""
        wanted = ("cls", "mean") if inputs == "both" else (inputs,)
        chosen = [self.layout.poolings.index(each) for each in wanted]
        return rearrange(features[:, -blocks:, chosen], "b blocks p d -> b (blocks p d)")


class AttentiveHeads(nn.Module):
    """Heads that attend to patches with one learned query each, then are linear: (b, n, d) to [logits (b, g, c)].

    A query times the matrix of keys is one vector for each attention head: that vector is what is learned.

    Args:
        grid: list of Head.
        width: d.
        classes: how many.
        attention_heads: into which the values' width is divided; the nearest smaller divisor of it is taken.
    """

    def __init__(self, grid: Sequence[Head], width: int, classes: int, *, attention_heads: int):
        super().__init__()
        self.grid = list(grid)
        count = next(each for each in range(min(attention_heads, width), 0, -1) if width % each == 0)
        query, value = torch.randn(count, width) * 0.02, torch.empty(width, width)
        nn.init.xavier_uniform_(value)
        self.queries, self.values, self.weights, self.biases = (
            nn.ParameterList([nn.Parameter(each.clone()) for _ in self.grid])
            for each in (query, value, torch.zeros(classes, width), torch.zeros(classes))
        )

    def forward(self, patches: Tensor) -> list[Tensor]:
        """Logits of all heads."""
        with torch.autocast(patches.device.type, enabled=False):
            patches = patches.float()
            queries, values = torch.stack(list(self.queries)), torch.stack(list(self.values))
            scores = einsum(patches, queries, "b n d, g a d -> b g a n") * patches.shape[-1] ** -0.5
            seen = einsum(scores.softmax(dim=-1), patches, "b g a n, b n d -> b g a d")
            values = rearrange(values, "g (a e) d -> g a e d", a=queries.shape[1])
            pooled = rearrange(einsum(seen, values, "b g a d, g a e d -> b g a e"), "b g a e -> b g (a e)")
            logits = einsum(pooled, torch.stack(list(self.weights)), "b g d, g c d -> b g c")
            return [logits + torch.stack(list(self.biases))]


Heads = LinearHeads | AttentiveHeads


def heads_loss(logits: Iterable[Tensor], targets: Tensor) -> Tensor:
    """Sum over heads of their mean cross-entropy over the batch.

    Args:
        logits: (b, g, c) each.
        targets: (b,) int64, or (b, c) probabilities.
    """
    parts = []
    for each in logits:
        count = each.shape[1]
        repeated = repeat(targets, "b ... -> (b g) ...", g=count)
        parts.append(F.cross_entropy(rearrange(each, "b g c -> (b g) c"), repeated) * count)
    return torch.stack(parts).sum()


def head_groups(heads: Heads) -> list[dict[str, Any]]:
    """Parameter groups for the optimizer: each head has its own learning rate and decay; biases are not decayed."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in heads.named_parameters():
        head = heads.grid[int(name.rsplit(".", 1)[1])]
        decay = head.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((head.blr, decay), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "lr_scale": blr} for (blr, decay), parameters in groups.items()
    ]


def _alike(grid):
    """((blocks, inputs), places in the grid) of heads that read the same."""
    places = range(len(grid))
    for kind, members in groupby(places, key=lambda place: (grid[place].blocks, grid[place].inputs)):
        yield kind, list(members)
