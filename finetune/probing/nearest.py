"""Nearest neighbours by cosine: what the training set's k most similar rows vote for, in bounded memory.

Of 10,000 rows against 1.28 million the similarities would take 51 GB: they are made a block at a time, and of each
block only the k largest live on.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seitpp.finetune.probing.feature_set import FeatureSet
from seitpp.finetune.probing.hits import Hits

if TYPE_CHECKING:
    from accelerate import Accelerator

Device = torch.device | str

QUERIES, BANK = 1024, 65536
"""Rows of a block of similarities (268 MB)."""
TEMPERATURE = 0.07


def nearest_neighbours(
    train: FeatureSet, test: FeatureSet, ks: Iterable[int], *, accelerator: "Accelerator",
    temperature: float = TEMPERATURE, blocks: tuple[int, int] = (QUERIES, BANK),
) -> dict[int, float]:  # fmt: skip
    """Accuracy of votes weighted by exp(cosine / temperature), over all processes, each of which asks for a part.

    Args:
        train: FeatureSet that votes, of (rows, d) features.
        test: FeatureSet that asks.
        ks: how many vote; of fewer rows all do.
        accelerator: accelerate.Accelerator.
        temperature: of the votes; the lower, the more the nearest counts.
        blocks: rows of `test` and of `train` that are compared at a time.
    Returns: {k: accuracy}.
    Source: DINO (arXiv 2104.14294), after Wu et al. (arXiv 1805.01978).
    """
    found = measure_neighbours(train, test, ks, accelerator=accelerator, temperature=temperature, blocks=blocks)
    return {k: measured["accuracy"] for k, measured in found.items()}


@torch.no_grad()
def measure_neighbours(
    train: FeatureSet, test: FeatureSet, ks: Iterable[int], *, accelerator: "Accelerator",
    temperature: float = TEMPERATURE, blocks: tuple[int, int] = (QUERIES, BANK),
) -> dict[int, dict[str, float]]:  # fmt: skip
    """What `nearest_neighbours` measures, and more: {k: {"accuracy", "mean_per_class"}}; its arguments."""
    ks, classes, device = sorted(ks), len(train.labelled.classes), accelerator.device
    targets = torch.from_numpy(train.labelled.targets).to(device)
    hits = Hits(classes, len(ks), device)
    layout = {"device": device, "rank": accelerator.process_index, "world_size": accelerator.num_processes}
    for features, wanted in test.chunks(blocks[0], **layout):
        bank = (F.normalize(each, dim=1) for each, _ in train.chunks(blocks[1], device=device))
        found = most_similar(F.normalize(features, dim=1), bank, ks[-1])
        hits.add(votes(*found, targets, ks, classes=classes, temperature=temperature), wanted)
    return dict(zip(ks, hits.measures(accelerator), strict=True))


@torch.no_grad()
def neighbours_of(
    train: FeatureSet, test: FeatureSet, places: np.ndarray, k: int, *, device: Device,
    blocks: tuple[int, int] = (QUERIES, BANK),
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """The k training rows that are most similar to each of some test rows, by cosine; a row is no neighbour of itself.

    Args:
        train: FeatureSet that is searched, of (rows, d) features.
        test: FeatureSet that asks.
        places: in its labelled rows, (q,) int64.
        k: how many; of fewer rows all.
        device: where similarities are computed.
        blocks: rows of `test` and of `train` that are compared at a time.
    Returns: (similarities, (q, k) float32, largest first; places in the labelled rows of `train`, (q, k) int64).
    """
    same = train.labelled.store.fingerprint == test.labelled.store.fingerprint
    similarities, found = [], []
    for start in range(0, len(places), blocks[0]):
        part = places[start : start + blocks[0]]
        queries = F.normalize(test.examples(part, device)[0], dim=1)
        bank = (F.normalize(each, dim=1) for each, _ in train.chunks(blocks[1], device=device))
        values, rows = (each.cpu().numpy() for each in most_similar(queries, bank, k + same))
        if same:
            itself = train.labelled.rows[rows] == test.labelled.rows[part][:, None]
            others = np.argsort(itself, axis=1, kind="stable")[:, : min(k, rows.shape[1] - 1)]
            values, rows = (np.take_along_axis(each, others, axis=1) for each in (values, rows))
        similarities.append(values)
        found.append(rows)
    return np.concatenate(similarities), np.concatenate(found)


def most_similar(queries: Tensor, bank: Iterable[Tensor], k: int) -> tuple[Tensor, Tensor]:
    """The k largest products of each query with the rows of a bank, largest first.

    Args:
        queries: (q, d).
        bank: its rows in chunks, each (n, d).
        k: how many; of a smaller bank all.
    Returns: (products (q, k), rows of the bank (q, k) int64).
    """
    best = queries.new_empty(len(queries), 0)
    rows = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    start = 0
    for chunk in bank:
        values, places = (queries @ chunk.T).topk(min(k, len(chunk)), dim=1)
        best, rows = torch.cat([best, values], dim=1), torch.cat([rows, places + start], dim=1)
        best, kept = best.topk(min(k, best.shape[1]), dim=1)
        rows = rows.gather(1, kept)
        start += len(chunk)
    return best, rows


def votes(
    similarities: Tensor, rows: Tensor, targets: Tensor, ks: Sequence[int], *, classes: int, temperature: float
) -> Tensor:
    """The class with the most votes, for each k.

    Args:
        similarities: of the nearest rows, largest first, (q, k).
        rows: which they are, (q, k) int64.
        targets: class of every row, int64.
        ks: rising.
        classes: how many.
        temperature: a row's vote weighs exp(similarity / temperature).
    Returns: (q, len(ks)) int64.
    """
    weights = ((similarities - similarities[:, :1]) / temperature).exp()  # of the nearest 1: nothing overflows
    total = weights.new_zeros(len(rows), classes)
    answers, first = [], 0
    for k in ks:
        total.scatter_add_(1, targets[rows[:, first:k]], weights[:, first:k])
        answers.append(total.argmax(dim=1))
        first = k
    return torch.stack(answers, dim=1)
