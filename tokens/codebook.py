"""Embeddings of token ids, and the nearest code of an embedding."""

import torch
import torch.nn.functional as F
from einops import rearrange


def embed(ids, codebook):
    """Look ids up.

    Args:
        ids: (b, h, w) int64.
        codebook: (k, c).
    Returns: embeddings, (b, c, h, w).
    """
    return rearrange(F.embedding(ids, codebook), "b h w c -> b c h w")


def nearest_code(embeddings, codebook, *, block=1 << 24):
    """The code whose direction is nearest, by cosine.

    Args:
        embeddings: (b, c, h, w).
        codebook: (k, c).
        block: at most this many similarities are held at a time, so memory is bounded.
    Returns: ids, (b, h, w) int64.
    """
    directions = F.normalize(codebook, dim=1)
    flat = rearrange(embeddings, "b c h w -> (b h w) c")  # its length does not change which code is nearest
    rows = max(1, block // len(codebook))
    nearest = [(part @ directions.T).argmax(dim=1) for part in flat.split(rows)]
    return rearrange(torch.cat(nearest), "(b h w) -> b h w", b=embeddings.shape[0], h=embeddings.shape[2])
