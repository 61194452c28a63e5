"""A keyed permutation of [0, length) that needs no table: a Feistel network with cycle walking.

Any length up to 2^40, O(1) memory, every index by itself: the sample order of an epoch is arithmetic.
Source: Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002 (the generalised Feistel method).
"""

import numpy as np

_ROUNDS = 6


def permute(indices, length, *, seed, epoch):
    """Where `indices` go under the permutation of (seed, epoch).

    Args:
        indices: integers in [0, length), any shape.
        length: size of the set, 1 to 2^40.
        seed: the run's seed.
        epoch: the pass over the set.
    Returns: int64 array of the same shape; over all of [0, length) a bijection.
    Raises: ValueError if length or an index is out of range.
    """
    if not 1 <= length <= 2**40:
        raise ValueError(f"length must lie in [1, 2^40], got {length}")
    values = np.asarray(indices, dtype=np.uint64)
    if values.size and int(values.max()) >= length:
        raise ValueError(f"indices must lie in [0, {length})")
    half_bits = np.uint64(max(1, ((length - 1).bit_length() + 1) // 2))
    keys = np.random.SeedSequence([seed, epoch]).generate_state(_ROUNDS, np.uint64)
    result = _feistel(values, half_bits, keys)
    while True:  # walk those that left [0, length) until they are back: at most a few rounds, as the domain is < 4 x
        outside = result >= length
        if not outside.any():
            return result.astype(np.int64)
        result = np.where(outside, _feistel(result, half_bits, keys), result)


def _feistel(values, half_bits, keys):
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    left, right = values >> half_bits, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right, key) & mask)
    return (left << half_bits) | right


def _mix(values, key):
    """SplitMix64's finaliser (Steele, Lea and Flood 2014), keyed."""
    with np.errstate(over="ignore"):
        mixed = values + key
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
