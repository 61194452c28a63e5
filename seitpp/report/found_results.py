"""The results of all runs that were found, and which part of the page each belongs to."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false
# The stubs of pandas do not know what a column, a group or a named row is.

import pandas as pd

from seitpp.report.found_runs import Found
from seitpp.report.methods import KEY
from seitpp.runtime.results import COLUMNS, results_table

ABLATION, ROBUSTNESS, EVALUATION = "downstream.ablation", "downstream.robustness", "finetune.evaluation"
ADVERSARIAL = "downstream.adversarial"
FINE_GRAINED = "downstream.fine_grained"
SEGMENTATION = "downstream.segmentation"
STORAGE_CURVE = "downstream.storage_curve"
_GATHERING = (ABLATION, STORAGE_CURVE)
"""Stages that gather the results of runs of their own, which their rows name."""
_METHOD = [name for name in KEY if name != "label"]


def all_results(found: Found) -> pd.DataFrame:
    """Rows of all runs.

    Returns: DataFrame with the columns of the schema and two more. `part`: "ablation"; "storage_curve"; "segmentation";
        "fine_grained"; "adversarial"; "robustness" for what runs of that stage measured, clean images among it, and
        every other row with a shift; "evaluation" for what runs of `seitpp evaluate` measured again, and more of; else
        "main". `label`: of the run, where within a part and a data set several runs measured the same method; else "".
    """
    frames = []
    for run in found.runs:
        if len(rows := run.results):
            if run.stage not in _GATHERING:
                rows = rows.assign(run=run.path.as_posix())
            frames.append(rows.assign(stage=run.stage, label=run.label))
    if not frames:
        return results_table([]).assign(part="", label="")
    table = pd.concat(frames, ignore_index=True)
    table["part"] = "main"
    table.loc[(table["stage"] == ROBUSTNESS) | (table["shift"] != ""), "part"] = "robustness"
    table.loc[table["stage"] == EVALUATION, "part"] = "evaluation"
    table.loc[table["stage"] == SEGMENTATION, "part"] = "segmentation"
    table.loc[table["stage"] == ABLATION, "part"] = "ablation"
    table.loc[table["stage"] == STORAGE_CURVE, "part"] = "storage_curve"
    table.loc[table["stage"] == ADVERSARIAL, "part"] = "adversarial"
    table.loc[table["stage"] == FINE_GRAINED, "part"] = "fine_grained"
    table.loc[~_measured_twice(table), "label"] = ""
    return table[[*COLUMNS, "part", "label"]]


def _measured_twice(table):
    """Whether several runs measured a row's method on the same images with the same seed, or with other tokenizers.

    Such numbers must not be averaged.
    """
    method = ["part", "dataset", *_METHOD]
    cell = [*method, "split", "shift", "severity", "metric", "seed"]
    several = table.groupby(cell, dropna=False)["label"].transform("nunique") > 1
    several |= table.groupby(method, dropna=False)["tokenizer"].transform("nunique") > 1
    return several.groupby([table[name] for name in method], dropna=False).transform("any")
