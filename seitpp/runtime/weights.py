"""Weights for use elsewhere: `model.safetensors` and `config.json` in one folder, and their fingerprint."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from seitpp.runtime.errors import UserError
from seitpp.runtime.files import replacing, write_json
from seitpp.runtime.safetensors_file import read_safetensors
from seitpp.runtime.schema import Schema, read_described

_AGAIN = "get the weights again, or run the command that made them"


def save_weights(folder: str | Path, state_dict: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
    """Write weights for use elsewhere: `model.safetensors` and `config.json`, the folder whole or not there.

    Args:
        folder: the destination, usually a run's `weights/`.
        state_dict: name to tensor.
        config: a dict that says how to build the model.
    """
    from safetensors.torch import save_file

    with replacing(folder) as temporary:
        temporary.mkdir()
        tensors = {name: tensor.detach().contiguous().cpu().clone() for name, tensor in state_dict.items()}
        save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
        write_json(temporary / "config.json", config)


def load_weights(folder: str | Path, schema: Schema) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what `save_weights` wrote: (state dict, config).

    Args:
        folder: a `weights/` folder, or a run folder that has one.
        schema: what config.json must say.
    Raises: UserError if there are no weights, a file is damaged, or config.json says something else.
    """
    config = read_config(folder, schema)
    return read_safetensors(weights_folder(folder) / "model.safetensors", _AGAIN), config


def read_config(folder: str | Path, schema: Schema) -> dict[str, Any]:
    """The config.json of weights alone. Arguments and errors: see `load_weights`."""
    return read_described(config_file(folder), schema, _AGAIN)


def config_file(folder: str | Path) -> Path:
    """Where the config.json of weights lies, for messages."""
    return weights_folder(folder) / "config.json"


def weights_folder(folder: str | Path) -> Path:
    """The folder that holds the weights of a run, or of what is such a folder itself.

    Raises: UserError if there are no weights.
    """
    folder = Path(folder)
    if (folder / "weights").is_dir():
        folder = folder / "weights"
    if not (folder / "model.safetensors").exists():
        raise UserError(f"{folder} holds no weights (model.safetensors): name a finished run or its weights/ folder")
    return folder


def fingerprint_of(state_dict: dict[str, torch.Tensor], preprocessing: dict[str, Any]) -> str:
    """SHA-256 over names, shapes and values of weights, and over the preprocessing."""
    digest = hashlib.sha256(json.dumps(preprocessing, sort_keys=True).encode())
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
