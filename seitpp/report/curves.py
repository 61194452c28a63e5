"""Curves of the runs of a stage in one chart: training and evaluation, a colour a run, every seed a line."""

# pyright: reportArgumentType=false
# The stubs of pandas do not know what a column is.

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from seitpp.report.found_runs import Run
from seitpp.runtime.charts import curve, line_chart

_HUES = 6
MOST_RUNS = 2 * _HUES
"""Runs in one chart: those of the second half are drawn broken."""


def run_colours(runs: Sequence[Run]) -> dict[str, tuple[str, bool]]:
    """{label: (what `Line.colour` takes, whether the line is broken)}."""
    return {run.label: (f"run hue-{place % _HUES}", place >= _HUES) for place, run in enumerate(runs)}


def seeds_of(run: Run) -> list[list[dict[str, Any]]]:
    """Records of each training of a run: of its seeds, or its own."""
    return list(run.seed_metrics.values()) or [run.metrics]


def evaluated(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of evaluations: those without a learning rate."""
    return [record for record in records if "lr" not in record]


def trained(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of steps. Older runs, and those of other stages, may leave the rate out: they have a loss."""
    return [record for record in records if "lr" in record or "loss" in record]


def steps_per_epoch(run: Run) -> int | None:
    """How many steps see every training image once; None where the run does not say."""
    images = int(run.results["train_images"].max()) if len(run.results) else 0
    parts = [run.config.get("batch_size"), run.config.get("accum_iter", 1), run.environment.get("processes") or 1]
    known = [part for part in parts if isinstance(part, int) and part > 0]
    return images // math.prod(known) or None if len(known) == len(parts) else None


def curves_chart(
    runs: Sequence[Run], names: Sequence[str], *, title: str, y_label: str, of_evaluations: bool, factor: float = 1.0,
    colours: dict[str, tuple[str, bool]] | None = None, labels: dict[str, str] | None = None, epochs: bool = False,
    values_at_ends: bool = False,
) -> Any:  # fmt: skip
    """The chart of a measure, a line a training.

    Args:
        runs: whose curves are drawn, MOST_RUNS at most.
        names: of the measure; of each run the first that it has.
        title: what it shows, in words.
        y_label: what is measured, with its unit.
        of_evaluations: whether it was measured by evaluations, each a dot, or by steps.
        factor: what the measure is multiplied with.
        colours: by the runs' labels, see `run_colours`; None: as that says.
        labels: what stands at the lines' ends, by the runs' labels; None: those.
        epochs: whether the axis counts epochs, where all runs say how long one is.
        values_at_ends: whether every line ends with its last value instead.
    Returns: Markup; empty where nobody measured it.
    """
    runs, colours, labels = runs[:MOST_RUNS], colours or run_colours(runs), labels or {}
    per_epoch = {run.label: steps_per_epoch(run) if epochs else None for run in runs}
    counted = epochs and None not in per_epoch.values()
    lines = []
    for run in runs:
        colour, broken = colours[run.label]
        label = labels.get(run.label, run.label)
        for records in seeds_of(run):
            chosen = (evaluated if of_evaluations else trained)(records)
            name = next((each for each in names if any(record.get(each) is not None for record in chosen)), None)
            if name is None:
                continue
            scale = 1 / (per_epoch[run.label] or 1) if counted else 1.0
            line = curve(
                chosen, name, offset=0 if of_evaluations else 1, scale=scale, factor=factor, label=label,
                colour=colour, dashed=broken, marked=of_evaluations,
            )  # fmt: skip
            lines.append(replace(line, label=f"{line.points[-1][1]:.4g}") if values_at_ends else line)
            label = ""
    return line_chart(lines, title=title, x_label="epoch" if counted else "step", y_label=y_label)
