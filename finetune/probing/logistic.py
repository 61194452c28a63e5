"""Logistic regression on standardised features: the linear probe that has one answer, whatever finds it.

It minimises, over all rows, sum of cross-entropies + |weights|² / (2 C). scikit-learn does so where all of it fits into
memory; for larger sets L-BFGS reads the features in chunks, on the device, each process its part of them.
"""

import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seitpp.finetune.probing.feature_set import FeatureSet
from seitpp.finetune.probing.hits import Hits

if TYPE_CHECKING:
    from accelerate import Accelerator

Solver = Literal["auto", "scikit-learn", "device"]
"""scikit-learn: in memory, on one process; device: in chunks; auto: the first for small sets."""
Answers = Callable[[Tensor], Tensor]
"""Features, (b, d) float32 on the device, to classes, (b,) int64."""
SMALL = 2**31
"""Products of a pass over the rows, rows x features x classes, up to which scikit-learn is asked."""
CHUNK = 8192


def fit_logistic(
    train: FeatureSet, strength: float, *, accelerator: "Accelerator", solver: Solver = "auto", iterations: int = 300
) -> Answers:
    """Fit on all rows of a set; the same on every process.

    Args:
        train: FeatureSet of (rows, d) features.
        strength: C; the larger, the less regularised.
        accelerator: accelerate.Accelerator.
        solver: what finds the minimum.
        iterations: at most, of L-BFGS.
    """
    classes = max(64, len(train.labelled.classes))  # with few classes it is memory that counts: 134 MB of features
    small = len(train) * train.features.shape[1] * classes <= SMALL
    if solver == "scikit-learn" or (solver == "auto" and small):
        return _fit_in_memory(train, strength, iterations)
    return _fit_in_chunks(train, strength, iterations, accelerator)


def _fit_in_memory(train, strength, iterations):
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=iterations))
    with warnings.catch_warnings():  # a last digit is not worth a warning
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(*train.whole())
    return lambda features: torch.from_numpy(model.predict(features.cpu().numpy())).to(features.device)


def _fit_in_chunks(train, strength, iterations, accelerator):
    layout = {"device": accelerator.device, "rank": accelerator.process_index, "world_size": accelerator.num_processes}
    mean, deviation = (each.to(accelerator.device) for each in train.moments())
    linear = nn.Linear(len(mean), len(train.labelled.classes)).to(accelerator.device)
    for parameter in linear.parameters():
        nn.init.zeros_(parameter)
    optimizer = torch.optim.LBFGS(
        linear.parameters(), max_iter=iterations, history_size=10, tolerance_grad=1e-5, tolerance_change=1e-9,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def mean_loss():
        optimizer.zero_grad()
        loss = torch.zeros((), device=accelerator.device)
        for features, targets in train.chunks(CHUNK, **layout):
            part = F.cross_entropy(linear((features - mean) / deviation), targets, reduction="sum") / len(train)
            part.backward()
            loss += part.detach()
        _sum_over_processes(loss, linear, accelerator)
        penalty = linear.weight.square().sum() / (2 * strength * len(train))
        penalty.backward()
        return loss + penalty.detach()

    optimizer.step(mean_loss)
    return lambda features: linear((features - mean) / deviation).argmax(dim=1)


def _sum_over_processes(loss, linear, accelerator):
    if accelerator.num_processes == 1:
        return
    for parameter in linear.parameters():
        if parameter.grad is None:  # this process had no chunk
            parameter.grad = torch.zeros_like(parameter)
    for each in (loss, *(parameter.grad for parameter in linear.parameters())):
        each.copy_(accelerator.reduce(each))


@torch.no_grad()
def accuracy(answers: Answers, test: FeatureSet, *, accelerator: "Accelerator") -> float:
    """Fraction of rows that are answered rightly, each row once, over all processes."""
    return measure_answers(answers, test, accelerator=accelerator)["accuracy"]


@torch.no_grad()
def measure_answers(answers: Answers, test: FeatureSet, *, accelerator: "Accelerator") -> dict[str, float]:
    """Accuracy and mean accuracy of the classes, each row once, over all processes: {"accuracy", "mean_per_class"}."""
    layout = {"device": accelerator.device, "rank": accelerator.process_index, "world_size": accelerator.num_processes}
    hits = Hits(len(test.labelled.classes), 1, accelerator.device)
    for features, targets in test.chunks(CHUNK, **layout):
        hits.add(answers(features)[:, None], targets)
    return hits.measures(accelerator)[0]


def choose_strength(
    fit_part: FeatureSet, held_out: FeatureSet, strengths: Iterable[float], **how: Any
) -> tuple[float, dict[float, float]]:
    """The C whose fit on one part of a training set answers most of the held-out part rightly.

    Args:
        fit_part: FeatureSet to fit on.
        held_out: FeatureSet to choose on; where it has no row (one label a class) the middle C is taken.
        strengths: values of C.
        how: `accelerator`, `solver` and `iterations`, see `fit_logistic`.
    Returns: (C, {C: accuracy on the held-out part}).
    """
    strengths = tuple(strengths)
    if len(strengths) == 1 or not len(held_out):
        return float(np.sort(strengths)[len(strengths) // 2]), {}
    tried = {
        each: accuracy(fit_logistic(fit_part, each, **how), held_out, accelerator=how["accelerator"])
        for each in strengths
    }
    return max(tried, key=lambda each: tried[each]), tried
