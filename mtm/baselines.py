"""What a model without context would pay for a token: the measure that masked token modelling must beat."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange

from seitpp.tokens.code_factors import factors_of
from seitpp.tokens.store import TokenStore
from seitpp.tokens.views import centre

_ROWS_AT_ONCE = 4096


def frequency_baselines(
    store: TokenStore, other: TokenStore | None = None, *, view: Sequence[int] | None = None, sample: int = 50_000
) -> dict[str, float]:
    """Cross-entropy in nats per token of two models that know frequencies only.

    Of more than 65,536 codes they know those of the two numbers that an id is split into, as a model does.

    Args:
        store: TokenStore whose frequencies are counted (one added to every count).
        other: TokenStore that is predicted; None: `store` itself.
        view: (h, w) of the central part that counts; None: the whole grid.
        sample: at most this many rows of each are read, evenly spaced; where shards must be fetched, of four shards.
    Returns: {"unigram": one distribution for all places, "position": one for each place}.
    """
    factors = factors_of(store.codebook_size)
    counts = _counts(store, view, sample, factors)
    predicted = counts if other is None else _counts(other, view, sample, factors)
    found = {"unigram": 0.0, "position": 0.0}
    for known, wanted in zip(factors.parts(counts), factors.parts(predicted), strict=True):
        unigram = (known.sum(0) + 1.0) / (known.sum() + known.shape[1])
        position = (known + unigram) / (known.sum(1, keepdim=True) + 1.0)  # backs off to the unigram
        for name, model in (("unigram", unigram), ("position", position)):
            found[name] += float(-(wanted * model.log()).sum() / wanted.sum())
    return found


def _counts(store, view, sample, factors):
    """How often each code, or each of its numbers' values, stands at each place of the view, (places, k) float64."""
    view, codes = view or store.grid, factors.total
    first = codes * torch.arange(math.prod(view))[:, None]  # each place counts in a row of its own
    counts = torch.zeros(len(first) * codes, dtype=torch.float64)
    rows = _sample_rows(store, sample)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        ids = centre(store.ids(rows[start : start + _ROWS_AT_ONCE]), view).flatten(1)
        counts += torch.bincount((factors.rows(ids) + first).flatten(), minlength=len(counts))
    return rearrange(counts, "(n k) -> n k", k=codes)


def _sample_rows(store, sample):
    """Rows spaced evenly over the store, or over four of its shards where each costs a download."""
    if store.files.window is None:
        return _evenly(0, len(store), sample)
    filled = np.flatnonzero(np.diff(store.shard_offsets))
    shards = filled[_evenly(0, len(filled), 4)]
    spans = [(store.shard_offsets[shard], store.shard_offsets[shard + 1]) for shard in shards]
    return np.concatenate([_evenly(start, stop, sample // len(spans)) for start, stop in spans])


def _evenly(start, stop, count):
    return np.unique(np.linspace(start, stop - 1, min(count, stop - start)).astype(np.int64))
