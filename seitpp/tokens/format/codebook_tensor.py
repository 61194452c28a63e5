"""The tensor of `codebook.safetensors`: the codes, or, where they are all vectors of -1 and 1, how many bits they have.

2^18 such codes would take 18.9 MB, more than 30,000 images of theirs; the number of bits says as much.
"""

import torch

from seitpp.runtime.errors import UserError
from seitpp.tokens.codebook import sign_codes

MOST_BYTES = 1 << 31
"""A codebook of more has no place in a store: it is read whole by all that reads the store."""


def tensors_of(codebook: torch.Tensor, lookup: str) -> dict[str, torch.Tensor]:
    """What the file holds of a codebook, (k, c).

    Raises: UserError if the look-up is "signs" and these are not the codes of it, or the codebook is too large.
    """
    if lookup == "signs":
        if not torch.equal(codebook.detach().float().cpu(), sign_codes(codebook.shape[1])):
            raise UserError("the look-up is signs, but the codes are not all vectors of -1 and 1 in the order of bits")
        return {"bits": torch.tensor([codebook.shape[1]], dtype=torch.uint8)}
    if codebook.numel() * 4 > MOST_BYTES:
        size, most = codebook.numel() * 4 / 1e9, MOST_BYTES / 1e9
        raise UserError(
            f"a codebook of {len(codebook):,} codes of {codebook.shape[1]} numbers takes {size:.1f} GB, and a store "
            f"holds at most {most:.1f} GB: take a tokenizer of fewer codes"
        )
    return {"codebook": codebook.float().contiguous()}


def misfit(tensors: dict[str, torch.Tensor], lookup: str, codebook_size: int) -> str | None:
    """What a file holds instead of what it must; None where it holds that.

    Args:
        tensors: content of the file.
        lookup: of the store.
        codebook_size: K of the store.
    """
    if lookup == "signs":
        bits = tensors["bits"]
        if bits.dtype == torch.uint8 and bits.shape == (1,) and 2 ** int(bits) == codebook_size:
            return None
        return f"{_shown(bits)}, expected uint8 (1,), the number of bits of {codebook_size} codes"
    codes = tensors["codebook"]
    if codes.ndim == 2 and codes.dtype == torch.float32 and len(codes) == codebook_size:
        return None
    return f"{_shown(codes)}, expected float32 ({codebook_size}, c)"


def codebook_of(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """The codes of a file that has no `misfit`, (k, c) float32."""
    return sign_codes(int(tensors["bits"])) if "bits" in tensors else tensors["codebook"]


def _shown(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
