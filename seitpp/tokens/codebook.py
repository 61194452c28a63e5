"""Embeddings of token ids, and the nearest code of an embedding.

Codes of a lookup-free quantiser (MAGVIT-v2, arXiv 2310.05737) are all vectors of -1 and 1. Their look-up is "signs".
"""

import torch
import torch.nn.functional as F
from einops import rearrange

_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # torch 2.6 has but the other


def embed(ids: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """Look ids up.

    Args:
        ids: (b, h, w) int64.
        codebook: (k, c).
    Returns: embeddings, (b, c, h, w).
    """
    return rearrange(F.embedding(ids, codebook), "b h w c -> b c h w")


def nearest_code(
    embeddings: torch.Tensor, codebook: torch.Tensor, lookup: str = "cosine", *, block: int = 1 << 24
) -> torch.Tensor:
    """The nearest code of each embedding, in the sense of the tokenizer that the codebook belongs to.

    Args:
        embeddings: (b, c, h, w).
        codebook: (k, c).
        lookup: "cosine" (the papers' ViT-VQGAN: only directions count), "euclidean" (VQModel), or "signs" (the codes
            are those of `sign_codes`, of which the signs are the nearest: nothing is compared).
        block: at most this many similarities are held at a time, so memory is bounded.
    Returns: ids, (b, h, w) int64.
    """
    if lookup == "signs":
        return signs_to_ids(embeddings)
    flat = rearrange(embeddings, "b c h w -> (b h w) c")
    if lookup == "cosine":  # the length of an embedding does not change which direction is nearest
        codes, offset = F.normalize(codebook, dim=1), None
    else:  # |z - e|^2 is least where z.e - |e|^2 / 2 is largest
        codes, offset = codebook, -0.5 * codebook.square().sum(dim=1)
    # An exported program must not depend on the size of the batch, as the number of parts does.
    parts = (flat,) if _exporting() else flat.split(max(1, block // len(codes)))
    nearest = []
    for part in parts:
        similarity = part @ codes.T if offset is None else torch.addmm(offset, part, codes.T)
        nearest.append(similarity.argmax(dim=1))
    return rearrange(torch.cat(nearest), "(b h w) -> b h w", b=embeddings.shape[0], h=embeddings.shape[2])


def sign_codes(bits: int) -> torch.Tensor:
    """All codes of a lookup-free quantiser, (2^bits, bits): entry c of code i is 1 where bit c of i is set, else -1."""
    ids = torch.arange(2**bits)
    codes = torch.empty(2**bits, bits)
    for bit in range(bits):  # a column at a time: nothing else of that size is in memory
        codes[:, bit] = ((ids >> bit) & 1) * 2 - 1
    return codes


def signs_to_ids(embeddings: torch.Tensor) -> torch.Tensor:
    """The codes of `sign_codes` that have the signs of embeddings, 0 counting as below: (b, c, h, w) to (b, h, w)."""
    places = 2 ** torch.arange(embeddings.shape[1], device=embeddings.device)
    return ((embeddings > 0) * rearrange(places, "c -> c 1 1")).sum(dim=1)


def lookup_among(lookup: str) -> str:
    """How the nearest of some of the codes is meant, where that of all is `lookup`."""
    return "euclidean" if lookup == "signs" else lookup
