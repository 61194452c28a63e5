"""Fit coding tables to rows of ids: clusters by k-means, logits by maximum likelihood; the cheapest shape is chosen.

Costs are counted whole, bits of the rows and bytes of the tables: few rows get small tables, many rows large ones.
"""

from collections.abc import Iterable

import numpy as np
import torch

from seitpp.tokens.coding import rans
from seitpp.tokens.coding.tables import TOTAL, CodingTables, neighbours
from seitpp.tokens.format.layout import packed_bytes

SHAPES = ((1, 1, 1), (1, 1, 16), (4, 4, 1), (8, 8, 1), (8, 8, 8), (16, 16, 4), (16, 16, 16), (32, 32, 4), (64, 64, 1))
"""Clusters of tokens to the left, of those above, and of places, that are tried; from small to large."""
FIT_ROWS = 20_000
"""Rows that tables are fitted to, if there are so many: more would change little."""
MOST_FITTED = 1 << 21
"""Most frequencies of all contexts together: 4 MB, what a decoder's cache holds, and seconds of fitting."""

_LOGITS_A_BIT = 8
_STEPS = 50
_OFFSET_BYTES = 4
"""Of a coded row, beside its bytes: where it begins."""
_PRIOR = 20.0
"""Observations that the overall distribution counts for beside those of a cluster."""
_DECAY = 0.2
_COLUMNS = 256
"""Codes whose distribution tells clusters apart: those used most; all others count as one."""


def fit_tables(ids: np.ndarray, codebook_size: int, width: int, *, rows: int, seed: int = 0) -> CodingTables:
    """The tables that cost least.

    Args:
        ids: rows to fit to and to measure with, (b, T) integers below K.
        codebook_size: K.
        width: tokens of a line.
        rows: rows that will be coded; what these cost is scaled to so many.
        seed: of the clusters.
    Raises: ValueError if there are no rows.
    """
    if not ids.size:
        raise ValueError("no tokens to fit tables to")
    best, least, worse = None, float("inf"), 0
    for shape in shapes_for(codebook_size):
        tables = fit_shape(ids, codebook_size, width, shape, seed=seed)
        cost = tables.bits(ids) / 8 * rows / len(ids) + len(tables.to_bytes())
        best, least, worse = (tables, cost, 0) if cost < least else (best, least, worse + 1)
        if worse == 2:  # larger ones cost more still
            break
    assert best is not None, "costs are numbers"
    return best


def choose_tables(ids: np.ndarray, codebook_size: int, width: int, *, rows: int) -> CodingTables | None:
    """The tables that cost least; None where packed rows are smaller still. Args: as for `fit_tables`.

    Of more than 65,536 codes there are no tables, so rows stay packed.
    """
    if not ids.size or codebook_size > TOTAL:
        return None
    tables = fit_tables(ids, codebook_size, width, rows=rows)
    content, _ = rans.encode(ids, tables)
    coded = rows * (len(content) / len(ids) + _OFFSET_BYTES) + len(tables.to_bytes())
    return tables if coded < rows * packed_bytes(ids.shape[1], codebook_size) else None


def spread_rows(rows: int, most: int) -> np.ndarray:
    """At most so many of a store's rows, evenly spaced, (n,) int64."""
    return np.unique(np.linspace(0, rows - 1, min(rows, most)).astype(np.int64)) if rows else np.zeros(0, np.int64)


def shapes_for(codebook_size: int) -> Iterable[tuple[int, int, int]]:
    """Those of SHAPES whose tables a decoder holds in its cache; the smallest always."""
    return [shape for shape in SHAPES if shape == (1, 1, 1) or np.prod(shape) * codebook_size <= MOST_FITTED]


