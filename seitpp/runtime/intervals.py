"""How far an accuracy may be off because it was measured on so many images, and how it is said on a terminal.

n images of which a fraction p is right are taken for n independent draws (binomial). Seeds are another matter: their
deviation shows how much trainings differ, on the same images.
"""

import math
import statistics
from collections.abc import Sequence

_Z = statistics.NormalDist().inv_cdf(0.975)


def standard_error(accuracy: float, images: int) -> float:
    """sqrt(p (1 - p) / n), a fraction; NaN without images."""
    return math.sqrt(accuracy * (1 - accuracy) / images) if images else math.nan


def wilson_interval(accuracy: float, images: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy, fractions in [0, 1]; (NaN, NaN) without images.

    Source: Wilson 1927, Probable inference; unlike p ± 1.96 standard errors it holds near 0 and 1, too.
    """
    if not images:
        return math.nan, math.nan
    shrunk = 1 + _Z**2 / images
    centre = (accuracy + _Z**2 / (2 * images)) / shrunk
    reach = _Z / shrunk * math.sqrt(accuracy * (1 - accuracy) / images + _Z**2 / (4 * images**2))
    return max(0.0, centre - reach), min(1.0, centre + reach)


def said_accuracy(accuracies: Sequence[float], images: int) -> str:
    """Accuracies of the seeds of one method, in words that have the number of test images.

    With one seed "0.523 on 493 test images (95 %: 0.479 to 0.567)", with several "0.541 ± 0.010 on 493 test images
    (3 seeds)": the mean and the sample standard deviation.
    """
    mean = statistics.fmean(accuracies)
    if len(accuracies) > 1:
        spread = statistics.stdev(accuracies)
        return f"{mean:.3f} ± {spread:.3f} on {images:,} test images ({len(accuracies)} seeds)"
    low, high = wilson_interval(mean, images)
    return f"{mean:.3f} on {images:,} test images (95 %: {low:.3f} to {high:.3f})"
