"""Foreign weights under our names, put in their places, all of them."""

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from seitpp.runtime.errors import UserError
from seitpp.runtime.schema import shown

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


def built(make: Callable[[], Model], weights: dict[str, torch.Tensor], source: object) -> Model:
    """A model with its weights. It takes no memory before their names and shapes are found to be those of the model.

    Args:
        make: makes the model, whose sizes a file has said.
        weights: name to tensor.
        source: where they are from, for messages.
    Returns: the model.
    Raises: UserError as `fill`, or if there can be no model of such sizes.
    """
    try:
        with torch.device("meta"):
            sketch = make()
    except UserError:
        raise
    except Exception as error:  # sizes that don't fit each other fail in whatever they meet first
        raise UserError(f"{source} is of a model that can't be built ({shown(error, 100)}): get it again") from error
    try:
        sketch.load_state_dict(weights, assign=True)  # by torch, as models may rename what was called otherwise once
    except RuntimeError as error:
        reason = shown(str(error).partition("\n")[2], 160)
        raise UserError(f"{source} is not of the model that it says ({reason}): get it again") from error
    model = make()
    model.load_state_dict(weights)
    return model


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
        what = [f"lacks {name}" for name in missing[:1]]
        what += [f"has an unknown {shown(name, 80)}" for name in unknown[:1]]
        raise UserError(
            f"{source} {' and '.join(what)} ({len(missing)} missing, {len(unknown)} unknown): it is of another model"
        )
    for name, tensor in wanted.items():
        if tensor.shape != weights[name].shape:
            shapes = f"{tuple(weights[name].shape)}, expected {tuple(tensor.shape)}"
            raise UserError(f"{source}: {name} has the shape {shapes}: it is of another model")
        if tensor.is_floating_point() and not weights[name].is_floating_point():
            kind = str(weights[name].dtype).removeprefix("torch.")
            raise UserError(f"{source}: {name} holds {kind}, expected floating-point numbers: it is of another model")
    model.load_state_dict(weights)
    return model