def fit_shape(
    ids: np.ndarray, codebook_size: int, width: int, shape: tuple[int, int, int], *, seed: int = 0
) -> CodingTables:
    """The most likely tables with so many clusters (to the left, above, of places); see `fit_tables`."""
    left, up = (each.reshape(-1) for each in neighbours(ids, width, codebook_size))
    place = np.tile(np.arange(ids.shape[1]), len(ids))
    flat = ids.reshape(-1).astype(np.int64)
    sizes = (codebook_size + 1, codebook_size + 1, ids.shape[1])
    clusters = [
        _clusters(by, flat, size, count, codebook_size, seed)
        for by, size, count in zip((left, up, place), sizes, shape, strict=True)
    ]
    counts = np.zeros([each.max() + 1 for each in clusters] + [codebook_size])
    number = np.ravel_multi_index(
        (clusters[0][left], clusters[1][up], clusters[2][place], flat), counts.shape
    )  # fmt: skip
    counts.reshape(-1)[:] = np.bincount(number, minlength=counts.size)
    logits = [_as_int8(each) for each in _most_likely(torch.from_numpy(counts))]
    left, up, place = (each.astype(np.uint8) for each in clusters)
    return CodingTables(
        left=left, up=up, place=place, left_logits=logits[0], up_logits=logits[1], place_logits=logits[2], width=width
    )


def _clusters(by: np.ndarray, ids: np.ndarray, size: int, count: int, codebook_size: int, seed: int) -> np.ndarray:
    """Cluster of each of `size` neighbours or places by the ids that occur beside it, (size,) int64."""
    if count == 1:
        return np.zeros(size, np.int64)
    if count >= size:
        return np.arange(size)
    from sklearn.cluster import KMeans

    used = np.bincount(ids, minlength=codebook_size)
    columns = np.full(codebook_size, min(_COLUMNS, codebook_size))
    columns[np.argsort(-used, kind="stable")[:_COLUMNS]] = np.arange(min(_COLUMNS, codebook_size))
    wide = int(columns.max()) + 1
    seen = np.bincount(by * wide + columns[ids], minlength=size * wide).reshape(size, wide).astype(np.float64)
    weights = seen.sum(axis=1)
    overall = seen.sum(axis=0) / weights.sum()
    likely = (seen + _PRIOR * overall) / (weights[:, None] + _PRIOR)
    # Square roots of probabilities: their squared distance is Hellinger's, under which rare codes count too.
    count = min(count, len(np.unique(likely, axis=0)))  # codes that never occur are alike
    fitted = KMeans(count, n_init="auto", max_iter=50, random_state=seed)  # once, from k-means++
    labels = fitted.fit_predict(np.sqrt(likely), sample_weight=weights + 1e-3)
    return np.unique(labels, return_inverse=True)[1].reshape(-1)


def _most_likely(counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of maximum likelihood with a small weight decay, natural logarithms.

    Args:
        counts: of each code in each context, (left, up, place, K) float64.
    Returns: left, up and place logits, (clusters, K) each; the largest of each row of the last is 0.
    """
    codes = counts.shape[-1]
    overall = counts.sum((0, 1, 2)) + 0.5
    overall = overall / overall.sum()
    by_place = counts.sum((0, 1)) + _PRIOR * overall
    left, up = (torch.zeros(counts.shape[axis], codes, dtype=torch.float64) for axis in (0, 1))
    place = (by_place / by_place.sum(1, keepdim=True)).log()
    contexts = counts.sum(-1)
    sums = [counts.sum([axis for axis in range(3) if axis != kept]) for kept in range(3)]
    parameters = [each.requires_grad_() for each in (left, up, place)]
    optimizer = torch.optim.LBFGS(parameters, max_iter=_STEPS, history_size=6, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits = left[:, None, None] + up[None, :, None] + place
        unlikely = (contexts * logits.logsumexp(-1)).sum()
        for each, seen in zip(parameters, sums, strict=True):
            unlikely = unlikely - (each * seen).sum()
        decay = left.square().sum() + up.square().sum() + (place - overall.log()).square().sum()
        total = (unlikely + _DECAY * decay) / contexts.sum()
        total.backward()
        return total

    optimizer.step(loss)
    left, up, place = (each.detach() for each in parameters)
    common = left.mean(0) + up.mean(0)  # in one table, so that all three stay within what int8 holds
    place = place + common
    return left - left.mean(0), up - up.mean(0), place - place.max(1, keepdim=True).values


def _as_int8(logits: torch.Tensor) -> np.ndarray:
    """Natural logarithms in the tables' units."""
    units = (logits.numpy() / np.log(2) * _LOGITS_A_BIT).round()
    return units.clip(-128, 127).astype(np.int8)
