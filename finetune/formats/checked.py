"""Whether a program that was written computes what the network does."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from seitpp.finetune.formats.network import FromImages, Network
from seitpp.runtime.errors import UserError

BATCHES = (1, 3)
"""Sizes to compare at; programs are traced at two, so that one that is bound to its size fails."""
TOLERANCE = 1e-4
"""Largest difference that is put down to rounding, relative to the largest output where that is above 1."""
OTHER_IDS = 0.01
"""Share of tokens that may get another id: those whose two nearest codes are equally near, but for rounding."""


@torch.no_grad()
def check_program(run: Callable[[Tensor], Sequence[Tensor]], network: Network, what: str) -> float:
    """Compare a program's outputs with the network's.

    Args:
        run: input (b, …) to the program's outputs, in their order.
        network: what was exported.
        what: what the program is called in messages.
    Returns: the largest difference of logits or features.
    Raises: UserError that names the largest difference where it is no rounding.
    """
    largest = 0.0
    for batch in BATCHES:
        example = network.example(batch)
        outputs = run(example)
        if isinstance(network, FromImages):
            ids = outputs[0]
            other = float((ids != network(example)[0]).double().mean())
            if other > OTHER_IDS:
                raise UserError(f"{what} gives {other:.1%} of the tokens another id than torch: it is not kept")
            expected = network.of_ids(ids)
        else:
            expected = network(example)
        difference, scale = float((outputs[-1] - expected).abs().max()), max(1.0, float(expected.abs().max()))
        if not difference <= TOLERANCE * scale:
            raise UserError(
                f"{what} differs from torch by up to {difference:.3g} (outputs up to {scale:.3g}): it is not kept"
            )
        largest = max(largest, difference)
    return largest
