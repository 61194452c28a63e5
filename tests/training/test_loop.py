"""The training loop: what a step does, what a stop leaves, and that going on is as if nothing had happened."""

import json
import random

import numpy as np
import pytest
import torch

import tiny
import toy_training
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.errors import UserError
from seitpp.runtime.run_folder import RunFolder, read_metrics
from seitpp.runtime.schema import record
from seitpp.runtime.weights import load_weights, save_weights
from seitpp.training.checkpoint import load_checkpoint
from seitpp.training.config import TrainConfig
from seitpp.training.loop import train
from seitpp.training.schedule import make_schedule
from toy_training import ToyConfig, losses, saved_steps, toy_batch

# One step


@pytest.fixture
def regress(tmp_path):
    """Train y = w x by plain gradient descent under the real loop; returns the metrics and the weight's history."""

    def start(name="run", *, after=None, evaluate=None, eval_every=0, **fields):
        fields = {"batch_size": 4, "steps": 6, "lr": 0.1, "log_every": 1, **fields}
        config = TrainConfig(output_dir=str(tmp_path / name), **fields)
        accelerator = make_accelerator("no")
        run = RunFolder(config, stage="regression")
        model = torch.nn.Linear(3, 2, bias=False)
        torch.nn.init.zeros_(model.weight)
        schedule = make_schedule(config, samples=60, world_size=1)
        prepared, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.0))
        weights = []

        def batch_at(step, micro):
            weights.append(model.weight.detach().clone().numpy())
            batch = toy_batch(config, step, micro)
            return after(step, batch) if after else batch

        def step(batch, _):
            assert model.training
            loss = (prepared(batch[0]) - batch[1]).square().mean()
            return loss, {"twice": 2 * loss}

        last = train(
            accelerator, run, model=prepared, optimizer=optimizer, schedule=schedule, batch_at=batch_at, step=step,
            title="regression", evaluate=(lambda step: evaluate(model)) if evaluate else None, eval_every=eval_every,
        )  # fmt: skip
        weights.append(model.weight.detach().clone().numpy())
        return run, weights, last

    return start


def descend_slowly(config, clip=None):
    """The same training in numpy: (loss of each step, weight before each step and after the last)."""
    weight, weights, found = np.zeros((2, 3)), [], []
    for step in range(config.steps):
        weights.append(weight)
        gradient, loss = np.zeros((2, 3)), 0.0
        for micro in range(config.accum_iter):
            inputs, targets = (each.double().numpy() for each in toy_batch(config, step, micro))
            error = inputs @ weight.T - targets
            loss += (error**2).mean() / config.accum_iter
            gradient += 2 * error.T @ inputs / error.size / config.accum_iter
        norm = np.linalg.norm(gradient)
        if clip is not None and norm > clip:
            gradient *= clip / norm
        rate = config.lr * 0.5 * (1 + np.cos(np.pi * step / config.steps))
        weight = weight - rate * gradient
        found.append(loss)
    return found, [*weights, weight]


@pytest.mark.parametrize(("accum_iter", "clip_grad"), [(1, None), (3, None), (1, 0.4), (2, 0.4)])
def test_training_is_that_of_a_loop_in_numpy(regress, accum_iter, clip_grad):
    run, weights, _ = regress(accum_iter=accum_iter, clip_grad=clip_grad)
    expected_losses, expected_weights = descend_slowly(run.config, clip_grad)
    lines = run.metrics()
    assert [line["step"] for line in lines] == list(range(6))
    assert [line["loss"] for line in lines] == pytest.approx(expected_losses, rel=1e-5)
    assert [line["twice"] for line in lines] == pytest.approx([2 * loss for loss in expected_losses], rel=1e-5)
    assert np.stack(weights[::accum_iter]) == pytest.approx(np.stack(expected_weights), abs=1e-5)


def test_the_rate_of_each_step_is_logged(regress):
    run, _, _ = regress(warmup_steps=2)
    assert [line["lr"] for line in run.metrics()] == pytest.approx(
        [0.05, 0.1, 0.1, 0.0853553, 0.05, 0.0146447], abs=1e-6
    )


def test_a_logged_number_is_the_mean_since_the_line_before(regress):
    every, _, _ = regress("every", accum_iter=2)
    some, _, _ = regress("some", accum_iter=2, log_every=4)
    each = [line["loss"] for line in every.metrics()]
    assert [line["step"] for line in some.metrics()] == [3, 5]
    assert [line["loss"] for line in some.metrics()] == pytest.approx([np.mean(each[:4]), np.mean(each[4:])])


