"""Who shows the numbers of a run besides metrics.jsonl."""

import resource
import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import toy_training
from seitpp.runtime.command import explain
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.errors import UserError
from seitpp.runtime.run_folder import RunFolder, read_metrics
from seitpp.runtime.trackers import opened_trackers
from toy_training import Stop, stopping_at, toy


def scalars(folder, name):
    """(steps, values) that TensorBoard shows."""
    events = EventAccumulator(str(folder / "tensorboard" / "seitpp")).Reload().Scalars(name)
    return [event.step for event in events], [event.value for event in events]


def test_tensorboard_shows_what_is_logged_and_one_curve_after_a_resume(tmp_path):
    with pytest.raises(Stop):
        toy_training.main(toy(tmp_path / "run"), before_batch=stopping_at(7))
    time.sleep(1.0 - time.time() % 1.0)  # TensorBoard orders its files by second, then by an unpadded number
    toy_training.main(toy(tmp_path / "run"))
    steps, values = scalars(tmp_path / "run", "loss")
    lines = read_metrics(tmp_path / "run")
    assert steps == list(range(12))
    assert values == pytest.approx([line["loss"] for line in lines])
    assert scalars(tmp_path / "run", "lr")[1] == pytest.approx([line["lr"] for line in lines])


def test_no_trackers_leave_metrics_alone(tmp_path):
    toy_training.main(toy(tmp_path / "run", trackers=()))
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert len(read_metrics(tmp_path / "run")) == 12


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_that_is_not_installed_is_one_line_that_says_how_to_get_it(tmp_path, name, monkeypatch):
    monkeypatch.setattr("seitpp.runtime.trackers.find_spec", lambda package: None)
    line = rf"--trackers: {name} is not installed: pip install 'seitpp\[{name}\]', or leave it out"
    with pytest.raises(UserError, match=line):
        toy_training.main(toy(tmp_path / "run", trackers=(name,)))


def test_a_tracker_that_can_not_write_is_named_without_a_stack_trace_of_its_thread(tmp_path):
    accelerator, run = make_accelerator("no"), RunFolder(toy(tmp_path / "run"), stage="toy")
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, former[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised, opened_trackers(accelerator, run, 0):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert explain(raised.value).startswith(f"{tmp_path / 'run' / 'tensorboard'} gets larger than")
