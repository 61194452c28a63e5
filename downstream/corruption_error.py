"""Mean corruption error and relative mCE: a classifier's errors on ImageNet-C over those of AlexNet.

    CE_c  = sum_s E_{s,c} / sum_s A_{s,c}                               mCE: mean over the 15 corruptions c
    rCE_c = sum_s (E_{s,c} - E_clean) / sum_s (A_{s,c} - A_clean)       relative mCE: likewise

E is the classifier's top-1 error, A AlexNet's, s runs over the five severities. AlexNet's errors are published as means
over the severities, which is all that the sums need; they lie in alexnet_errors.csv beside this file.

Source: Hendrycks and Dietterich 2019 (arXiv 1903.12261), section 4.1 and the table of AlexNet's errors.
"""

import csv
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources

import numpy as np

from seitpp.downstream.imagenet.imagenet_c import CORRUPTIONS, SEVERITIES

Errors = Mapping[str, Sequence[float]]
"""Corruption to the top-1 errors, fractions, a severity each."""


@cache
def alexnet_errors() -> dict[str, float]:
    """AlexNet's top-1 error under each corruption, mean over severities, and "clean"; fractions."""
    text = resources.files("seitpp.downstream").joinpath("alexnet_errors.csv").read_text(encoding="utf-8")
    return {row["corruption"]: float(row["error"]) for row in csv.DictReader(text.splitlines())}


def is_complete(errors: Errors) -> bool:
    """Whether all 15 corruptions were measured at all five severities, without which there is no mCE."""
    return all(len(errors.get(name, ())) == len(SEVERITIES) for name in CORRUPTIONS)


def mean_corruption_error(errors: Errors) -> float:
    """mCE, a fraction: 1 is AlexNet's.

    Args:
        errors: of the 15 corruptions at five severities; others in it do not count.
    Raises: ValueError if it is not complete.
    """
    _require_complete(errors)
    alexnet = alexnet_errors()
    return float(np.mean([np.mean(errors[name]) / alexnet[name] for name in CORRUPTIONS]))


def relative_mean_corruption_error(errors: Errors, clean: float) -> float:
    """Relative mCE, a fraction: how much more errors a corruption makes than there are without, over AlexNet's more.

    Args:
        errors: as for `mean_corruption_error`.
        clean: the classifier's error on clean images.
    Raises: ValueError if it is not complete.
    """
    _require_complete(errors)
    alexnet = alexnet_errors()
    more = [(np.mean(errors[name]) - clean) / (alexnet[name] - alexnet["clean"]) for name in CORRUPTIONS]
    return float(np.mean(more))


def mean_accuracy(errors: Errors) -> float:
    """Mean accuracy over corruptions, of each over its severities: of those of the 15 that were measured, if any."""
    names = [name for name in CORRUPTIONS if name in errors] or list(errors)
    return float(np.mean([1 - np.mean(errors[name]) for name in names]))


def _require_complete(errors):
    if not is_complete(errors):
        raise ValueError(f"mCE needs {len(CORRUPTIONS)} corruptions at {len(SEVERITIES)} severities")