def test_the_last_step_is_shown_with_its_loss(regress, capsys):
    run, _, _ = regress()
    line = tiny.one_line(capsys.readouterr().out)
    assert line.startswith(f"regression 6/6  loss {run.metrics()[-1]['loss']:.3f}  ")


def test_it_evaluates_now_and_then_and_at_the_end_in_evaluation_mode(regress):
    def evaluate(model):
        assert not model.training
        return {"norm": float(model.weight.detach().norm())}

    run, weights, last = regress(evaluate=evaluate, eval_every=4)
    evaluated = [(line["step"], line["norm"]) for line in run.metrics() if "norm" in line]
    assert evaluated == [(step, pytest.approx(np.linalg.norm(weights[step]), rel=1e-5)) for step in (4, 6)]
    assert last == {"norm": evaluated[-1][1]}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_update_and_names_the_step(regress, bad):
    seen = {}

    def after(step, batch):
        return (batch[0], batch[1] * bad) if step == 3 else batch

    with pytest.raises(UserError, match=r"the loss is (nan|inf) at step 3; nothing was updated.*step-00000002"):
        regress("run", after=after, save_every=2, evaluate=lambda model: seen)
    assert [line["step"] for line in read_metrics(regress.__closure__[0].cell_contents / "run")] == [0, 1, 2]


def test_only_the_newest_checkpoints_are_kept(regress):
    run, _, _ = regress(save_every=2, keep_checkpoints=2)
    assert saved_steps(run.path) == [4, 6]
    one, _, _ = regress("one", save_every=1, keep_checkpoints=1)
    assert saved_steps(one.path) == [6]


# Stopping and going on


def attempts(*words):
    """Start attempts of the toy one after the other; returns their codes and what they said."""
    done = tiny.run(tiny.TESTS / "toy_training.py", json.dumps(words))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


