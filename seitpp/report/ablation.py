"""The ablation's section of the page, and the same tables as Markdown."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false
# The stubs of pandas do not know what a column, a group or a named row is.

import re
from pathlib import Path
from typing import Any

import pandas as pd

from seitpp.report import tables, words
from seitpp.report.found_results import ABLATION
from seitpp.report.found_runs import Found, Run
from seitpp.report.methods import Method
from seitpp.report.reported import read_reported, reported_of
from seitpp.report.reported_tables import HEADING, cell_of, with_reported
from seitpp.report.tables import Cell, Table

_BEGINNING = re.compile(rb"(## [^\n]*\n\n)?(A rehearsal [^\n]*\n\n)?Accuracy in %, ")


def ablation_sections(found: Found) -> list[dict[str, Any]]:
    """What each ablation measured, a section a run and data set.

    Returns: [{label, legend, rehearsal, tables}]; a Table for each label fraction, a row a start of the network, a
        column a measure; differences to plain masked token modelling, paired by seed, are the cells' notes.
    """
    return [
        {
            "label": run.label,
            "legend": _legend(run, results),
            "rehearsal": bool(run.config.get("quick")),
            "tables": _tables(run.label, dataset, results),
        }
        for run in found.of(ABLATION)
        for dataset, results in run.results.groupby("dataset", sort=False)
    ]


def as_markdown(sections: list[dict[str, Any]]) -> str:
    """The sections of `ablation_sections` as Markdown, ready for a README."""
    lines = []
    for section in sections:
        if len(sections) > 1:
            lines += [f"## {section['label']}", ""]
        if section["rehearsal"]:
            lines += ["A rehearsal of a few steps: these numbers mean nothing.", ""]
        lines += [section["legend"], ""]
        lines += [tables.as_markdown(table) for table in section["tables"]]
    return "\n".join(lines)


def is_ablation_markdown(file: Path) -> bool:
    """Whether a file begins as `as_markdown` does."""
    with file.open("rb") as content:
        return bool(_BEGINNING.match(content.read(1 << 12)))


def _tables(label, dataset, results):
    # Imported here, as it brings torch, which a report without an ablation does not need.
    from seitpp.downstream.ablation_table import ablation_table

    means = ablation_table(results)
    accuracies = means[means["metric"] == "accuracy"]
    return [
        _table(f"ablation-{label}-{dataset}-{100 * float(fraction):.3g}", dataset, fraction, part)
        for fraction, part in accuracies.groupby("label_fraction", sort=False)
    ]


def _table(name, dataset, fraction, part):
    cells = {(row.protocol, row.shift, row.init, row.augmentation): row for row in part.itertuples()}
    measures = _distinct(part, "protocol", "shift")
    best = {each: max(row.mean for key, row in cells.items() if key[:2] == each) for each in measures}
    starts, figures = _distinct(part, "init", "augmentation"), read_reported()
    table = Table(
        name=name,
        caption=f"{dataset}, {words.label_fraction(fraction)} ({part['train_images'].max():,} images; "
        f"{_test_images(part):,} test images)",
        columns=("start", *(words.measure(*each) for each in measures)),
        rows=[
            (words.start(*start), [_cell(cells.get((*each, *start)), best[each]) for each in measures])
            for start in starts
        ],
    )
    for protocol, shift in measures:
        methods = [Method(protocol=protocol, init=init, augmentation=added, label_fraction=fraction)
                   for init, added in starts]  # fmt: skip
        papers = [cell_of(reported_of(figures, dataset, method, shift=shift)) for method in methods]
        table = with_reported(table, papers, f"{words.measure(protocol, shift)}, {HEADING}")
    return table


def _cell(row, best):
    if row is None:
        return None
    std = _known(row.std)
    difference = "" if pd.isna(row.difference) else words.points(row.difference, _known(row.difference_std))
    return Cell(
        text=words.percent(row.mean, std), value=100 * row.mean, std=None if std is None else 100 * std,
        note=difference, best=row.mean == best,
    )  # fmt: skip


def _test_images(part):
    """Of the images without a shift, where there are any: other domains are of other sizes."""
    plain = part[part["shift"] == ""]
    return (part if plain.empty else plain)["test_images"].max()


def _legend(run: Run, results: pd.DataFrame) -> str:
    seeds = results["seed"].nunique()
    over = "of one seed" if seeds == 1 else f"mean ± standard deviation over {seeds} seeds"
    sentence = f"Accuracy in %, {over}"
    starts = set(_distinct(results, "init", "augmentation"))
    if ("mtm", "") in starts:
        sentence += f"; in brackets the difference to plain {words.start('mtm')} in points, paired by seed"
    sentences = [sentence]
    levels = results["severity"].dropna().unique()
    if len(levels):
        sentences.append(f"Corrupted images: {words.severities(map(int, levels))}")
    if any(init == "scratch" for init, _ in starts):
        sentences.append(
            f"Probes in the row \u201c{words.start('scratch')}\u201d are of the same encoder before any training"
        )
    recipes = [
        f"{name} {run.config[key]}"
        for key, name in (("pretrain", "pre-training"), ("finetune", "fine-tuning"))
        if key in run.config
    ]
    if recipes:
        sentences.append(f"Recipes: {', '.join(recipes)}")
    return f"{'. '.join(sentences)}."


def _distinct(table, *columns):
    """The combinations of some columns, in order, as a list of tuples."""
    return list(table[list(columns)].drop_duplicates().itertuples(index=False, name=None))


def _known(value):
    return None if pd.isna(value) else value
