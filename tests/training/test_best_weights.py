"""The best weights so far: which they are, and that they stay."""

import pytest

from seitpp.runtime.files import read_json
from seitpp.runtime.run_folder import RunFolder
from seitpp.training.best_weights import Better, keep_best
from seitpp.training.config import TrainConfig


@pytest.fixture
def run(tmp_path):
    return RunFolder(TrainConfig(output_dir=str(tmp_path / "run")), stage="trial")


def keep(run, better, **measures):
    """Keep the best of two models, whose weights are their names; returns what is kept."""

    def save(folder, model):
        folder.mkdir(exist_ok=True)
        (folder / "model").write_text(model)

    candidates = {"trained": ("", f"trained {measures}"), "averaged": ("_ema", f"averaged {measures}")}
    keep_best(run, better, measures, len(measures), candidates, save)
    file = run.path / "weights_best" / "model"
    return file.read_text() if file.exists() else None


def test_the_average_is_kept_where_it_is_better(run):
    first = {"accuracy": 0.4, "accuracy_ema": 0.5}
    assert keep(run, Better("accuracy", larger=True), **first) == f"averaged {first}"
    assert read_json(run.path / "best_weights.json") == {
        "step": 2, "measure": "accuracy", "value": 0.5, "weights": "averaged"
    }  # fmt: skip


def test_later_weights_have_to_be_better(run):
    better = Better("loss")
    first, later, last = {"loss": 0.4}, {"loss": 0.4}, {"loss": 0.3}
    for measures, kept in ((first, first), (later, first), (last, last)):
        assert keep(run, better, **measures) == f"trained {kept}"


def test_a_number_that_was_not_measured_changes_nothing(run):
    assert keep(run, Better("accuracy", larger=True), loss=0.1) is None
