"""Accuracies of a data set's methods, and what pre-training changes: the numbers behind the report's sentences."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false
# The stubs of pandas do not know what a column, a group or a named row is.

import math
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from seitpp.report import words
from seitpp.report.methods import KEY, Kind, Method, method_of
from seitpp.runtime.intervals import standard_error, wilson_interval
from seitpp.runtime.results import mean_and_std


@dataclass(frozen=True, kw_only=True)
class Score:
    """One method's accuracy on one set of images.

    Attributes:
        method: a Method.
        name: what its table calls it.
        mean: fraction of right answers, mean over seeds.
        std: sample standard deviation over seeds; None with one seed.
        seeds: how many.
        train_images: labelled images that it learned from.
        test_images: images that it was measured on.
    """

    method: Method
    name: str
    mean: float
    std: float | None
    seeds: int
    train_images: int
    test_images: int

    @property
    def kind(self) -> Kind:
        """See Method.kind."""
        return self.method.kind

    @property
    def text(self) -> str:
        """In percent, with the standard deviation if there is one: "58.0 ± 0.3"."""
        return words.percent(self.mean, self.std)

    @property
    def standard_error(self) -> float:
        """Of an accuracy like this one that is measured on so many images: sqrt(p (1 - p) / n)."""
        return standard_error(self.mean, self.test_images)

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % interval, likewise."""
        return wilson_interval(self.mean, self.test_images)


@dataclass(frozen=True, kw_only=True)
class ShiftScores:
    """The Scores under one shift of the images, best first.

    Attributes:
        shift: "" for clean images.
        severities: that accuracies are averaged over; () where the shift has none.
        name: what the table calls it.
        scores: list of Score.
    """

    shift: str
    severities: tuple[int, ...]
    name: str
    scores: list[Score]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Accuracy of a pre-trained classifier minus that of one from scratch.

    Attributes:
        pretrained: Score; where two others are compared, the one that is said to be better.
        scratch: Score; or the one that it is better than.
    """

    pretrained: Score
    scratch: Score

    @property
    def value(self) -> float:
        """The difference, a fraction."""
        return self.pretrained.mean - self.scratch.mean

    @property
    def std(self) -> float | None:
        """Root of the sum of both squared standard deviations; None where one has a single seed."""
        parts = (self.pretrained.std, self.scratch.std)
        return None if None in parts else math.hypot(*parts)

    @property
    def standard_error(self) -> float:
        """Root of the sum of both squared standard errors: the test images' part, which one seed has, too.

        Both are measured on the same images, so it is rather too large.
        """
        return math.hypot(self.pretrained.standard_error, self.scratch.standard_error)

    @property
    def deviation(self) -> float:
        """What the difference has to exceed to count: its standard deviation over seeds.

        Of a method with one seed, such as a probe, the other's deviation alone; where both have one, the standard
        error.
        """
        known = [each.std for each in (self.pretrained, self.scratch) if each.std is not None]
        return math.hypot(*known) if known else self.standard_error

    @property
    def ratio(self) -> float:
        """How many times its deviation the difference is, without its sign."""
        return abs(self.value) / self.deviation if self.deviation else math.inf if self.value else 0.0

    @property
    def verdict(self) -> str:
        """One of "better", "worse", "even" (not more than the standard deviation) and "unknown" (one seed)."""
        if self.std is None:
            return "unknown"
        if abs(self.value) <= self.std:
            return "even"
        return "better" if self.value > 0 else "worse"

    @property
    def text(self) -> str:
        """In percentage points: "+6.2 ± 0.7 points"."""
        return f"{words.points(self.value, self.std)} points"


def scores(results: pd.DataFrame, names: dict[Method, str] | None = None) -> list[Score]:
    """Accuracies of one data set's methods, best first.

    Args:
        results: rows as from `all_results`, of one metric, a row a method and seed.
        names: what to call methods; None: by what differs between them.
    """
    table = mean_and_std(results, by=KEY)
    rows = [(method_of(row), row) for row in table.itertuples() if math.isfinite(row.mean)]
    names = names or words.method_names(method for method, _ in rows)
    found = [
        Score(
            method=method, name=names[method], mean=row.mean, std=None if pd.isna(row.std) else row.std,
            seeds=row.seeds, train_images=int(row.train_images), test_images=int(row.test_images),
        )
        for method, row in rows
    ]  # fmt: skip
    return sorted(found, key=lambda score: -score.mean)


def shift_scores(results: pd.DataFrame) -> list[ShiftScores]:
    """Accuracies under each shift, averaged over its severities seed by seed; the clean images first.

    Args:
        results: rows as from `all_results`, of one data set and metric. A shift that was measured at other severities
            for some methods is a set of its own for these.
    """
    names = words.method_names(method_of(row) for row in results.itertuples())
    sets = {}
    for key, rows in results.groupby(["shift", *KEY], sort=False, dropna=False):
        levels = tuple(sorted(int(level) for level in rows["severity"].dropna().unique()))
        sets.setdefault((key[0], levels), []).append(rows)
    found = []
    for (shift, levels), groups in sorted(sets.items(), key=lambda each: each[0][0] != ""):
        by_seed = pd.concat(groups).groupby([*KEY, "seed"], sort=False, dropna=False)
        counts = {name: (name, "first") for name in ("train_images", "test_images")}
        averaged = by_seed.agg(value=("value", "mean"), **counts).reset_index()
        alone = sum(other == shift for other, _ in sets) == 1
        name = words.shift(shift) if alone else f"{words.shift(shift)}, {words.severities(levels)}"
        measured = scores(averaged, names)
        if measured:
            found.append(ShiftScores(shift=shift, severities=levels, name=name, scores=measured))
    return found


def differences(found: Iterable[Score]) -> list[Difference]:
    """Each pre-trained classifier against the best one from scratch that learned from as many labels.

    Returns: the main start first, by `Method.standing`, whichever is better on the test set.
    """
    found = sorted(found, key=lambda score: -score.mean)
    pairs = []
    for score in sorted([each for each in found if each.kind == "pretrained"], key=lambda each: each.method.standing):
        scratch = [each for each in found if each.kind == "scratch" and each.method.same_labels(score.method)]
        pairs += [Difference(pretrained=score, scratch=each) for each in scratch[:1]]
    return pairs
