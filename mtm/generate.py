"""Fill hidden places by iterative decoding: the surest patches first, the others again when those are known.

Shapes: b batch, h w token grid, n patches of t tokens, k codes.
"""

import math

import torch
from torch import Tensor

from seitpp.mtm.masking import Masks
from seitpp.mtm.model import MaskedTokenModel
from seitpp.training.random_streams import Draws


def hidden_counts(total: int, steps: int) -> list[int]:
    """How many patches are hidden before the first step and after each: a cosine's quarter, one less at least.

    Args:
        total: patches hidden at the start.
        steps: passes of the model.
    Returns: steps + 1 integers from `total` to 0.
    Source: MaskGIT (arXiv 2202.04200), section 3.3.
    """
    counts = [total]
    for step in range(1, steps + 1):
        share = math.cos(0.5 * math.pi * step / steps)
        counts.append(max(0, min(counts[-1] - 1, math.floor(share * total))))
    return counts


@torch.no_grad()
def generate(
    model: MaskedTokenModel, ids: Tensor, hidden: Tensor, draws: Draws, *, steps: int = 8, temperature: float = 1.0,
    choice_noise: float = 4.5, dropped_count: int | None = None,
) -> Tensor:  # fmt: skip
    """Fill what is hidden in several passes of the model; visible ids stay as they are.

    Each pass draws ids for all that is hidden and keeps those of the patches of highest confidence: the mean
    log-probability of a patch's drawn ids, with Gumbel noise that falls to none at the last pass. The model sees a
    patch whole or not at all, so a patch is decided as a whole, and its visible ids are not seen while it is open.

    Args:
        model: a MaskedTokenModel in evaluation mode.
        ids: (b, h, w) int64 of the model's view; what they hold in hidden places has no influence.
        hidden: bool, patches (b, n) or tokens (b, h, w), True = to fill; samples may hide different numbers.
        draws: a Draws of the batch.
        steps: passes of the model. One pass at temperature 0 is `model.complete`.
        temperature: of the drawn ids; 0: the likeliest.
        choice_noise: std, roughly, of the confidence's noise at the first pass; 0: none.
        dropped_count: at most so many of the hidden patches never enter the encoder; None: all of them (of the sample
            that hides least).
    Returns: filled ids, (b, h, w) int64.
    Raises: ValueError if `steps` is below 1 or `hidden` has another shape.
    Source: MaskGIT (arXiv 2202.04200), on patches as MTM masks them.
    """
    if steps < 1:
        raise ValueError(f"steps = {steps} must be at least 1")
    filled = model.targets(ids)
    unknown = _unknown(model, hidden, filled)
    is_open = unknown.any(dim=2)
    counts = list(zip(*(hidden_counts(total, steps) for total in is_open.sum(dim=1).tolist()), strict=True))
    for step in range(steps):
        before, after = counts[step], counts[step + 1]
        if not any(before):
            break
        dropped = min(before) if dropped_count is None else min(*before, dropped_count)
        noise = draws.uniform(f"dropped/{step}", is_open.shape[1]).masked_fill(~is_open, math.inf)
        masks = Masks(is_open, _least(noise, dropped), max(before), dropped)
        logits = model.logits(model.decode(model.encode(model.encoder.unpatchify(filled), masks), masks)).float()
        drawn = logits
        if temperature > 0:
            drawn = logits + temperature * _gumbel(draws, f"ids/{step}", *logits.shape[1:])
        drawn = model.factors.likeliest(drawn)
        confidence = _confidence(model.factors, logits, drawn, unknown)
        scale = choice_noise * (1 - (step + 1) / steps)
        if scale > 0:
            confidence = confidence + scale * _gumbel(draws, f"confidence/{step}", is_open.shape[1])
        filled = torch.where(is_open[..., None] & unknown, drawn, filled)
        is_open = _least(confidence.masked_fill(~is_open, math.inf), torch.tensor(after, device=ids.device)[:, None])
    return model.encoder.unpatchify(filled)


def _unknown(model, hidden, filled):
    """Hidden tokens by patch, (b, n, t) bool."""
    height, width = model.encoder.view
    shape = tuple(hidden.shape)
    if shape == tuple(filled.shape[:2]):
        return hidden[..., None].expand(filled.shape)
    if shape != (len(filled), height, width):
        wanted = f"{tuple(filled.shape[:2])} for patches or {(len(filled), height, width)} for tokens"
        raise ValueError(f"hidden must have the shape {wanted}; got {shape}")
    return model.targets(hidden)


def _least(values, count):
    """The `count` (one for all or (b, 1)) least of each row, ties by place: (b, n) bool."""
    return values.argsort(dim=1, stable=True).argsort(dim=1) < count


def _confidence(factors, logits, drawn, unknown):
    """Mean log-probability of a patch's drawn ids, (b, n)."""
    numbers = zip(factors.parts(logits), factors.of(drawn), strict=True)
    sure = sum(part.log_softmax(dim=3).gather(3, number[..., None])[..., 0] for part, number in numbers)
    return (sure * unknown).sum(dim=2) / unknown.sum(dim=2).clamp_min(1)


def _gumbel(draws, name, *shape):
    """Standard Gumbel noise, (b, *shape)."""
    return -torch.log(-torch.log(draws.uniform(name, *shape).clamp_min(2.0**-25)))
