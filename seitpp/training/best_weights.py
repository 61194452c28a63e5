"""The weights that were best so far, the average (EMA) among them, kept while a training goes on.

weights_best/      weights as in weights/
best_weights.json  {"step", "measure", "value", "weights": "trained" or "averaged"}
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from seitpp.runtime.files import read_json, write_json
from seitpp.runtime.run_folder import RunFolder

FOLDER, NOTE = "weights_best", "best_weights.json"


@dataclass(frozen=True)
class Better:
    """Which number of an evaluation says what is better.

    Attributes:
        measure: its name.
        larger: whether more is better.
    """

    measure: str
    larger: bool = False

    def score(self, measures: dict[str, float], suffix: str = "") -> float | None:
        """A number of which less is better; None where it was not measured."""
        value = measures.get(self.measure + suffix)
        return None if value is None else -value if self.larger else value


def keep_best(
    run: RunFolder, better: Better, measures: dict[str, float], step: int,
    candidates: dict[str, tuple[str, nn.Module]], save: Callable[[Path, nn.Module], None],
) -> None:  # fmt: skip
    """Save the best of some models, if it is better than what was kept before. The main process does.

    Args:
        run: the RunFolder.
        better: what is compared.
        measures: of an evaluation; those of a model have the suffix that its candidate names.
        step: of the evaluation.
        candidates: {what best_weights.json calls it: (suffix, whole model)}.
        save: writes weights into a folder.
    """
    scores = {name: better.score(measures, suffix) for name, (suffix, _) in candidates.items()}
    known = {name: score for name, score in scores.items() if score is not None}
    if not known:
        return
    name = min(known, key=lambda each: known[each])
    suffix, model = candidates[name]
    note = run.path / NOTE
    before = better.score({better.measure: read_json(note)["value"]}) if note.exists() else None
    if before is not None and known[name] >= before:
        return
    save(run.path / FOLDER, model)
    write_json(
        note, {"step": step, "measure": better.measure, "value": measures[better.measure + suffix], "weights": name}
    )
