"""Report section of `seitpp segmentation`: mIoU by start and head, per class, pictures; the papers' gain."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false
# The stubs of pandas do not know what a column, a group or a named row is.

import base64
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from seitpp.report import words
from seitpp.report.found_results import SEGMENTATION
from seitpp.report.found_runs import Found, Run
from seitpp.report.tables import Cell, Table
from seitpp.runtime.charts import bar
from seitpp.runtime.results import mean_and_std
from seitpp.runtime.tables import read_table

METRICS = {"miou": "mIoU", "pixel_accuracy": "pixel accuracy", "mean_class_accuracy": "mean class accuracy"}
HEADS = {"upernet": "UPerNet", "linear_segmentation": "linear head, frozen encoder", "token_majority": "no network"}
REPORTED = 0.042
"""What SeiT++ gains in mIoU on ADE20K, as the paper reports it (arXiv 2312.10105); how it was trained is not said."""
_REPORTED_DATASET = re.compile("ade", re.IGNORECASE)
_MOST_BARS = 30


def segmentation_sections(found: Found) -> list[dict[str, Any]]:
    """A section of each data set that runs of `seitpp segmentation` measured.

    Returns: [{dataset, facts, sentences, tables, bars, left_out, best, pictures}]: tables are Tables, the first of
        methods by measures; bars, of the best run, [{name, iou, bar}] from the best class on, at most 30, `left_out`
        of them more; pictures, [{label, source}] with the PNG as a data URL.
    """
    runs = [run for run in found.of(SEGMENTATION) if len(run.results)]
    datasets = list(dict.fromkeys(name for run in runs for name in run.results["dataset"]))
    return [_section(name, [run for run in runs if name in set(run.results["dataset"])]) for name in datasets]


def _section(dataset: str, runs: list[Run]) -> dict[str, Any]:
    several = pd.concat([run.results.assign(label=run.label) for run in runs], ignore_index=True)
    results = several[several["dataset"] == dataset]
    method = ["protocol", "init", "augmentation"]
    twice = results.groupby([*method, "metric", "seed"], dropna=False)["label"].transform("nunique").gt(1)
    baseline = results["protocol"] == "token_majority"  # a function of the stores: the same wherever it was measured
    results = results.assign(label=results["label"].where(twice & ~baseline, ""))
    means = mean_and_std(results, by=[*method, "label", "metric"])
    table = _methods_table(dataset, means)
    best = max(runs, key=lambda run: float(run.summary.get("miou") or 0.0))
    classes = _classes(best)
    return {
        "dataset": dataset,
        "facts": _facts(best),
        "sentences": _sentences(dataset, means),
        "tables": [table, *([_class_table(dataset, best, classes)] if len(classes) else [])],
        "bars": _bars(classes),
        "left_out": max(0, len(classes) - _MOST_BARS),
        "best": best.label,
        "pictures": [
            {"label": run.label, "source": _data_url(file)}
            for run in runs
            for file in sorted(run.path.glob("seed-*/segmentation.png"))[:1]
        ],
    }


def _methods_table(dataset: str, means: pd.DataFrame) -> Table:
    keys = list(
        dict.fromkeys(zip(means["protocol"], means["init"], means["augmentation"], means["label"], strict=True))
    )
    cells = {(row.protocol, row.init, row.augmentation, row.label, row.metric): row for row in means.itertuples()}
    tops = {metric: max(row.mean for key, row in cells.items() if key[-1] == metric)
            for metric in METRICS if any(key[-1] == metric for key in cells)}  # fmt: skip
    with_papers = bool(_REPORTED_DATASET.search(dataset))
    rows = []
    for key in sorted(keys, key=lambda key: -_mean(cells.get((*key, "miou")))):
        found = [_cell(cells.get((*key, metric)), tops.get(metric)) for metric in METRICS]
        rows.append((_name(*key), [*found, None] if with_papers else found))
    if with_papers:
        reported = Cell(text=words.points(REPORTED), value=100 * REPORTED)
        rows.append(("SeiT++'s gain, as reported", [None, None, None, reported]))
    seeds = int(means["seeds"].max())
    over = "one seed" if seeds == 1 else f"mean ± standard deviation over up to {seeds} seeds"
    columns = ["method", *METRICS.values()]
    return Table(
        name=f"segmentation-{_slug(dataset)}",
        caption=f"{dataset}: %, {over}, {int(means['test_images'].max()):,} images at their own size",
        columns=[*columns, "mIoU gained, as reported (points)"] if with_papers else columns,
        rows=rows,
        reported=(len(METRICS),) if with_papers else (),
    )


def _class_table(dataset: str, run: Run, classes: pd.DataFrame) -> Table:
    rows = [
        (
            row["class"],
            [
                _share(row["iou"]),
                _share(row["accuracy"]),
                Cell(text=f"{int(row['pixels']):,}", value=int(row["pixels"])),
            ],
        )
        for _, row in classes.iterrows()
    ]
    return Table(
        name=f"segmentation-{_slug(dataset)}-classes", caption=f"{dataset}, classes of {run.label}, its first seed: %",
        columns=["class", "IoU", "accuracy", "pixels"], rows=rows,
    )  # fmt: skip


def _sentences(dataset: str, means: pd.DataFrame) -> list[str]:
    """What pre-training changes, and what a table of token ids alone reaches."""
    mious = means[(means["metric"] == "miou") & (means["label"] == "")]
    known = {(row.protocol, row.init): row for row in mious.itertuples()}
    sentences = []
    pairs = (("upernet", "scratch", "from scratch"), ("linear_segmentation", "random", "of a random encoder"))
    for protocol, other, name in pairs:
        after, before = known.get((protocol, "mtm")), known.get((protocol, other))
        if after is None or before is None:
            continue
        stds = [row.std for row in (after, before)]
        std = None if any(pd.isna(each) for each in stds) else math.hypot(*stds)
        change = words.points(after.mean - before.mean, std)
        doubt = "" if std is None or abs(after.mean - before.mean) > std else ": no more than one standard deviation"
        if std is None:
            doubt = ", one seed, so this may be chance"
        sentences.append(
            f"{HEADS[protocol]} on {dataset}: mIoU {_percent(after)} % from MTM, {_percent(before)} % {name}: {change} "
            f"points{doubt}."
        )
    baseline = known.get(("token_majority", ""))
    if baseline is not None:
        beaten = [row for row in mious.itertuples() if row.protocol != "token_majority" and row.mean <= baseline.mean]
        ahead = f"; not beaten by {len(beaten)} of the others" if beaten else "; all others are better"
        sentences.append(f"Each token's commonest class alone reaches {_percent(baseline)} %{ahead}.")
    return sentences


def _facts(run: Run) -> str:
    """What the numbers depend on, in a sentence."""
    summary = run.summary
    if "window_size" not in summary:
        return ""
    size, stride = (" x ".join(map(str, summary[name])) for name in ("window_size", "window_stride"))
    side = summary.get("short_side")
    resized = f"short side {side} pixels" if side else "images of their own size"
    return (
        f"Windows of {size} pixels every {stride}, {resized}; logits are averaged where windows overlap. Truth: "
        f"label maps {summary['mask_resolution']}; value {summary['ignored_label']} is ignored. Test-time "
        f"augmentation: {summary['test_time_augmentation']}."
    )


def _classes(run: Run) -> pd.DataFrame:
    """per_class.csv of a run's first seed, best class first; without rows where there is none."""
    file = next(iter(sorted(run.path.glob("seed-*/per_class.csv"))), None)
    columns = ("class", "iou", "accuracy", "pixels", "answered_pixels")
    if file is None:
        return pd.DataFrame(columns=list(columns))
    table = read_table(file, columns)
    for name in columns[1:]:
        table[name] = pd.to_numeric(table[name], errors="coerce")
    return table.sort_values("iou", ascending=False, na_position="last", kind="stable").reset_index(drop=True)


