"""The robustness section: accuracy on each set of images, means over corruptions, and heat maps of the corruptions."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false
# The stubs of pandas do not know what a column, a group or a named row is.

import re
from typing import Any

import pandas as pd

from seitpp.report import words
from seitpp.report.findings import robustness_sentences
from seitpp.report.methods import KEY, Method, method_of
from seitpp.report.reported import read_reported, reported_of
from seitpp.report.reported_tables import HEADING, cell_of, with_reported
from seitpp.report.scores import Score, ShiftScores, differences, scores, shift_scores
from seitpp.report.tables import Cell, Table
from seitpp.runtime.heat_map import heat_map
from seitpp.runtime.results import mean_and_std

_KINDS = ("pretrained", "frozen", "scratch", "baseline")
_MEANS = ("mean_accuracy", "mce", "relative_mce")
_HIGHER_IS_BETTER = {"mean_accuracy"}
_IMAGENET_C = "imagenet-c:"
_NAMED = 6
"""Corruptions whose differences are named in sentences; more are counted."""


def robustness_sections(results: pd.DataFrame) -> list[dict[str, Any]]:
    """What was measured of each data set's classifiers on other images.

    Args:
        results: rows of all runs, as from `all_results`.
    Returns: [{dataset, tables, accuracy, means, heat_maps, sentences, generated}]; `accuracy` and `means` (or None) are
        Tables, `heat_maps` are [{caption, picture, table}], `generated` says what is made of the clean images; all
        Tables are in `tables`.
    """
    rows = results[results["part"] == "robustness"]
    sections = []
    for dataset, own in rows.groupby("dataset", sort=False):
        accuracies = own[own["metric"] == "accuracy"]
        sets = shift_scores(accuracies)
        if not sets:
            continue
        names = words.method_names(method_of(row) for row in own.itertuples())
        place = f"{len(sections) + 1}-" if rows["dataset"].nunique() > 1 else ""
        accuracy = _accuracy_table(dataset, sets, f"robustness-{place}accuracy")
        means = _means_table(dataset, own[own["metric"].isin(_MEANS)], names, f"robustness-{place}means")
        maps = [
            each
            for given in (True, False)
            for each in _heat_maps(dataset, _corrupted(accuracies, given=given), names, given, f"robustness-{place}")
        ]
        sections.append(
            {
                "dataset": dataset,
                "accuracy": accuracy,
                "means": means,
                "heat_maps": maps,
                "sentences": _sentences(sets),
                "generated": _generated(sets),
                "tables": [accuracy, *([means] if means else []), *(each["table"] for each in maps)],
            }
        )
    return sections


def _sentences(sets: list[ShiftScores]) -> list[str]:
    """Where pre-training is better and where not; many corruptions are counted instead of named."""
    corrupted = [each for each in sets if each.severities]
    if len(corrupted) <= _NAMED:
        return robustness_sentences(sets)
    verdicts: dict[tuple[str, str], list[str]] = {}
    for each in corrupted:
        for difference in differences(each.scores):
            pair = difference.pretrained.name, difference.scratch.name
            verdicts.setdefault(pair, []).append(difference.verdict)
    counted = []
    for (after, before), found in verdicts.items():
        known = len(found) - found.count("unknown")
        better, worse = found.count("better"), found.count("worse")
        if known:
            counted.append(
                f"Of {known} corruptions, averaged over severities, {after} is better than {before} by more than "
                f"one standard deviation over seeds on {better}, and worse by more on {worse}."
            )
    return [*robustness_sentences([each for each in sets if not each.severities]), *counted]


def _accuracy_table(dataset: str, sets: list[ShiftScores], name: str) -> Table:
    kinds = {score.name: score.kind for each in sets for score in each.scores}
    columns = sorted(kinds, key=lambda each: _KINDS.index(kinds[each]))
    rows = []
    for each in sets:
        found = {score.name: score for score in each.scores}
        cells = [
            None if (score := found.get(column)) is None else _score_cell(score, best=score.mean == each.scores[0].mean)
            for column in columns
        ]
        rows.append((f"{each.name} ({each.scores[0].test_images:,} images)", cells))
    caption = (
        f"Accuracy on {dataset} in %, mean ± standard deviation over seeds, on images that no classifier learned from"
    )
    table = Table(name=name, caption=caption, columns=["images", *columns], rows=rows)
    figures, methods = read_reported(), {score.name: score.method for each in sets for score in each.scores}
    for column in columns:
        papers = [cell_of(reported_of(figures, dataset, methods[column], shift=each.shift)) for each in sets]
        table = with_reported(table, papers, f"{column}, {HEADING}")
    return table


def _score_cell(score: Score, *, best: bool) -> Cell:
    std = None if score.std is None else 100 * score.std
    return Cell(text=score.text, value=100 * score.mean, std=std, best=best)


def _means_table(dataset: str, rows: pd.DataFrame, names: dict[Method, str], name: str) -> Table | None:
    """Means over corruptions; None where there are none."""
    if rows.empty:
        return None
    table = mean_and_std(rows, ["shift", "metric", *KEY])
    cells = {(row.shift, row.metric, method_of(row)): row for row in table.itertuples() if pd.notna(row.mean)}
    methods = list(dict.fromkeys(method for _, _, method in cells))
    found = []
    for shift, metric in dict.fromkeys(key[:2] for key in cells):
        own = [cells.get((shift, metric, method)) for method in methods]
        values = [row.mean for row in own if row is not None]
        best = max(values) if metric in _HIGHER_IS_BETTER else min(values)
        shown = [row and _mean_cell(row, best=row.mean == best) for row in own]
        found.append((f"{words.shift(shift)}, {words.metric(metric)}", shown))
    caption = f"Means over the corruptions of {dataset} in %; an error of 100 is AlexNet's, lower is better"
    return Table(name=name, caption=caption, columns=["mean", *(names[each] for each in methods)], rows=found)


def _mean_cell(row, *, best):
    std = None if pd.isna(row.std) else row.std
    return Cell(
        text=words.percent(row.mean, std), value=100 * row.mean, std=None if std is None else 100 * std, best=best
    )  # fmt: skip


def _corrupted(rows: pd.DataFrame, *, given: bool) -> pd.DataFrame:
    """Rows of corruptions: of those that are given out, or of those that were generated."""
    return rows[rows["severity"].notna() & (rows["shift"].str.startswith(_IMAGENET_C) == given)]


def _heat_maps(dataset: str, rows: pd.DataFrame, names: dict[Method, str], given: bool, prefix: str):
    """One a classifier, then one a difference to training from scratch."""
    cells = {
        (key[0], int(key[1])): scores(group, names)
        for key, group in rows.groupby(["shift", "severity"], sort=False)
    }  # fmt: skip
    shifts = list(dict.fromkeys(shift for shift, _ in cells))
    levels = sorted({level for _, level in cells})
    prefix += "" if given else "generated-"
    how = "ImageNet-C" if given else "corruptions generated from the clean images"
    maps = []
    for method in dict.fromkeys(score.method for found in cells.values() for score in found):
        own = {
            key: 100 * score.mean for key, found in cells.items() for score in found if score.method == method
        }  # fmt: skip
        caption = f"Accuracy on {dataset} in %, {how}: {names[method]}"
        maps.append(_map(f"{prefix}{_slug(names[method])}", caption, own, shifts, levels, limit=100.0))
    changes: dict[tuple[str, str], dict] = {}
    for key, found in cells.items():
        for each in differences(found):
            changes.setdefault((each.pretrained.name, each.scratch.name), {})[key] = 100 * each.value
    for (after, before), own in changes.items():
        caption = f"Difference of accuracies on {dataset} in points, {how}: {after} minus {before}"
        name = f"{prefix}{_slug(after)}-minus-{_slug(before)}"
        maps.append(_map(name, caption, own, shifts, levels, signed=True))
    return maps


def _map(name, caption, values, shifts, levels, *, limit=None, signed=False):
    """A heat map and its Table."""
    rows = [words.corruption(shift) for shift in shifts]
    numbers = [[values.get((shift, level)) for level in levels] for shift in shifts]
    cells = [[None if each is None else _number_cell(each, signed=signed) for each in row] for row in numbers]
    picture = heat_map(
        rows, [str(level) for level in levels], numbers, title=f"{caption}, by corruption and severity",
        x_label="severity", limit=limit, signed=signed,
    )  # fmt: skip
    columns = ["corruption", *(words.severities([level]) for level in levels)]
    table = Table(name=name, caption=caption, columns=columns, rows=list(zip(rows, cells, strict=True)))
    return {"caption": caption, "picture": picture, "table": table}


def _number_cell(value, *, signed):
    return Cell(text=words.points(value / 100) if signed else f"{value:.1f}", value=value)


def _generated(sets: list[ShiftScores]) -> str:
    """What was made of the clean images: "fog, contrast (average over severities 1, 3, 5)"; "" for nothing."""
    by_levels: dict[tuple[int, ...], list[str]] = {}
    for each in sets:
        if each.severities and not each.shift.startswith(_IMAGENET_C):
            by_levels.setdefault(each.severities, []).append(words.shift(each.shift))
    return "; ".join(f"{', '.join(names)} ({words.severities(levels)})" for levels, names in by_levels.items())


def _slug(name):
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
