"""A codebook in a file of its own: the release's codebook.ckpt, or safetensors. Nothing in it is ever run."""

from pathlib import Path

import torch

from seitpp.runtime.errors import UserError
from seitpp.runtime.foreign.torch_file import read_tensors
from seitpp.runtime.rights import check_readable
from seitpp.runtime.safetensors_file import read_safetensors
from seitpp.runtime.weights import fingerprint_of
from seitpp.tokens.format.layout import MOST_CODES


def codebook_checksum(codebook: torch.Tensor) -> str:
    """SHA-256 of a codebook's shape and values, by which an exported file knows its own."""
    return fingerprint_of({"codebook": codebook}, {})


def read_codebook(path: str | Path) -> torch.Tensor:
    """Read a codebook without running anything.

    Args:
        path: .safetensors with the tensor `codebook` or with one tensor, or what torch.save wrote of a bare tensor.
    Returns: (k, c) float32.
    Raises: UserError if it holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is missing: give the codebook's file, such as the release's codebook.ckpt")
    try:
        codebook = _load_safetensors(path) if path.suffix == ".safetensors" else read_tensors(path)
    except (OSError, ValueError, KeyError) as error:
        check_readable(path)
        raise UserError(f"{path} can't be read as a codebook: expected one (k, c) tensor and nothing else") from error
    if not isinstance(codebook, torch.Tensor) or codebook.ndim != 2 or not codebook.is_floating_point():
        raise UserError(f"{path} is no codebook: expected one (k, c) tensor of floats and nothing else")
    if not 1 <= len(codebook) <= MOST_CODES:
        raise UserError(f"{path} has {len(codebook)} codes, expected 1 to {MOST_CODES:,}")
    return codebook.detach().float().contiguous()


def _load_safetensors(path: Path) -> torch.Tensor:
    tensors = read_safetensors(path, "give the codebook's file, or get it again")
    return tensors["codebook"] if len(tensors) != 1 else next(iter(tensors.values()))


def write_bare_tensor(path: str | Path, codebook: torch.Tensor) -> None:
    """Write a codebook as the release does: torch.save of the bare (k, c) float32 tensor."""
    torch.save(codebook.detach().cpu().float().contiguous(), path)
