"""rANS on rows of ids in NumPy, all rows of a batch side by side: the reference, and what runs without numba.

A state x holds what is coded so far as one large number (range asymmetric numeral systems, Duda, arXiv 1311.2540).
Coding begins with x = 1 and the last token, so that decoding begins with the first and ends with x = 1. A row is x, its
highest byte first (`head_bytes` of them), then the 16-bit words that x ran over into, the last one first.
"""

import numpy as np

from seitpp.tokens.coding.tables import TOTAL, TOTAL_BITS, CodingTables

LOW = 1 << 24
"""A state below it takes in the next word, if there is one: x lies in [2^24, 2^40) before each token."""
HEAD_BYTES = 4
WORD_BITS = 16
FIRST = 1


def head_bytes(lengths: np.ndarray) -> np.ndarray:
    """Bytes of the state that rows begin with: 4, or 5 where a row's length is odd; of a row below 4, all."""
    return np.where(lengths < HEAD_BYTES, lengths, HEAD_BYTES + lengths % 2)


def encode(ids: np.ndarray, tables: CodingTables) -> tuple[np.ndarray, np.ndarray]:
    """Code rows.

    Args:
        ids: (b, T) integers below K.
        tables: of K codes and T tokens.
    Returns: (bytes of all rows, (n,) uint8; where each begins and, last, where they end, (b + 1,) int64).
    Raises: ValueError if an id is none, or rows have another length.
    """
    rows, tokens = ids.shape
    if tokens != tables.tokens or (ids.size and not (ids.min() >= 0 and ids.max() < tables.codebook_size)):
        raise ValueError(f"rows of {tables.tokens} ids below {tables.codebook_size} expected, got {ids.shape}")
    contexts = tables.contexts_of(ids)
    frequency = tables.frequencies[contexts, ids]
    before = tables.cumulative[contexts, tables.ranks[ids]].astype(np.int64)
    state = np.full(rows, FIRST, np.int64)
    words, counts = np.zeros((rows, tokens), np.uint16), np.zeros(rows, np.int64)
    for token in reversed(range(tokens)):
        often = frequency[:, token]
        full = np.flatnonzero(state >> (40 - TOTAL_BITS) >= often)
        words[full, counts[full]] = state[full] & 0xFFFF
        counts[full] += 1
        state[full] >>= WORD_BITS
        quotient, rest = np.divmod(state, often)
        state = (quotient << TOTAL_BITS) + rest + before[:, token]
    return _joined(state, words, counts)


def _joined(state: np.ndarray, words: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of their last states, (b,), and the first `counts` of their words, (b, T)."""
    places = np.arange(8 * HEAD_BYTES + 8, -1, -8)  # of the six bytes that a state below 2^40 never fills
    sizes = (state[:, None] >> places > 0).sum(axis=1)
    heads = np.where(counts > 0, np.maximum(sizes, HEAD_BYTES), sizes)
    offsets = np.concatenate([[0], np.cumsum(heads + 2 * counts)])
    content = np.zeros(offsets[-1], np.uint8)
    for byte in range(HEAD_BYTES + 1):
        having = np.flatnonzero(heads > byte)
        content[offsets[having] + byte] = state[having] >> 8 * (heads[having] - 1 - byte) & 0xFF
    for word in range(int(counts.max(initial=0))):
        having = np.flatnonzero(counts > word)
        at = offsets[having + 1] - 2 * (word + 1)
        content[at], content[at + 1] = words[having, word] >> 8, words[having, word] & 0xFF
    return content, offsets


def decode(
    content: np.ndarray, starts: np.ndarray, stops: np.ndarray, tables: CodingTables
) -> tuple[np.ndarray, np.ndarray]:
    """Decode rows; whatever their bytes are, ids lie below K and nothing outside of a row is read.

    Args:
        content: (n,) uint8.
        starts: where the rows begin in it, (b,) int64.
        stops: where they end, (b,) int64.
        tables: that they were coded with.
    Returns: (ids, (b, T) uint16; whether each row came out even, (b,) bool: a damaged one hardly ever does).
    """
    cumulative, codes, width = tables.cumulative, tables.codebook_size, tables.width
    left, up, place = tables.context_parts()
    state, at = _heads(content, starts, stops)
    ids = np.full((tables.tokens, len(starts)), codes, np.int64)
    none = np.full(len(starts), codes)
    for token in range(tables.tokens):
        before = ids[token - 1] if token % width else none
        above = ids[token - width] if token >= width else none
        context = left[before] + up[above] + place[token]
        slot = state & (TOTAL - 1)
        rank = _last_not_above(slot, cumulative, context, codes)
        first = cumulative[context, rank].astype(np.int64)
        often = (cumulative[context, rank + 1] - first - 1) % TOTAL + 1
        state = often * (state >> TOTAL_BITS) + slot - first
        taking = np.flatnonzero((state < LOW) & (at < stops))
        word = content[at[taking]].astype(np.int64) << 8 | content[at[taking] + 1]
        state[taking] = state[taking] << WORD_BITS | word
        at[taking] += 2
        ids[token] = tables.order[rank]
    return ids.T.astype(np.uint16), (state == FIRST) & (at == stops)


def _heads(content: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(The states that rows begin with, where their words begin)."""
    heads, state = head_bytes(stops - starts), np.zeros(len(starts), np.int64)
    for byte in range(HEAD_BYTES + 1):
        having = np.flatnonzero(heads > byte)
        state[having] = state[having] << 8 | content[starts[having] + byte]
    return state, starts + heads


def _last_not_above(slot: np.ndarray, cumulative: np.ndarray, context: np.ndarray, codes: int) -> np.ndarray:
    """The last rank of each row's context that begins not above the row's slot; found by halving."""
    rank = np.zeros(len(slot), np.int64)
    for bit in reversed(range((codes - 1).bit_length())):
        further = rank + (1 << bit)
        reached = (further < codes) & (cumulative[context, np.minimum(further, codes - 1)] <= slot)
        rank = np.where(reached, further, rank)
    return rank
