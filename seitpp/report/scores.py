"""Accuracies of a task's methods, and what pre-training changes: the numbers behind the report's sentences."""

import math
from dataclasses import dataclass

import pandas as pd

from seitpp.runtime.results import mean_and_deviation

MINUS = "\u2212"


@dataclass(frozen=True, kw_only=True)
class Score:
    """One method's accuracy on one set.

    Attributes:
        method: its name in the tables.
        kind: "pretrained" or "scratch" (a network trained on labels), "frozen" (a probe of pre-trained features) or
            "baseline".
        mean: share of right answers, mean over seeds.
        deviation: sample deviation over seeds; None with one seed.
        seeds: how many.
        train_images: labelled images that it learned from.
        test_images: images that it was measured on.
    """

    method: str
    kind: str
    mean: float
    deviation: float | None
    seeds: int
    train_images: int
    test_images: int

    @property
    def text(self):
        """In percent, with the deviation if there is one: "58.0 ± 0.3"."""
        return f"{100 * self.mean:.1f}" + ("" if self.deviation is None else f" ± {100 * self.deviation:.1f}")

    @property
    def standard_error(self):
        """Of an accuracy like this one that is measured on so many images: sqrt(p (1 - p) / n)."""
        return math.sqrt(self.mean * (1 - self.mean) / self.test_images) if self.test_images else math.nan


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Accuracy of a pre-trained classifier minus that of one from scratch.

    Attributes:
        pretrained: Score.
        scratch: Score.
    """

    pretrained: Score
    scratch: Score

    @property
    def value(self):
        """The difference, a share."""
        return self.pretrained.mean - self.scratch.mean

    @property
    def deviation(self):
        """Root of the sum of both squared deviations; None where one has a single seed."""
        parts = (self.pretrained.deviation, self.scratch.deviation)
        return None if None in parts else math.hypot(*parts)

    @property
    def verdict(self):
        """One of "better", "worse", "even" (not more than the deviation) and "unknown" (one seed)."""
        if self.deviation is None:
            return "unknown"
        if abs(self.value) <= self.deviation:
            return "even"
        return "better" if self.value > 0 else "worse"

    @property
    def text(self):
        """In percentage points: "+6.2 ± 0.7 points"."""
        deviation = "" if self.deviation is None else f" ± {100 * self.deviation:.1f}"
        return f"{points(self.value)}{deviation} points"


def points(value):
    """A signed share in percentage points, "+6.2"."""
    return f"{100 * value:+.1f}".replace("-", MINUS)


def scores(results, metric, kinds):
    """Scores of one task's methods, best first.

    Args:
        results: tidy rows of one task.
        metric: "accuracy", or "accuracy, …" of a robustness set.
        kinds: {method: kind} of the trained methods; the others are told by their names.
    """
    table = mean_and_deviation(results[results["metric"] == metric])
    found = [
        Score(
            method=row.method, kind=kind_of(row.method, kinds), mean=row.mean,
            deviation=None if pd.isna(row.std) else row.std, seeds=row.seeds, train_images=int(row.train_images),
            test_images=int(row.test_images),
        )
        for row in table.itertuples()
        if math.isfinite(row.mean)
    ]  # fmt: skip
    return sorted(found, key=lambda score: -score.mean)


def kind_of(method, kinds):
    """Kind of a method, see Score."""
    if method in kinds:
        return kinds[method]
    if method.startswith("from scratch"):
        return "scratch"
    if method.startswith("fine-tuned"):
        return "pretrained"
    return "frozen" if "MTM encoder" in method else "baseline"


def differences(found):
    """Each pre-trained classifier against the best one from scratch, a list of Difference."""
    scratch = next((score for score in found if score.kind == "scratch"), None)
    pretrained = [score for score in found if score.kind == "pretrained"]
    return [Difference(pretrained=score, scratch=scratch) for score in pretrained] if scratch else []
