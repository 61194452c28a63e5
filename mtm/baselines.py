"""What a model without context would pay for a token: the measure that masked token modelling must beat."""

import numpy as np
import torch


def frequency_baselines(store, other=None, *, view=None, sample=50_000):
    """Cross-entropy in nats per token of two models that know frequencies only.

    Args:
        store: TokenStore whose frequencies are counted (one added to every count).
        other: TokenStore that is predicted; None: `store` itself.
        view: (h, w) of the central part that counts; None: the whole grid.
        sample: at most this many rows of each are read, evenly spaced.
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
    from mtm.augment import centre

    rows = np.unique(np.linspace(0, len(store) - 1, min(sample, len(store))).astype(np.int64))
    return centre(store.ids(rows), view or store.grid).flatten(1)
