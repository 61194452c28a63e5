"""How many bytes packed tokens take: arithmetic alone, for those who only count."""

import math
from typing import Any

PLANES = "planes"
"""Coding of packed tokens: one plane of bytes, then planes of bits (seitpp.tokens.codec)."""
RANS = "rans"
"""Coding of rows that are entropy-coded by the store's own tables (seitpp.tokens.coding)."""
CODINGS = (PLANES, RANS)
MOST_CODES = 1 << 24
"""Ids take three bytes at most."""
MOST_IN_ONE_TABLE = 1 << 16
"""What holds a number for each code and each of many things (coded rows, synonyms, a softmax) takes so many codes."""


def bits_per_token(codebook_size: int) -> int:
    """Bits that an id below `codebook_size` takes: 8 to 24.

    Raises: ValueError if codebook_size is not in [1, 2^24].
    """
    if not 1 <= codebook_size <= MOST_CODES:
        raise ValueError(f"codebook_size must lie in [1, {MOST_CODES}], got {codebook_size}")
    return max(8, (codebook_size - 1).bit_length())


def packed_bytes(tokens: int, codebook_size: int) -> int:
    """Bytes of a row of `tokens` ids."""
    return tokens + (bits_per_token(codebook_size) - 8) * math.ceil(tokens / 8)


def row_bytes_of(manifest: dict[str, Any]) -> int | None:
    """Bytes of each row's tokens in a store's shards; None where rows are coded and differ in length."""
    height, width = manifest["grid"]
    return None if manifest["coding"] == RANS else packed_bytes(height * width, manifest["codebook_size"])
