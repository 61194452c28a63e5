"""The decoder compiled by numba: the ids that `seitpp.tokens.coding.rans` gives, and many times as fast.

What limits it is the cache and wrongly guessed branches, not arithmetic (benchmarks/coding.py). So tables are 16 bits
wide, the upper bits of a slot lead close to its code, and `LANES` rows are decoded by turns: while one waits for its
tables, another goes on.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from seitpp.tokens.coding.tables import TOTAL_BITS, CodingTables

LANES = 3
BUCKET_BITS = 9


class Kernel:
    """Decodes rows that were coded with some tables.

    Args:
        tables: the tables.
    Raises: ImportError if there is no numba.
    """

    def __init__(self, tables: CodingTables) -> None:
        self._decode = _compiled()
        self.tables = tables
        order = np.append(tables.order, tables.codebook_size)  # neighbours are looked up by rank; the last is none
        left, up, place = tables.context_parts()
        parts = (left[order].astype(np.uint32), up[order].astype(np.uint32), place.astype(np.uint32))
        self._arrays = (*parts, tables.cumulative, first_ranks(tables.cumulative), tables.order)

    def decode(self, content: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Decode rows; takes and gives what `rans.decode` does. Threads may call it side by side.

        Raises: ValueError if a row lies outside of `content`.
        """
        if len(starts) and not (starts.min() >= 0 and (starts <= stops).all() and stops.max() <= len(content)):
            raise ValueError("a row lies outside of the bytes")
        ids = np.empty((len(starts), self.tables.tokens), np.uint16)
        even = np.empty(len(starts), np.bool_)
        self._decode(content, starts, stops, self.tables.width, *self._arrays, ids, even)
        return ids, even


def first_ranks(cumulative: np.ndarray) -> np.ndarray:
    """The rank that the first slot of each bucket of slots belongs to: (contexts, buckets) uint16."""
    slots = np.arange(1 << BUCKET_BITS) << (TOTAL_BITS - BUCKET_BITS)
    ranks = [np.searchsorted(context[:-1], slots, side="right") - 1 for context in cumulative]
    return np.stack(ranks).astype(np.uint16)


@lru_cache(maxsize=1)
def _compiled() -> Any:
    """The function that decodes. Compiling it takes a second; numba keeps it beside this file or in its own cache."""
    import numba

    try:
        return numba.njit(nogil=True, cache=True)(_decode_rows)
    except RuntimeError:  # there is no folder that it may be kept in
        return numba.njit(nogil=True)(_decode_rows)


def _decode_rows(content, starts, stops, width, left, up, place, cumulative, first, order, ids, even):
    """Compiled. Every index is bounded: ranks lie below K, contexts are sums of checked parts, bytes lie in the row."""
    tokens, rows = place.shape[0], starts.shape[0]
    codes = order.shape[0]
    state, at, before = np.zeros(LANES, np.int64), np.zeros(LANES, np.int64), np.zeros(LANES, np.int64)
    for block in range(0, rows, LANES):
        lanes = min(LANES, rows - block)
        for lane in range(LANES):
            row = min(block + lane, rows - 1)
            length = stops[row] - starts[row]
            head = length if length < 4 else 4 + length % 2
            state[lane], at[lane] = 0, starts[row] + head
            for byte in range(starts[row], at[lane]):
                state[lane] = state[lane] << 8 | np.int64(content[byte])
        for token in range(tokens):
            first_of_line, first_line = token % width == 0, token < width
            for lane in range(LANES):
                row = min(block + lane, rows - 1)  # lanes without a row of their own do the last one again
                above = codes if first_line else np.int64(ids[row, token - width])
                context = np.int64(left[codes if first_of_line else before[lane]] + up[above] + place[token])
                slot = state[lane] & 0xFFFF
                rank = np.int64(first[context, slot >> (TOTAL_BITS - BUCKET_BITS)])
                while rank + 1 < codes and np.int64(cumulative[context, rank + 1]) <= slot:
                    rank += 1
                begin = np.int64(cumulative[context, rank])
                often = ((np.int64(cumulative[context, rank + 1]) - begin - 1) & 0xFFFF) + 1
                value = often * (state[lane] >> 16) + slot - begin
                if value < 16777216 and at[lane] < stops[row]:
                    value = value << 16 | np.int64(content[at[lane]]) << 8 | np.int64(content[at[lane] + 1])
                    at[lane] += 2
                state[lane] = value
                ids[row, token] = before[lane] = rank
        for lane in range(lanes):
            row = block + lane
            even[row] = state[lane] == 1 and at[lane] == stops[row]
            for token in range(tokens):
                ids[row, token] = order[ids[row, token]]
