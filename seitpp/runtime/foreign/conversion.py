"""Foreign weights under our names, put in their places, all of them."""

import re
from collections.abc import Sequence
from typing import TypeVar

import torch

from seitpp.runtime.errors import UserError

Model = TypeVar("Model", bound=torch.nn.Module)


def translated(
    weights: dict[str, torch.Tensor], rules: Sequence[tuple[str, str]], source: object
) -> dict[str, torch.Tensor]:
    """Weights under other names.

    Args:
        weights: name to tensor.
        rules: list of (pattern, replacement), all applied to each name in order.
        source: where they are from, for messages.
    Returns: new dict.
    Raises: UserError if two names become one.
    """
    result = {}
    for name, tensor in weights.items():
        translation = name
        for pattern, replacement in rules:
            translation = re.sub(pattern, replacement, translation)
        if translation in result:
            raise UserError(f"{source} has {translation} under two names, one of them {name}: it is of another model")
        result[translation] = tensor
    return result


def fill(model: Model, weights: dict[str, torch.Tensor], source: object) -> Model:
    """Give a model its weights; each parameter must get one, and each weight must have its place.

    Args:
        model: a torch module; also on the meta device, which then only checks names and shapes.
        weights: name to tensor.
        source: where they are from, for messages.
    Returns: the model.
    Raises: UserError that names the first weight that is missing, unknown or of another shape.
    """
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in weights]
    unknown = [name for name in weights if name not in wanted]
    if missing or unknown:
        what = [f"lacks {name}" for name in missing[:1]] + [f"has an unknown {name}" for name in unknown[:1]]
        raise UserError(
            f"{source} {' and '.join(what)} ({len(missing)} missing, {len(unknown)} unknown): it is of another model"
        )
    for name, tensor in wanted.items():
        if tensor.shape != weights[name].shape:
            shapes = f"{tuple(weights[name].shape)}, expected {tuple(tensor.shape)}"
            raise UserError(f"{source}: {name} has the shape {shapes}: it is of another model")
    model.load_state_dict(weights)
    return model
