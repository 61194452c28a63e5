"""Report sections that one looks at: classes, confusions and worst mistakes of classifiers, and feature spaces.

Of `seitpp evaluate` and `seitpp explore`, from the tables and pictures that they leave in their run folders.
"""

from typing import Any

from seitpp.report.found_runs import Found
from seitpp.report.looks_of_classes import class_looks
from seitpp.report.looks_of_features import feature_looks


def looks_sections(found: Found) -> list[dict[str, Any]]:
    """Sections of all evaluations, then of all explorations.

    Args:
        found: Found.
    Returns: dicts with kind ("classes" or "features"), dataset, label (of the run), tables; of
        classes: seeds, method, images, classes, shown, cut (the worst and the best so many are shown; 0: all are),
        without_images (classes), confusion (Markup, "" for many classes), mistakes (name, answer, confidence, uri);
        features: start and of_classifier (of the encoder), agreement, neighbours, rows (a query and its neighbours,
        each name, uri, text, right), map (Markup), mapped, named (in the map), legend (mark, name), method, explained,
        trustworthiness.
    Raises: UserError if a run's table or picture is broken.
    """
    evaluated = [class_looks(run) for run in found.of("finetune.evaluation")]
    explored = [feature_looks(run) for run in found.of("finetune.explore")]
    return [section for section in (*evaluated, *explored) if section is not None]
