"""What one looks at of `seitpp evaluate`: accuracies of classes, the confusion matrix, the worst mistakes."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# The stubs of pandas do not know what a column, a group or a named row is.

from typing import Any

import numpy as np
import pandas as pd

from seitpp.report import words
from seitpp.report.captioned import cut_images
from seitpp.report.found_runs import Run
from seitpp.report.methods import Method
from seitpp.report.run_tables import run_table
from seitpp.report.tables import Cell, Table, slug
from seitpp.runtime.charts import bar
from seitpp.runtime.heat_map import heat_map

MOST_CLASSES = 30
"""that are shown one by one, and in a heat map"""
SHOWN = 15
"""of more classes, the worst and the best; both so many"""
PAIRS = 20
"""confused pairs in a table"""
MISTAKES = 24
"""worst mistakes"""
_NUMBERED = 15
"""classes up to which the cells of a heat map hold numbers"""


def class_looks(run: Run) -> dict[str, Any] | None:
    """The section of one evaluation; None while it is not finished."""
    folders = _seed_folders(run.path, "per_class.csv")
    if not run.summary or not folders:
        return None
    by_class = _by_class([run_table(each / "per_class.csv", ["class"], ["images", "accuracy"]) for each in folders])
    counts = _confusion([run_table(each / "confusion.csv", ["class", "predicted"], ["images"]) for each in folders])
    known = by_class[by_class["images"] > 0].sort_values("accuracy", ascending=False, kind="stable")
    few = len(by_class) <= MOST_CLASSES
    shown = known if len(known) <= MOST_CLASSES else pd.concat([known[:SHOWN], known[-SHOWN:]])
    names = by_class["class"].tolist()
    return {
        "kind": "classes", "dataset": run.config.get("dataset", ""), "label": run.label, "seeds": len(folders),
        "method": _method(run),
        "images": int(by_class["images"].sum()), "classes": len(names), "shown": len(shown),
        "cut": SHOWN if len(shown) < len(known) else 0, "without_images": len(by_class) - len(known),
        "confusion": _confusion_map(counts, names) if few else "",
        "mistakes": _mistakes(folders[0]),
        "tables": [_class_table(shown, counts, run, len(folders)), *_pair_tables(counts, run)],
    }  # fmt: skip


def _by_class(tables):
    """A row a class: images, mean accuracy over the seeds and its deviation."""
    accuracies = np.stack([each["accuracy"].to_numpy() for each in tables])
    deviation = accuracies.std(axis=0, ddof=1) if len(tables) > 1 else np.nan
    return tables[0].assign(accuracy=accuracies.mean(axis=0), std=deviation)


def _confusion(tables):
    """Columns class, predicted, images (the sum over the seeds) and share (of the class, in percent)."""
    counts = pd.concat(tables).groupby(["class", "predicted"], sort=False, as_index=False)["images"].sum()
    answers = counts.groupby("class")["images"].transform("sum")
    return counts.assign(share=100 * counts["images"] / np.maximum(answers, 1))


def _confused(counts):
    """The pairs of classes that are confused, the commonest first."""
    wrong = counts[counts["class"] != counts["predicted"]]
    return wrong.sort_values("images", ascending=False, kind="stable")


def _confusion_map(counts, names):
    """The heat map: shares of each true class, in percent."""
    shares = counts.pivot(index="class", columns="predicted", values="share").reindex(index=names, columns=names)
    shares = shares.fillna(0).to_numpy(np.float64).tolist()
    title = "Confusion matrix: of each true class, how often each class is answered, in percent"
    few = len(names) <= _NUMBERED
    texts = [[f"{value:.0f}" if few and value >= 0.5 else "" for value in row] for row in shares]
    return heat_map(
        names, names, shares, limit=100.0, title=title, texts=texts, x_label="answered", y_label="true class",
        side=30 if few else 20,
    )  # fmt: skip


def _class_table(shown, counts, run, seeds):
    commonest = _confused(counts).drop_duplicates("class").set_index("class")
    rows, bars = [], []
    for row in shown.itertuples():
        name, std = row[1], None if seeds < 2 else row.std
        mistaken = commonest.loc[name] if name in commonest.index else None
        cells = [
            Cell(
                text=words.percent(row.accuracy, std), value=100 * row.accuracy, std=None if std is None else 100 * std
            ),
            Cell(text=f"{int(row.images):,}", value=float(row.images)),
            *_mistaken(mistaken),
        ]
        rows.append((name, cells))
        bars.append(bar(row.accuracy, 1, colour="mtm", std=std))
    caption = "Accuracy of each class in percent" + (", mean over seeds and standard deviation" if seeds > 1 else "")
    return Table(
        name=slug(f"classes-{run.label}"), caption=caption, rows=rows, bars=bars,
        columns=("class", "accuracy", "images", "mistaken most for", "as often, %"),
    )  # fmt: skip


def _mistaken(pair):
    """Cells of the commonest wrong answer to a class and its share; of none where there is no wrong one."""
    if pair is None:
        return None, None
    return Cell(text=pair["predicted"]), Cell(text=f"{pair['share']:.1f}", value=float(pair["share"]))


def _pair_tables(counts, run):
    """The pairs of classes that are confused most, as a table; none where every answer is right."""
    rows = [
        (
            row[1],
            [
                Cell(text=row.predicted),
                Cell(text=f"{int(row.images):,}", value=float(row.images)),
                Cell(text=f"{row.share:.1f}", value=float(row.share)),
            ],
        )
        for row in _confused(counts)[:PAIRS].itertuples()
    ]
    columns = ("class", "answered", "times", "% of the class")
    caption = "Classes that are confused most, over all seeds"
    return [Table(name=slug(f"confused-{run.label}"), caption=caption, columns=columns, rows=rows)] if rows else []


def _mistakes(folder):
    """(true class, answer and its confidence in percent, uri) of the worst mistakes that have a picture."""
    if not (folder / "worst.csv").is_file():
        return []
    pictures = cut_images(folder / "worst.png")[:MISTAKES]
    table = run_table(folder / "worst.csv", ["class", "predicted"], ["confidence"])[: len(pictures)]
    return [
        {"name": row[1], "answer": row.predicted, "confidence": f"{100 * row.confidence:.0f}", "uri": uri}
        for row, uri in zip(table.itertuples(), pictures, strict=False)
    ]


def _method(run):
    """What was measured, such as "fine-tuned from MTM + TokenAdapt"; "" where no result says it."""
    first = next(iter(run.results.itertuples()), None)
    if first is None:
        return ""
    method = Method(protocol=first.protocol, init=first.init, augmentation=first.augmentation)
    return words.method(method, augmentation=True)


def _seed_folders(path, name):
    """The run itself, or its seeds where there are several: those that hold a file."""
    seeds = sorted(path.glob("seed-*"), key=lambda folder: (len(folder.name), folder.name))
    return [folder for folder in (path, *seeds) if (folder / name).is_file()]
