"""A keyed permutation of [0, length) that needs no table: a Feistel network on a rectangle, with cycle walking.

Any length up to 2^40, O(1) memory, every index by itself: the sample order of an epoch is arithmetic.
Source: Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002 (the generalised Feistel method). An
index is a place (row, column) of the nearly square rectangle that just holds the set, so that almost none leaves it
and has to walk on.

What is shuffled for a purpose has a stream of its own, by a registered name, so that no choice repeats another one.
"""

import math
import zlib
from collections.abc import Sequence

import numpy as np

_ROUNDS = 6

_OLD_STREAMS: dict[str, tuple[int, ...]] = {
    "sample order": (),  # part: (epoch,)
    "window order": (),  # part: (epoch, rank, window)
    "shard order": (0, 0, 0),  # part: (epoch,)
    "validation images": (2**31,),  # part: ()
    "validation rows": (),  # part: (label,)
}
"""Streams that are older than their names, and what follows `part` in their keys.

Their keys stay as they were, as every measured loss depends on them; so they may coincide: the validation rows of
class 3 are chosen as epoch 3 of as many samples is ordered.
"""
_NAMED_STREAMS = ("subset", "class balance", "task order", "few labels", "benchmark split", "explored rows")
"""Streams whose keys hold the name's CRC-32, which keeps them apart from all others."""
STREAMS = (*_OLD_STREAMS, *_NAMED_STREAMS)


def permute(
    indices: Sequence[int] | np.ndarray | int, length: int, *, seed: int, stream: str, part: Sequence[int] = ()
) -> np.ndarray:
    """Where `indices` go under the permutation of (seed, stream, part).

    Args:
        indices: integers in [0, length), any shape.
        length: size of the set, 1 to 2^40.
        seed: the run's seed.
        stream: what the permutation is for, one of STREAMS.
        part: integers that tell the permutations of a stream apart, such as (epoch,).
    Returns: int64 array of the same shape; over all of [0, length) a bijection.
    Raises: ValueError if length or an index is out of range, or there is no such stream.
    """
    if not 1 <= length <= 2**40:
        raise ValueError(f"length must lie in [1, 2^40], got {length}")
    values = np.asarray(indices, dtype=np.int64)
    if values.size and not (int(values.min()) >= 0 and int(values.max()) < length):
        raise ValueError(f"indices must lie in [0, {length})")
    rows = math.isqrt(length - 1) + 1
    sides = (rows, -(-length // rows))
    keys = _seed_sequence(seed, stream, part).generate_state(_ROUNDS, np.uint32)
    result = _feistel(values.reshape(-1), sides, keys)
    while True:  # the rectangle has less than one row more than the set: few leave the set, and soon come back
        outside = np.flatnonzero(result >= length)
        if not outside.size:
            return result.reshape(values.shape)
        result[outside] = _feistel(result[outside], sides, keys)


def _seed_sequence(seed: int, stream: str, part: Sequence[int]) -> np.random.SeedSequence:
    """The key of a permutation; of a named stream it can't equal another stream's, as numpy keeps spawn keys apart."""
    if stream in _OLD_STREAMS:
        return np.random.SeedSequence([seed, *part, *_OLD_STREAMS[stream]])
    if stream not in _NAMED_STREAMS:
        raise ValueError(f"no stream {stream!r}; register it beside {', '.join(STREAMS)}")
    return np.random.SeedSequence([seed, *part], spawn_key=(zlib.crc32(stream.encode()),))


def _feistel(values: np.ndarray, sides: tuple[int, int], keys: np.ndarray) -> np.ndarray:
    """Add to the row what is hashed from the column, to the column what is hashed from the row, and so on."""
    moving, fixed = (part.astype(np.uint32) for part in np.divmod(values, sides[1]))
    for turn, key in enumerate(keys):
        side = np.uint32(sides[turn % 2])
        moving = moving + _hash_below(fixed, key, side)
        moving = np.minimum(moving, moving - side)  # modulo `side`: below it, the unsigned difference wraps to the top
        moving, fixed = fixed, moving
    return moving.astype(np.int64) * sides[1] + fixed  # an even number of turns: the row is the moving part again


def _hash_below(values: np.ndarray, key: np.uint32, bound: np.uint32) -> np.ndarray:
    """Hash uint32 values, keyed, to [0, bound): MurmurHash3's 32-bit finaliser (Appleby 2011), then scaled."""
    mixed = values ^ key
    mixed ^= mixed >> np.uint32(16)
    mixed *= np.uint32(0x85EBCA6B)
    mixed ^= mixed >> np.uint32(13)
    mixed *= np.uint32(0xC2B2AE35)
    mixed ^= mixed >> np.uint32(16)
    return ((mixed.astype(np.uint64) * np.uint64(bound)) >> np.uint64(32)).astype(np.uint32)
