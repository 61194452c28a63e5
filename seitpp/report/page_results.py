"""Report sections of the results: for each task the accuracies, what they say, fine-tuning's curves, robustness."""

from seitpp.report.charts import bar, curve, line_chart
from seitpp.report.findings import (
    baseline_sentences,
    difference_sentence,
    not_improved,
    robustness_sentences,
)
from seitpp.report.scores import differences, scores

COLOURS = {"pretrained": "mtm", "frozen": "mtm", "scratch": "scratch", "baseline": "baseline"}


def task_sections(found, results):
    """Accuracies of each task, what they say, and the curves of fine-tuning.

    Args:
        found: Found.
        results: tidy rows of all runs.
    """
    kinds = trained_kinds(found)
    sections = []
    for task, rows in results.groupby("task", sort=False):
        measured = scores(rows, "accuracy", kinds)
        runs = [run for run in found.of("finetune.train") if run.config.get("task") == task]
        sets = robustness_sets(rows, kinds)
        if not measured and not sets:
            continue
        limit = max((score.mean + (score.deviation or 0) for score in measured), default=0)
        sections.append(
            {
                "task": task,
                "scores": measured,
                "bars": [
                    bar(score.mean, limit, colour=COLOURS[score.kind], deviation=score.deviation) for score in measured
                ],
                "drawn": {COLOURS[score.kind] for score in measured},
                "differences": differences(measured),
                "sentences": [difference_sentence(each) for each in differences(measured)]
                + baseline_sentences(measured),
                "not_improved": not_improved(task, measured, sets),
                "chart": _finetuning_chart(runs, task, kinds),
                "equal_budget": _equal_budget(runs),
                "sets": sets,
                "methods": _methods(sets),
                "robustness": robustness_sentences(sets),
            }
        )
    return sections


def robustness_sets(rows, kinds):
    """{name of a set of images: Scores} of one task's rows with the metric "accuracy, <name>"."""
    names = [metric.removeprefix("accuracy, ") for metric in rows["metric"].unique() if metric.startswith("accuracy, ")]
    sets = {name: scores(rows, f"accuracy, {name}", kinds) for name in names}
    return {name: measured for name, measured in sets.items() if measured}


def trained_kinds(found):
    """{method: "pretrained" or "scratch"} as the runs of finetune.train say, with and without the run's label."""
    kinds = {}
    for run in found.of("finetune.train"):
        method = method_name(run.config)
        kinds[method] = kinds[f"{method} ({run.label})"] = "pretrained" if run.config.get("weights") else "scratch"
    return kinds


def method_name(config):
    """What the tables call a run of seitpp.finetune.train."""
    return config.get("method") or ("fine-tuned from MTM" if config.get("weights") else "from scratch")


def _methods(sets):
    """Methods of the robustness table: those that start from MTM first, each kind best first."""
    order = {score.method: score.kind for measured in sets.values() for score in measured}
    return sorted(order, key=lambda method: list(COLOURS).index(order[method]))


def _equal_budget(runs):
    """Whether all runs took the same number of steps of the same size."""
    keys = ("steps", "epochs", "batch_size", "accum_iter")
    return len({tuple(run.config.get(key) for key in keys) for run in runs}) == 1


def _finetuning_chart(runs, task, kinds):
    """Training loss of every seed, one colour a kind of start."""
    methods = [method_name(run.config) for run in runs]
    lines = []
    for run, method in zip(runs, methods, strict=True):
        label = run.label if methods.count(method) > 1 else method.removeprefix("fine-tuned ")
        for records in run.seed_metrics.values():
            lines.append(curve(records, "loss", offset=1, label=label, colour=COLOURS[kinds[method]]))
            label = ""
    return line_chart(
        lines, title=f"Training loss against the step on {task}, a line a seed", x_label="step",
        y_label="training loss, nats an image",
    )  # fmt: skip
