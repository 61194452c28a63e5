"""Embeddings of token ids, and the nearest code of an embedding."""

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
        lookup: "cosine" (the papers' ViT-VQGAN: only directions count) or "euclidean" (VQModel).
        block: at most this many similarities are held at a time, so memory is bounded.
    Returns: ids, (b, h, w) int64.
    """
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