VARIANTS = {
    "plain": ["--steps", "23", "--log_every", "3", "--save_every", "5"],
    "accum": ["--steps", "17", "--log_every", "2", "--save_every", "3", "--accum_iter", "2", "--clip_grad", "0.3"],
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """All toy runs of this file: name to (codes of its attempts, what they said, folder)."""
    folder = tmp_path_factory.mktemp("toy")
    random_steps = random.Random(0)
    plan = {}
    for variant, flags in VARIANTS.items():
        last = int(flags[1])
        plan[f"{variant}, whole"] = [{}]
        plan[f"{variant}, killed"] = [
            *({"signal": "SIGKILL", "step": step} for step in sorted(random_steps.sample(range(1, last), 4))), {}
        ]  # fmt: skip
    plan["plain, killed before any checkpoint"] = [{"signal": "SIGKILL", "step": 4}, {}]
    plan["plain, killed while saving"] = [
        {"signal": "SIGKILL", "saving": 10}, {"signal": "SIGINT", "step": 7}, {"signal": "SIGKILL", "saving": 20}, {}
    ]  # fmt: skip
    plan["plain, SIGINT"] = [{"signal": "SIGINT", "step": 8}, {}]
    plan["plain, SIGTERM"] = [{"signal": "SIGTERM", "step": 13}, {}]
    plan["plain, SIGTERM twice"] = [{"signal": "SIGTERM", "step": 13, "times": 2}, {}]
    plan["plain, SIGINT twice"] = [{"signal": "SIGINT", "step": 8, "times": 2}]
    words, owners = [], []
    for name, tries in plan.items():
        flags = VARIANTS[name.split(",")[0]]
        for each in tries:
            words.append({"argv": ["--output_dir", str(folder / name), *flags], **each})
            owners.append(name)
    results = {name: ([], [], folder / name) for name in plan}
    for name, result in zip(owners, attempts(*words), strict=True):
        results[name][0].append(result["code"])
        results[name][1].append(result["stderr"])
    return results


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_killed_again_and_again_logs_the_same_to_the_last_bit(stopped, variant):
    codes, _, killed = stopped[f"{variant}, killed"]
    _, _, whole = stopped[f"{variant}, whole"]
    assert codes == [-9, -9, -9, -9, 0]
    assert losses(killed) == losses(whole)


def test_a_run_killed_before_its_first_checkpoint_logs_the_same(stopped):
    codes, _, killed = stopped["plain, killed before any checkpoint"]
    assert codes == [-9, 0]
    assert losses(killed) == losses(stopped["plain, whole"][2])


def test_a_run_killed_while_it_saved_logs_the_same(stopped):
    codes, _, killed = stopped["plain, killed while saving"]
    assert codes == [-9, 130, -9, 0]
    assert losses(killed) == losses(stopped["plain, whole"][2])
    assert saved_steps(killed) == [20, 23]


def test_nothing_unfinished_is_left_beside_the_checkpoints(stopped):
    for name, (codes, _, folder) in stopped.items():
        if codes[-1] == 0:
            assert [path.name for path in (folder / "checkpoints").glob(".*")] == [], name


@pytest.mark.parametrize(
    ("name", "code", "step"), [("SIGINT", 130, 9), ("SIGTERM", 143, 14), ("SIGTERM twice", 143, 14)]
)
def test_a_signal_saves_and_exits_and_the_same_command_goes_on(stopped, name, code, step):
    codes, said, folder = stopped[f"plain, {name}"]
    assert codes == [code, 0]
    line = tiny.one_line(said[0])
    assert line == f"stopped before step {step} of 23; saved. To resume, rerun the same command"
    assert losses(folder) == losses(stopped["plain, whole"][2])


def test_a_second_ctrl_c_stops_at_once(stopped):
    codes, said, folder = stopped["plain, SIGINT twice"]
    assert codes == [130]
    assert "To resume, rerun the same command" in tiny.one_line(said[0])
    assert saved_steps(folder) == [5]


def test_resume_repeats_the_next_loss(tmp_path):
    class Stop(Exception):
        pass

    def stop(step, micro):
        if step == 7:
            raise Stop

    config = ToyConfig(output_dir=str(tmp_path / "run"), steps=12, log_every=1, save_every=4)
    with pytest.raises(Stop):
        toy_training.main(config, before_batch=stop)
    before = losses(tmp_path / "run")
    started = []
    toy_training.main(config, before_batch=lambda step, micro: started.append(step))
    after = losses(tmp_path / "run")
    assert started[0] == 4
    assert len(before) == 7
    assert after[:7] == before
    assert [line["step"] for line in after] == list(range(12))


def test_what_a_killed_save_left_behind_is_no_harm(tmp_path, stopped):
    config = ToyConfig(output_dir=str(tmp_path / "run"), steps=23, log_every=3, save_every=5)
    RunFolder(config, stage="toy").begin()
    for step in (5, 9):  # one that is saved again under this name, one that is not
        unfinished = tmp_path / "run" / "checkpoints" / f".step-{step:08d}.tmp"
        unfinished.mkdir(parents=True)
        (unfinished / "model.safetensors").write_bytes(b"cut off")
    toy_training.main(config)
    assert losses(tmp_path / "run") == losses(stopped["plain, whole"][2])
    assert saved_steps(tmp_path / "run") == [20, 23]
    assert list((tmp_path / "run" / "checkpoints").glob(".*")) == []


def test_dropout_does_not_depend_on_what_was_drawn_between_steps(tmp_path):
    quiet, busy = (
        ToyConfig(output_dir=str(tmp_path / name), steps=6, log_every=1, save_every=2) for name in ("quiet", "busy")
    )
    toy_training.main(quiet)
    toy_training.main(busy, before_saving=lambda: torch.rand(3))
    assert losses(tmp_path / "busy") == losses(tmp_path / "quiet")


def test_a_run_may_start_from_the_checkpoint_of_another(tmp_path):
    first = ToyConfig(output_dir=str(tmp_path / "first"), steps=8, log_every=1, save_every=4)
    toy_training.main(first)
    checkpoint = tmp_path / "first" / "checkpoints" / "step-00000004"
    second = ToyConfig(output_dir=str(tmp_path / "second"), steps=8, log_every=1, resume=str(checkpoint))
    toy_training.main(second)
    assert losses(tmp_path / "second") == losses(tmp_path / "first")[4:]


@pytest.mark.parametrize("wrong", ["nowhere", "checkpoints"])
def test_a_checkpoint_that_is_not_there_is_refused(tmp_path, wrong):
    (tmp_path / "checkpoints").mkdir()
    config = ToyConfig(output_dir=str(tmp_path / "run"), resume=str(tmp_path / wrong))
    with pytest.raises(
        UserError, match=f"--resume .*{wrong}: no checkpoint there; expected a folder checkpoints/step-"
    ):
        load_checkpoint(make_accelerator("no"), RunFolder(config, stage="toy"))


# Weights


def test_weights_and_how_to_build_the_model_come_back(tmp_path):
    tensors = {"a.weight": torch.randn(2, 3), "b": torch.arange(3).float()[:2]}
    save_weights(tmp_path / "run" / "weights", tensors, {"width": 3})
    for folder in (tmp_path / "run", tmp_path / "run" / "weights"):
        state, config = load_weights(folder, record({}))
        assert config == {"width": 3}
        assert {name: tensor.tolist() for name, tensor in state.items()} == {
            name: tensor.tolist() for name, tensor in tensors.items()
        }
