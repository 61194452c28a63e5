"""The storage curve's section of the page: accuracy against all bytes, on tokens and on JPEGs."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false
# The stubs of pandas do not know what a column, a group or a named row is.

import re
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from seitpp.report import words
from seitpp.report.found_results import STORAGE_CURVE
from seitpp.report.found_runs import Found, Run, reading
from seitpp.report.tables import Cell, Table
from seitpp.runtime.charts import Line, line_chart
from seitpp.runtime.intervals import standard_error
from seitpp.runtime.tables import read_table

CURVE = "storage_curve.csv"
REPORTED = Path(__file__).with_name("reported.csv")
"""What papers report, a row a figure."""
_COLUMNS = ("budget", "storage", "init", "augmentation", "images", "bytes", "bytes_with_tokenizer", "metric", "mean")
_NUMBERS = (
    *("budget", "images", "bytes", "bytes_with_tokenizer"),
    *("mean", "std", "seeds", "quality", "side", "test_images"),
)
_UNITS = {"GB": 1e9, "MB": 1e6, "kB": 1e3, "bytes": 1.0}
_IMAGENET = "imagenet-1k"


def storage_curve_sections(found: Found, reported: Path = REPORTED) -> list[dict[str, Any]]:
    """What each storage curve measured, a section a run.

    Args:
        found: all runs.
        reported: CSV of the papers' numbers; where it is missing, none are shown.
    Returns: [{label, dataset, rehearsal, legend, sentences, chart, reported_chart, tables}]; `reported_chart` is empty
        where the papers' points are part of `chart`, which they are for ImageNet-1k alone.
    """
    papers = _reported(reported)
    sections = []
    for run in found.of(STORAGE_CURVE):
        if not (run.path / CURVE).is_file():
            continue
        table, dataset = _curve(run), run.config.get("dataset", "")
        same_set = dataset == _IMAGENET
        sections.append(
            {
                "label": run.label, "dataset": dataset, "rehearsal": bool(run.config.get("quick")),
                "legend": _legend(table), "sentences": _sentences(table),
                "chart": _chart(_lines(table) + (_paper_lines(papers, "paper: ") if same_set else []), run.label),
                "reported_chart": Markup("") if same_set else _chart(_paper_lines(papers), "as the papers report"),
                "tables": [_table(table, f"storage-curve-{len(sections) + 1}", dataset)],
            }
        )  # fmt: skip
    return sections


def _curve(run: Run) -> pd.DataFrame:
    """Accuracies of storage_curve.csv, numbers as numbers."""
    with reading(run.path / CURVE) as file:
        table = read_table(file, _COLUMNS).reset_index(drop=True)
        for name in _NUMBERS:
            table[name] = pd.to_numeric(table[name].replace("", None)) if name in table else None
        return table[table["metric"] == "accuracy"]


def _lines(table):
    lines = []
    for (storage, init, augmentation), points in table.groupby(["storage", "init", "augmentation"], sort=False):
        points = points.sort_values("bytes")
        values = [100 * value for value in points["mean"]]
        lines.append(
            Line(
                label=_short(storage, init, augmentation), colour=_colour(storage, init, augmentation), marked=True,
                points=list(zip(points["bytes"], values, strict=True)), dashed=bool(storage),
                errors=[None if pd.isna(each) else 100 * each for each in points["std"]],
            )
        )  # fmt: skip
    return lines


def _paper_lines(papers, prefix=""):
    """Dots of each paper's method, joined by a broken line; `prefix` marks them where they lie beside ours."""
    lines = []
    for (paper, method), points in papers.groupby(["paper", "method"], sort=False):
        points = points.sort_values("bytes")
        lines.append(
            Line(
label=f"{prefix}{method or paper}", colour="baseline",
                points=list(zip(points["bytes"], points["value"], strict=True)), marked=True, dashed=True,
            )
        )  # fmt: skip
    return lines


def _chart(lines, title):
    most = max((x for line in lines for x, _ in line.points), default=0)
    unit = next(name for name, size in _UNITS.items() if most >= size or name == "bytes")
    scaled = [
        Line(
            label=line.label, colour=line.colour, marked=line.marked, errors=line.errors, dashed=line.dashed,
            points=[(x / _UNITS[unit], y) for x, y in line.points],
        )
        for line in lines
    ]  # fmt: skip
    return line_chart(
        scaled, title=f"Accuracy against bytes, {title}", x_label=f"{unit} of training data, logarithmic",
        y_label="top-1 accuracy, %", log_x=True,
    )  # fmt: skip


