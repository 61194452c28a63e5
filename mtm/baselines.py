"""What a model without context would pay for a token: the measure that masked token modelling must beat."""

import numpy as np
import torch

from tokenadapt.geometry import centre


def frequency_baselines(store, other=None, *, view=None, sample=50_000):
    """Cross-entropy in nats per token of two models that know frequencies only.

    Args:
        store: TokenStore whose frequencies are counted (one added to every count).
        other: TokenStore that is predicted; None: `store` itself.
        view: (h, w) of the central part that counts; None: the whole grid.
        sample: at most this many rows of each are read, evenly spaced; where shards must be fetched, of four shards.
    Returns: {"unigram": one distribution for all places, "position": one for each place}.
    """
    codes = store.codebook_size
    counted, predicted = (_ids(each, view, sample) for each in (store, other or store))
    places = counted.shape[1]
    counts = torch.zeros(places, codes, dtype=torch.float64)
    for place in range(places):
        counts[place] = torch.bincount(counted[:, place], minlength=codes)
    unigram = (counts.sum(0) + 1.0) / (counts.sum() + codes)
    position = (counts + unigram) / (counts.sum(1, keepdim=True) + 1.0)  # backs off to the unigram
    return {
        "unigram": float(-unigram[predicted].log().mean()),
        "position": float(-position[torch.arange(places), predicted].log().mean()),
    }


def _ids(store, view, sample):
    return centre(store.ids(_sample_rows(store, sample)), view or store.grid).flatten(1)


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
