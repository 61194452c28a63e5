"""Weights by their names, from whatever a foreign checkpoint holds them in."""

from pathlib import Path

import torch

from seitpp.runtime.errors import UserError
from seitpp.runtime.foreign.torch_file import Placeholder, read_tensors
from seitpp.runtime.safetensors_file import read_safetensors
from seitpp.runtime.schema import shown

_HOLDS_WEIGHTS = ("state_dict", "model")
_HOLDS_AVERAGE = "model_ema"


def read_weights(path: str | Path, *, averaged: bool = False) -> dict[str, torch.Tensor]:
    """Name to tensor of a safetensors file, or of what torch.save wrote.

    Args:
        path: the file.
        averaged: whether to read the moving average of the weights that a training keeps beside them, `model_ema`.
    Raises: UserError if there is no such file, it is damaged, or it holds no weights, or no average.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is no file: give the file of the weights")
    if path.suffix != ".safetensors":
        return read_state_dict(path, averaged=averaged)
    if averaged:
        raise UserError(f"{path} is a safetensors file, which holds one set of weights: leave --ema out")
    return read_safetensors(path, "get it again")


def read_state_dict(path: str | Path, *, averaged: bool = False) -> dict[str, torch.Tensor]:
    """The weights in a torch.save file, by their names.

    It may hold a bare tensor (its name is then ""), a state dict, one of these under `state_dict` or `model`, or a
    whole pickled module, whose weights get the names that its own `state_dict()` gives them.

    Args:
        path: as for `read_tensors`.
        averaged: as for `read_weights`.
    Returns: dict of name to tensor; parameters come back as tensors.
    Raises: UserError as `read_tensors`, or if there are no weights in it.
    """
    value = read_tensors(path)
    if averaged:
        if not isinstance(value, dict) or _HOLDS_AVERAGE not in value:
            raise UserError(f"{path} holds no averaged weights ({_HOLDS_AVERAGE}): leave --ema out")
        value = value[_HOLDS_AVERAGE]
    for _ in range(2):  # {"model": {"state_dict": ...}} is the deepest that is published
        inner = [value[key] for key in _HOLDS_WEIGHTS if key in value] if isinstance(value, dict) else []
        if inner and isinstance(inner[0], dict | Placeholder):
            value = inner[0]
    if isinstance(value, torch.Tensor):
        value = {"": value}
    if isinstance(value, Placeholder):
        named, value = value.named, _module_weights(value, path)
        if not value:
            raise UserError(f"{path} holds an object of {named} without weights: give a state dict")
    if not isinstance(value, dict) or not value:
        raise UserError(f"{path} holds no weights but a {type(value).__name__}: give a state dict or a module")
    if not all(_is_weight(*item) for item in value.items()):
        names = shown(", ".join(sorted(map(str, value))[:5]), 80)
        raise UserError(f"{path} is no state dict, and has none under state_dict or model (it holds {names})")
    return {name: tensor.detach() for name, tensor in value.items()}


def _module_weights(module, path):
    """Name to tensor of a module that was not made and of those in it, in the order of `state_dict()`."""
    weights, waiting, seen = {}, [("", module)], 0
    while waiting:
        prefix, module = waiting.pop()
        seen += 1
        if seen > 10**5 or len(prefix) > 1000:
            raise UserError(f"{path} holds modules inside modules without end: no such file is published")
        unsaved = module.state.get("_non_persistent_buffers_set") if isinstance(module.state, dict) else None
        for name, tensor in {**_members(module, "_parameters"), **_members(module, "_buffers")}.items():
            if _is_weight(name, tensor) and not (isinstance(unsaved, set) and name in unsaved):
                weights[f"{prefix}{name}"] = tensor
        children = [(f"{prefix}{name}.", child) for name, child in _members(module, "_modules").items()]
        waiting += [child for child in reversed(children) if isinstance(child[1], Placeholder)]
    return weights


def _is_weight(name, value):
    return isinstance(name, str) and name.isprintable() and isinstance(value, torch.Tensor)


def _members(module, kind):
    members = module.state.get(kind) if isinstance(module.state, dict) else None
    return members if isinstance(members, dict) else {}