def _table(table, name, dataset):
    with_tokenizer = table["bytes_with_tokenizer"].notna().any()
    best = table.groupby("budget")["mean"].transform("max")
    columns = ["Stored as", "Images", "Bytes", *(["With tokenizer"] if with_tokenizer else []), "Accuracy"]
    rows = []
    for row, top in zip(table.itertuples(), best, strict=True):
        std = None if pd.isna(row.std) else 100 * row.std
        counts = [Cell(text=f"{int(row.images):,}", value=int(row.images)), _bytes(row.bytes)]
        counts += [_bytes(row.bytes_with_tokenizer)] if with_tokenizer else []
        accuracy = Cell(
            text=words.percent(row.mean, None if std is None else row.std), value=100 * row.mean, std=std,
            best=row.mean == top,
        )  # fmt: skip
        rows.append((_name(row), [*counts, accuracy]))
    caption = f"{dataset}: top-1 accuracy in % on what so many bytes hold, the best of each budget marked"
    if not pd.isna(test_images := table["test_images"].max()):
        error = 100 * standard_error(0.5, int(test_images))
        caption += f"; {int(test_images):,} test images, so one standard error is at most {error:.1f} points"
    return Table(name=name, caption=caption, columns=columns, rows=rows)


def _bytes(value):
    return None if pd.isna(value) else Cell(text=words.size(float(value)), value=float(value))


def _name(row):
    """A point's name in the table: "tokens, MTM", "JPEGs, side that fits: quality 75, 24 pixels a side"."""
    if not row.storage:
        return f"{words.storage('')}, {words.start(row.init, row.augmentation)}"
    name = words.storage(row.storage)
    if row.storage.endswith("_fit") and not pd.isna(row.quality):
        name += f": {int(row.quality)}" if row.storage == "jpeg_fit" else f": {int(row.side)}"
    return name


def _short(storage, init, augmentation):
    """A line's label, short enough for its end."""
    if not storage:
        parts = {"tokenadapt": "TA", "coloradapt": "CA"}
        added = [parts.get(part, part) for part in augmentation.split("+") if part]
        return "tokens, scratch" if init == "scratch" else "+".join(["tokens, MTM", *map(str, added)])
    match = re.fullmatch(r"jpeg(\d*)(?:_side(\d+)|(_fit|_side_fit))?", storage)
    if not match:
        return storage
    quality, side, fit = match[1], match[2], match[3]
    if fit:
        return "JPEG, q to fit" if fit == "_fit" else f"JPEG q{quality}, px to fit"
    return f"JPEG q{quality}" + (f", {side} px" if side else "")


def _colour(storage, init, augmentation):
    if storage:
        return "baseline"
    return "scratch" if init == "scratch" else "other" if augmentation else "mtm"


def _legend(table):
    seeds = int(table["seeds"].max()) if len(table) else 0
    over = "of one seed" if seeds == 1 else f"mean ± standard deviation over {seeds} seeds"
    text = (
        f"Accuracy in %, {over}. Bytes are those of tokens or JPEGs, labels and keys; of tokens the codebook and the "
        f"tables of their coding, too. JPEGs may take as many bytes as the tokens beside them, and are learned from by "
        f"the same encoder, with a stem for pixels, in as many steps."
    )
    weights = (table["bytes_with_tokenizer"] - table["bytes"]).max()
    if pd.notna(weights) and weights > 0:
        text += f" The tokenizer's weights, {words.size(float(weights))}, come on top wherever new images are read."
    return text


def _sentences(table):
    """For each budget, the best of the tokens against the best of the JPEGs."""
    found = []
    for _, points in table.groupby("budget", sort=True):
        tokens, jpegs = points[points["storage"] == ""], points[points["storage"] != ""]
        if tokens.empty or jpegs.empty:
            continue
        one, other = (each.loc[each["mean"].idxmax()] for each in (tokens, jpegs))
        known = not (pd.isna(one["std"]) or pd.isna(other["std"]))
        spread = (one["std"] ** 2 + other["std"] ** 2) ** 0.5 if known else None
        found.append(
            f"In {words.size(float(one['bytes']))}: tokens of {int(one['images']):,} images "
            f"({words.start(one['init'], one['augmentation'])}) {words.percent(one['mean'])} %, the best of the JPEGs "
            f"({_name(other)}; {int(other['images']):,} images) {words.percent(other['mean'])} %: "
            f"{words.points(one['mean'] - other['mean'], spread)} points"
            + ("." if known else ", of one seed, so that how much of it is chance is not known.")
        )
    return found


def _reported(file: Path) -> pd.DataFrame:
    """Top-1 accuracies at a number of bytes that papers report for ImageNet-1k, in percent."""
    columns = ("paper", "table", "dataset", "method", "bytes", "metric", "value", "how")
    if not file.is_file():
        return pd.DataFrame(columns=list(columns))
    table = read_table(file, columns)
    table = table[(table["dataset"] == _IMAGENET) & table["metric"].isin(["accuracy", "top1", "top-1"])]
    table = table[(table["bytes"] != "") & (table["value"] != "")]
    table = table.assign(**{name: pd.to_numeric(table[name]) for name in ("bytes", "value")})
    return table.assign(value=table["value"].where(table["value"] > 1, 100 * table["value"]))
