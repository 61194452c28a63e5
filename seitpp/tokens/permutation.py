"""A keyed permutation of [0, length) that needs no table: a Feistel network on a rectangle, with cycle walking.

Any length up to 2^40, O(1) memory, every index by itself: the sample order of an epoch is arithmetic.
Source: Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002 (the generalised Feistel method). An
index is a place (row, column) of the nearly square rectangle that just holds the set, so that almost none leaves it
and has to walk on.
"""

import math

import numpy as np

_ROUNDS = 6


def permute(indices, length, *, seed, epoch, part=()):
    """Where `indices` go under the permutation of (seed, epoch, part).

    Args:
        indices: integers in [0, length), any shape.
        length: size of the set, 1 to 2^40.
        seed: the run's seed.
        epoch: the pass over the set.
        part: further integers of the key, such as (rank, window).
    Returns: int64 array of the same shape; over all of [0, length) a bijection.
    Raises: ValueError if length or an index is out of range.
    """
    if not 1 <= length <= 2**40:
        raise ValueError(f"length must lie in [1, 2^40], got {length}")
    values = np.asarray(indices, dtype=np.int64)
    if values.size and not (int(values.min()) >= 0 and int(values.max()) < length):
        raise ValueError(f"indices must lie in [0, {length})")
    rows = math.isqrt(length - 1) + 1
    sides = (rows, -(-length // rows))
    keys = np.random.SeedSequence([seed, epoch, *part]).generate_state(_ROUNDS, np.uint32)
    result = _feistel(values.reshape(-1), sides, keys)
    while True:  # the rectangle has less than one row more than the set: few leave the set, and soon come back
        outside = np.flatnonzero(result >= length)
        if not outside.size:
            return result.reshape(values.shape)
        result[outside] = _feistel(result[outside], sides, keys)


def _feistel(values, sides, keys):
    """Add to the row what is hashed from the column, to the column what is hashed from the row, and so on."""
    moving, fixed = (part.astype(np.uint32) for part in np.divmod(values, sides[1]))
    for turn, key in enumerate(keys):
        side = np.uint32(sides[turn % 2])
        moving = moving + _hash_below(fixed, key, side)
        moving = np.minimum(moving, moving - side)  # modulo `side`: below it, the unsigned difference wraps to the top
        moving, fixed = fixed, moving
    return moving.astype(np.int64) * sides[1] + fixed  # an even number of turns: the row is the moving part again


def _hash_below(values, key, bound):
    """Hash uint32 values, keyed, to [0, bound): MurmurHash3's 32-bit finaliser (Appleby 2011), then scaled."""
    mixed = values ^ key
    mixed ^= mixed >> np.uint32(16)
    mixed *= np.uint32(0x85EBCA6B)
    mixed ^= mixed >> np.uint32(13)
    mixed *= np.uint32(0xC2B2AE35)
    mixed ^= mixed >> np.uint32(16)
    return ((mixed.astype(np.uint64) * np.uint64(bound)) >> np.uint64(32)).astype(np.uint32)
