"""How many bytes packed tokens take: arithmetic alone, for those who only count."""

import math


def bits_per_token(codebook_size: int) -> int:
    """Bits that an id below `codebook_size` takes: 8 to 16.

    Raises: ValueError if codebook_size is not in [1, 65536].
    """
    if not 1 <= codebook_size <= 65536:
        raise ValueError(f"codebook_size must lie in [1, 65536], got {codebook_size}")
    return max(8, math.ceil(math.log2(codebook_size)))


def packed_bytes(tokens: int, codebook_size: int) -> int:
    """Bytes of a row of `tokens` ids."""
    return tokens + (bits_per_token(codebook_size) - 8) * math.ceil(tokens / 8)