def _bars(classes: pd.DataFrame) -> list[dict[str, Any]]:
    known = classes[classes["iou"].notna()].head(_MOST_BARS)
    return [
        {"name": row["class"], "iou": words.percent(row["iou"]), "bar": bar(row["iou"], 1.0, colour="mtm")}
        for _, row in known.iterrows()
    ]


def _name(protocol: str, init: str, augmentation: str, label: str) -> str:
    if protocol == "token_majority":
        return "each token's commonest class"
    begun = "random encoder" if init == "random" else words.from_start(init)
    name = f"{HEADS.get(protocol, words.protocol(protocol))}, {begun}"
    if augmentation:
        name += f" ({words.start(init, augmentation)})"
    return f"{name} ({label})" if label else name


def _cell(row: Any, best: float | None) -> Cell | None:
    if row is None:
        return None
    std = None if pd.isna(row.std) else row.std
    scaled = None if std is None else 100 * std
    return Cell(text=words.percent(row.mean, std), value=100 * row.mean, std=scaled, best=row.mean == best)


def _share(value: float) -> Cell | None:
    return None if pd.isna(value) else Cell(text=words.percent(value), value=100 * value)


def _percent(row: Any) -> str:
    return words.percent(row.mean, None if pd.isna(row.std) else row.std)


def _mean(row: Any) -> float:
    return -1.0 if row is None else row.mean


def _slug(name: str) -> str:
    return "-".join(re.findall("[a-z0-9]+", name.lower())) or "set"


def _data_url(file: Path) -> Markup:
    return Markup("data:image/png;base64," + base64.b64encode(file.read_bytes()).decode())
