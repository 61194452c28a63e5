"""Coding tables: how probable each code is beside its left and upper neighbour and at its place, in integers alone.

The logarithm of a code's weight is a sum of three entries of tables: one of the cluster of the token to the left, one
of the cluster of the token above, one of the cluster of the place (a multinomial logistic model). So the frequencies of
thousands of contexts come from a few kilobytes, by integer arithmetic, alike on every machine and in every language.
"""

import zlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

TOTAL_BITS = 16
TOTAL = 1 << TOTAL_BITS
"""The frequencies of a context add up to this."""
MOST_CLUSTERS = 64
MOST_FREQUENCIES = 1 << 22
"""Most frequencies of all contexts together: 8 MB in a decoder."""

_UNITS = 8
"""A logit is so many times a logarithm to base 2."""
_POWERS = np.array(
    [1073741824, 984625595, 902905651, 827968132, 759250125, 696235465, 638450708, 585461790], np.int64
)  # 2^(30 - i / 8), rounded


@dataclass(frozen=True, eq=False, kw_only=True)
class CodingTables:
    """What a row is coded with. K codes; T tokens of a row, line by line.

    Attributes:
        left: cluster of each code as the token to the left, and last that of no token there, (K + 1,) uint8.
        up: the same of the token above, (K + 1,) uint8.
        place: cluster of each place, (T,) uint8.
        left_logits: of each cluster and code, in eighths of a bit, (clusters, K) int8.
        up_logits: the same for `up`.
        place_logits: the same for `place`.
        width: tokens of a line.
    Raises: ValueError if shapes, types or clusters don't fit together.
    """

    left: np.ndarray
    up: np.ndarray
    place: np.ndarray
    left_logits: np.ndarray
    up_logits: np.ndarray
    place_logits: np.ndarray
    width: int = field(repr=False)

    def __post_init__(self) -> None:
        codes = self.codebook_size
        if not 1 <= codes <= TOTAL:
            raise ValueError(f"tables of {codes} codes; 1 to {TOTAL} can be coded")
        if self.contexts * codes > MOST_FREQUENCIES:
            raise ValueError(f"{self.contexts} contexts of {codes} codes are more than a decoder holds")
        for name, length in (("left", codes + 1), ("up", codes + 1), ("place", len(self.place))):
            clusters, logits = getattr(self, name), getattr(self, f"{name}_logits")
            if clusters.dtype != np.uint8 or clusters.shape != (length,):
                raise ValueError(f"{name} is {clusters.dtype} {clusters.shape}, expected uint8 ({length},)")
            if logits.dtype != np.int8 or logits.ndim != 2 or logits.shape[1] != codes:
                raise ValueError(f"{name}_logits is {logits.dtype} {logits.shape}, expected int8 (clusters, {codes})")
            if length and clusters.max() >= len(logits):
                raise ValueError(f"{name} names cluster {clusters.max()} of {len(logits)}")
        if self.width < 1 or len(self.place) % self.width:
            raise ValueError(f"{len(self.place)} places are no lines of {self.width}")

    @property
    def codebook_size(self) -> int:
        """K."""
        return self.place_logits.shape[1]

    @property
    def tokens(self) -> int:
        """T, tokens of a row."""
        return len(self.place)

    @property
    def contexts(self) -> int:
        """Number of contexts: of clusters to the left, times those above, times those of places."""
        return len(self.left_logits) * len(self.up_logits) * len(self.place_logits)

    def context_parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the left id, the upper id and the place add to the number of a context, three int64 arrays."""
        places = len(self.place_logits)
        return (
            self.left.astype(np.int64) * (len(self.up_logits) * places),
            self.up.astype(np.int64) * places,
            self.place.astype(np.int64),
        )

    def contexts_of(self, ids: np.ndarray) -> np.ndarray:
        """The context of every token.

        Args:
            ids: (b, T) integers below K.
        Returns: (b, T) int64.
        """
        left, up, place = self.context_parts()
        before, above = neighbours(ids, self.width, self.codebook_size)
        return left[before] + up[above] + place

    @cached_property
    def frequencies(self) -> np.ndarray:
        """How often each code is expected in each context, of 65,536: (contexts, K) int32, all at least 1."""
        codes = self.codebook_size
        left, up, place = (logits.astype(np.int16) for logits in (self.left_logits, self.up_logits, self.place_logits))
        logits = (left[:, None, None] + up[None, :, None] + place[None, None]).reshape(-1, codes)
        below = logits.max(axis=1, keepdims=True) - logits
        weights = _POWERS[below % _UNITS] >> np.minimum(below // _UNITS, 31)
        frequencies = 1 + weights * (TOTAL - codes) // weights.sum(axis=1, keepdims=True)
        rest = TOTAL - frequencies.sum(axis=1)
        frequencies[np.arange(len(frequencies)), weights.argmax(axis=1)] += rest
        return frequencies.astype(np.int32)

    @cached_property
    def order(self) -> np.ndarray:
        """The codes from the most to the least expected over all contexts, ties by the lower id, (K,) uint16.

        Slots are given out in this order: what is often read lies side by side in the cache.
        """
        return np.argsort(-self.frequencies.sum(axis=0), kind="stable").astype(np.uint16)

    @cached_property
    def ranks(self) -> np.ndarray:
        """The place of each code in `order`, (K,) int64."""
        return np.argsort(self.order, kind="stable")

    @cached_property
    def cumulative(self) -> np.ndarray:
        """The first slot of each code in `order` and, last, that of none, 65,536 as 0: (contexts, K + 1) uint16."""
        sums = np.zeros((self.contexts, self.codebook_size + 1), np.uint16)
        np.cumsum(self.frequencies[:, self.order], axis=1, out=sums[:, 1:], dtype=np.uint16)
        return sums

    def bits(self, ids: np.ndarray) -> float:
        """Bits that coding takes, without what fills the last byte of a row.

        Args:
            ids: (b, T) integers below K.
        """
        counts = np.bincount(self.frequencies[self.contexts_of(ids), ids].reshape(-1), minlength=TOTAL + 1)
        seen = np.flatnonzero(counts)
        return float((counts[seen] * (TOTAL_BITS - np.log2(seen))).sum())

    def to_bytes(self) -> bytes:
        """Content of coding.safetensors: all arrays one after the other, compressed by zlib."""
        from safetensors.numpy import save

        logits = self.left_logits, self.up_logits, self.place_logits
        parts = [self.left, self.up, self.place, *logits]
        stream = zlib.compress(b"".join(part.tobytes() for part in parts), 9)
        clusters = np.array([len(each) for each in logits], np.uint8)
        return save({"clusters": clusters, "tables": np.frombuffer(stream, np.uint8).copy()})


def neighbours(ids: np.ndarray, width: int, none: int) -> tuple[np.ndarray, np.ndarray]:
    """The ids to the left and above.

    Args:
        ids: (b, T) integers, lines of `width`.
        width: tokens of a line.
        none: what stands where there is no such token.
    Returns: two (b, T) arrays of int64.
    """
    lines = ids.reshape(len(ids), ids.shape[1] // width, width).astype(np.int64)
    before = np.pad(lines, ((0, 0), (0, 0), (1, 0)), constant_values=none)[:, :, :-1]
    above = np.pad(lines, ((0, 0), (1, 0), (0, 0)), constant_values=none)[:, :-1]
    return before.reshape(ids.shape), above.reshape(ids.shape)
