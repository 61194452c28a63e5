"""Report section on several runs of one stage: their curves in one chart, and the settings in which they differ."""

from collections.abc import Sequence
from typing import Any

from seitpp.report.curves import MOST_RUNS, curves_chart, run_colours
from seitpp.report.found_runs import Found, Run
from seitpp.report.tables import Cell, Table
from seitpp.runtime.config import flattened

_STAGES = {
    "tokenizers.train": ("Tokenizers", ("mse", "loss"), "squared error of pixels", ("psnr",), "PSNR, dB"),
    "tokenadapt.train": (
        "TokenAdapt", ("loss",), "cross-entropy, nats per token", ("eval_agreement",), "agreement, fraction of tokens",
    ),
    "mtm.pretrain": (
        "Pre-training", ("cross_entropy", "loss"), "cross-entropy, nats per hidden token",
        ("eval_cross_entropy",), "cross-entropy, nats per hidden token",
    ),
    "finetune.train": ("Fine-tuning", (), "", (), ""),
    "downstream.segmentation": ("Segmentation", ("loss",), "loss", ("miou",), "mIoU, fraction"),
}  # fmt: skip
"""Of each stage its title; then measures of training and of evaluation, each with what the axis says. The curves of
fine-tuning stand in the section on results."""
_OF_EVERY_RUN = ("stage", "output_dir", "resume")
_LONGEST = 40


def comparison_sections(found: Found) -> list[dict[str, Any]]:
    """A part for each stage, and data set, that several runs were made of.

    Returns: [{title, charts: [{picture, caption}], legend: [(classes, label)], tables, left_out}]; `left_out` is how
        many runs are not shown, as there are more than MOST_RUNS.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in found.runs:
        if run.stage in _STAGES:
            groups.setdefault((run.stage, run.config.get("dataset") or ""), []).append(run)
    return [_section(*key, runs) for key, runs in sorted(groups.items(), key=_order) if len(runs) > 1]


def _order(group):
    (stage, dataset), _ = group
    return list(_STAGES).index(stage), dataset


def _section(stage, dataset, runs):
    title, losses, loss, measures, measure = _STAGES[stage]
    shown = runs[:MOST_RUNS]
    colours = run_colours(shown)
    charts = [
        {
            "picture": curves_chart(
                shown, names, title=f"{title}, {when}: {what} against the step, a colour a run", y_label=what,
                of_evaluations=of_evaluations, colours=colours, values_at_ends=True,
            ),
            "caption": f"{when.capitalize()}: {what}",
        }
        for names, what, when, of_evaluations in (
            (losses, loss, "training", False), (measures, measure, "evaluation", True)
        )
        if names
    ]  # fmt: skip
    charts = [chart for chart in charts if chart["picture"]]
    name = f"{title}, {dataset}" if dataset else title
    return {
        "title": name,
        "charts": charts,
        "legend": [
            (f"c-{colour}{' broken' if broken else ''}", label) for label, (colour, broken) in colours.items() if charts
        ],
        "tables": [table] if (table := differing_table(name, shown)) else [],
        "left_out": len(runs) - len(shown),
    }  # fmt: skip


def differing_table(name: str, runs: Sequence[Run]) -> Table | None:
    """The settings in which runs differ, a row a key in the order of their files, a column a run.

    Returns: None where they differ in nothing but their folders. A key that a run does not have is shown as such.
    """
    configs = [flattened(run.config) for run in runs]
    keys = dict.fromkeys(key for config in configs for key in config if key not in _OF_EVERY_RUN)
    texts = {key: [_text(config[key]) if key in config else None for config in configs] for key in keys}
    rows = [
        (key, [None if value is None else Cell(text=_short(value)) for value in values])
        for key, values in texts.items()
        if len(set(values)) > 1
    ]
    if not rows:
        return None
    return Table(
        name=f"differences-{name}",
        caption=f"{name}: settings that differ between the runs; all others are alike",
        columns=("setting", *(run.label for run in runs)),
        rows=rows,
    )


def _text(value):
    if value is None:
        return "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(each) for each in value) or "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    return " ".join(str(value).split())


def _short(text):
    """The end of a long text: of a path that is what tells it from others."""
    return text if len(text) <= _LONGEST else f"\u2026{text[1 - _LONGEST :]}"
