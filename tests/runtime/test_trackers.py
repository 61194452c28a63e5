"""Who shows the numbers of a run besides metrics.jsonl."""

import io
import resource
import time

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch import nn

import toy_training
from seitpp.runtime.command import explain
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.errors import UserError
from seitpp.runtime.run_folder import RunFolder, read_metrics
from seitpp.runtime.trackers import grouped, hyper_parameters, opened_trackers, run_name
from toy_training import Stop, stopping_at, toy


def events_of(folder):
    """What TensorBoard reads of a run."""
    return EventAccumulator(str(folder / "tensorboard" / folder.name)).Reload()


def scalars(folder, name):
    """(steps, values) that TensorBoard shows."""
    events = events_of(folder).Scalars(name)
    return [event.step for event in events], [event.value for event in events]


def test_tensorboard_shows_what_is_logged_and_one_curve_after_a_resume(tmp_path):
    with pytest.raises(Stop):
        toy_training.main(toy(tmp_path / "run"), before_batch=stopping_at(7))
    time.sleep(1.0 - time.time() % 1.0)  # TensorBoard orders its files by second, then by an unpadded number
    toy_training.main(toy(tmp_path / "run"))
    steps, values = scalars(tmp_path / "run", "train/loss")
    lines = read_metrics(tmp_path / "run")
    assert steps == list(range(12))
    assert values == pytest.approx([line["loss"] for line in lines])
    assert scalars(tmp_path / "run", "optim/lr")[1] == pytest.approx([line["lr"] for line in lines])


def test_numbers_stand_in_groups_and_those_of_the_machine_are_not_in_metrics(tmp_path):
    toy_training.main(toy(tmp_path / "run", steps=2))
    assert sorted(events_of(tmp_path / "run").Tags()["scalars"]) == [
        "optim/grad_norm", "optim/lr", "system/images_per_second", "system/memory", "train/loss", "train/root",
    ]  # fmt: skip
    assert sorted(read_metrics(tmp_path / "run")[0]) == ["grad_norm", "images_per_second", "loss", "lr", "root", "step"]
    (least, most) = scalars(tmp_path / "run", "system/memory")[1]
    assert 0.05 < least <= most  # GB: torch alone needs more


def test_an_evaluation_s_names_lose_what_their_group_says():
    assert grouped({"eval_accuracy": 0.5, "mfu": 0.1}, "eval") == {"eval/accuracy": 0.5, "system/mfu": 0.1}
    assert grouped({"accuracy": 0.5}, "train") == {"train/accuracy": 0.5}


def test_a_part_of_a_run_is_named_after_the_whole(tmp_path):
    run = RunFolder(toy(tmp_path / "finetune"), stage="toy")
    part = RunFolder(toy(tmp_path / "finetune" / "choice" / "blr-1"), stage="toy", within=run)
    elsewhere = RunFolder(toy(tmp_path / "seed-1"), stage="toy", within=run)
    assert [run_name(each) for each in (run, part, elsewhere)] == ["finetune", "finetune-choice-blr-1", "seed-1"]


def test_hyper_parameters_are_one_level_of_plain_values(tmp_path):
    values = hyper_parameters(RunFolder(toy(tmp_path / "run"), stage="toy"))
    assert (values["lr"], values["compile"], values["clip_grad"], values["stage"]) == (0.05, False, "None", "toy")
    assert {type(value) for value in values.values()} == {bool, int, float, str}


def test_the_end_has_the_configuration_beside_the_last_evaluation_and_pictures_are_few(tmp_path):
    accelerator, run = make_accelerator("no"), RunFolder(toy(tmp_path / "run"), stage="toy")
    picture = np.zeros((6, 9, 3), np.uint8)
    picture[2, 5] = (255, 0, 0)
    with opened_trackers(accelerator, run, 0) as trackers:
        trackers.evaluated({"step": 3, "eval_accuracy": 0.25})
        trackers.show(3, {"completions": picture})
        trackers.show(3, {})
        trackers.conclude(3, {"eval_accuracy": 0.25})
    events = events_of(tmp_path / "run")
    (shown,) = events.Images("eval/completions")
    assert (shown.step, shown.height, shown.width) == (3, 6, 9)
    pixels = np.asarray(Image.open(io.BytesIO(shown.encoded_image_string)).convert("RGB"))
    np.testing.assert_array_equal(pixels, picture)
    experiment, start, end = (
        HParamsPluginData.FromString(events.summary_metadata[f"_hparams_/{part}"].plugin_data.content)
        for part in ("experiment", "session_start_info", "session_end_info")
    )
    assert [info.name.tag for info in experiment.experiment.metric_infos] == ["eval/accuracy"]
    assert start.session_start_info.hparams["batch_size"].number_value == 4.0
    assert start.session_start_info.hparams["clip_grad"].string_value == "None"
    assert end.session_end_info.status == 1  # STATUS_SUCCESS
    assert [path.name for path in (tmp_path / "run" / "tensorboard").iterdir()] == ["run"]  # no second run of it


@pytest.mark.parametrize("limit", [None, 1e-3])
def test_the_norm_of_the_gradient_is_logged_as_it_is_before_clipping(tmp_path, limit):
    toy_training.main(toy(tmp_path / "run", steps=1, dropout=0.0, clip_grad=limit))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.0), nn.Linear(5, 2))
    inputs, targets = toy_training.toy_batch(toy(tmp_path / "x"), 0, 0)
    (model(inputs) - targets).square().mean().backward()
    squares = sum(parameter.grad.square().sum() for parameter in model.parameters())
    assert read_metrics(tmp_path / "run")[0]["grad_norm"] == pytest.approx(float(squares) ** 0.5, rel=1e-5)


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
