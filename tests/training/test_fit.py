"""`fit`: what it does around the loop, for any model."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import read_json
from seitpp.runtime.run_folder import RunFolder, read_metrics
from seitpp.training import fit as module
from seitpp.training.best_weights import Better
from seitpp.training.config import TrainConfig
from seitpp.training.fit import Hook, batch_layout, fit
from seitpp.training.random_streams import Draws

SAMPLES = 24


@dataclass(frozen=True, kw_only=True)
class Config(TrainConfig):
    """Twelve steps of three epochs."""

    batch_size: int = 6
    steps: int | None = 12
    lr: float | None = 0.05
    log_every: int = 1
    save_every: int = 5
    trackers: tuple = ()


class Trial:
    """A linear regression whose every call is noted."""

    def __init__(self, folder, **fields):
        self.config = Config(output_dir=str(folder), mixed_precision="no", **fields)
        self.accelerator = make_accelerator("no")
        self.run = RunFolder(self.config, stage="trial")
        torch.manual_seed(0)
        self.model = nn.Linear(3, 2)
        self.evaluated, self.hooked, self.saved, self.sizes = [], [], {}, []

    def batches(self, config):
        def batch_at(step, micro):
            self.sizes.append(config.batch_size)
            positions = micro * config.batch_size + torch.arange(config.batch_size)
            inputs = Draws(config.seed, step, positions).normal("inputs", 3)
            return inputs, inputs[:, :2] * 2 + 1

        return batch_at

    def step(self, model, batch, index):
        loss = (model(batch[0]) - batch[1]).square().mean()
        return loss, {"root": loss.sqrt()}

    def evaluate(self, model):
        assert not model.training
        self.evaluated.append(model.weight.detach().clone())
        return {"distance": float((model.weight.detach() - 2 * torch.eye(2, 3)).norm())}

    def save(self, folder, model):
        self.saved[folder.name] = model.weight.detach().clone()

    def fit(self, **others):
        return fit(
            self.run, self.accelerator, self.model, samples=SAMPLES, batches=self.batches, step=self.step,
            save=self.save, title="trial", **others,
        )  # fmt: skip


@pytest.mark.parametrize(("eval_every", "steps"), [(None, [5, 10, 12]), (0, [12]), (4, [4, 8, 12]), (100, [12])])
def test_evaluations_are_with_every_checkpoint_or_as_asked_for_and_always_at_the_end(tmp_path, eval_every, steps):
    trial = Trial(tmp_path, eval_every=eval_every)
    fitted = trial.fit(evaluate=trial.evaluate)
    measured = [line for line in read_metrics(tmp_path) if "distance" in line]
    assert [line["step"] for line in measured] == steps
    assert fitted.measures == {"distance": measured[-1]["distance"]}
    assert len({line["distance"] for line in measured}) == len(measured)


def test_the_weights_that_are_saved_are_those_at_the_end_and_their_average(tmp_path):
    trial = Trial(tmp_path, ema_decay=0.5)
    fitted = trial.fit(evaluate=trial.evaluate)
    assert set(trial.saved) == {"weights", "weights_ema"}
    assert torch.equal(trial.saved["weights"], trial.model.weight)
    assert fitted.model is trial.model
    assert not fitted.model.training
    assert torch.equal(trial.evaluated[-2], trial.saved["weights"])
    assert torch.equal(trial.evaluated[-1], trial.saved["weights_ema"])
    assert not torch.equal(trial.saved["weights"], trial.saved["weights_ema"])
    assert set(fitted.measures) == {"distance", "distance_ema"}


def test_trackers_get_pictures_of_some_evaluations_evenly_spaced_and_of_the_last(tmp_path):
    trial = Trial(tmp_path / "run", trackers=("tensorboard",), steps=23, eval_every=1)

    def pictures(model):
        assert not model.training
        assert not torch.is_grad_enabled()
        return {"weights": np.full((2, 3, 3), 7, np.uint8)}

    trial.fit(evaluate=trial.evaluate, pictures=pictures)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard" / "run"), size_guidance={"images": 0}).Reload()
    assert [shown.step for shown in events.Images("eval/weights")] == [3, 6, 9, 12, 15, 18, 21, 23]  # of 23, 10 at most
    assert len(events.Scalars("eval/distance")) == 23


def test_without_trackers_no_pictures_are_made(tmp_path):
    trial = Trial(tmp_path)
    trial.fit(evaluate=trial.evaluate, pictures=lambda model: pytest.fail("made for nobody"))


def test_a_hook_is_called_after_every_so_many_epochs(tmp_path):
    trial = Trial(tmp_path)
    seen = []
    trial.fit(hooks=[Hook(every=1, call=lambda model, epoch: seen.append((epoch, model.weight.detach().clone())))])
    assert [epoch for epoch, _ in seen] == [1, 2, 3]  # four steps each
    assert not torch.equal(seen[0][1], seen[1][1])


def test_the_best_checkpoint_is_that_of_the_least_number(tmp_path):
    trial, distances = Trial(tmp_path, save_every=3, steps=12, keep_checkpoints=1), iter([3.0, 1.0, 2.0, 4.0])
    trial.fit(evaluate=lambda model: {"distance": next(distances)}, best_by=Better("distance"))
    assert read_json(tmp_path / "best.json")["step"] == 6
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000006", "step-00000012"]


def test_parameters_outside_the_groups_stay(tmp_path):
    trial = Trial(tmp_path)
    bias = trial.model.bias.detach().clone()
    trial.fit(groups=[{"params": [trial.model.weight], "weight_decay": 0.0, "lr_scale": 1.0}])
    assert torch.equal(trial.model.bias, bias)


def test_a_step_that_does_not_fit_is_made_of_smaller_ones_with_the_same_losses(tmp_path):
    whole = Trial(tmp_path / "whole")
    whole.fit()

    def largest(model, batch, index):
        torch.empty(1 if len(batch[0]) <= 3 else 2**50, dtype=torch.uint8)  # a petabyte: the allocator itself refuses
        return whole.step(model, batch, index)

    shrunk = Trial(tmp_path / "shrunk", shrink_batch=True)
    shrunk.fit(largest_step=largest)
    assert shrunk.sizes == [6, *[3] * 25]  # tried whole, tried half, then twelve steps of two
    assert read_json(tmp_path / "shrunk" / "micro_batch.json") == {"batch_size": 3, "accum_iter": 2}
    one, two = ([line["loss"] for line in read_metrics(tmp_path / name)] for name in ("whole", "shrunk"))
    assert two == pytest.approx(one, abs=1e-6)
    assert torch.allclose(shrunk.model.weight, whole.model.weight, atol=1e-6)


def test_a_compiled_model_is_compiled_once_and_learns_the_same(tmp_path, monkeypatch):
    plain = Trial(tmp_path / "plain")
    plain.fit()
    compiled = []
    monkeypatch.setattr(module, "compile_in_place", lambda prepared: compiled.append(prepared))
    trial = Trial(tmp_path / "compiled", compile=True)
    trial.fit()
    assert compiled == [trial.model]
    assert torch.equal(trial.model.weight, plain.model.weight)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"ema_decay": 1.0}, "ema_decay = 1.0"),
        ({"ema_decay": 0.0}, "ema_decay = 0.0"),
        ({"eval_every": -1}, "eval_every = -1"),
    ],
)
def test_impossible_values_are_refused_by_name(tmp_path, fields, said):
    with pytest.raises(UserError, match=said):
        Config(output_dir=str(tmp_path), **fields)


def test_the_layout_of_batches_is_that_of_the_processes(tmp_path):
    layout = batch_layout(Config(output_dir=str(tmp_path), accum_iter=3, seed=5), make_accelerator("no"))
    assert {name: value for name, value in layout.items() if name != "device"} == {
        "batch_size": 6, "seed": 5, "accum_iter": 3, "rank": 0, "world_size": 1,
    }  # fmt: skip
