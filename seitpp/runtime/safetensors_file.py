"""Tensors of a safetensors file, with one line where it is none."""

from pathlib import Path

import torch

from seitpp.runtime.errors import UserError
from seitpp.runtime.rights import check_readable
from seitpp.runtime.schema import shown


def read_safetensors(file: str | Path, advice: str) -> dict[str, torch.Tensor]:
    """Name to tensor of a file.

    Args:
        file: its path.
        advice: what to do where it is broken.
    Raises: UserError if it is missing, no file, or broken.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = Path(file)
    if not file.is_file():
        raise UserError(f"{file} is missing: {advice}")
    check_readable(file)
    try:
        return load_file(file)
    except (SafetensorError, KeyError, ValueError, RuntimeError, OverflowError) as error:  # KeyError: an unknown type
        raise UserError(f"{file} is damaged ({shown(error, 80)}): {advice}") from error
