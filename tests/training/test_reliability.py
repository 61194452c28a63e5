"""A serious run: what is kept when disks fill up, losses explode and memory runs out."""

import shutil
from pathlib import Path

import pytest
import torch

import tiny
import toy_training
from seitpp.runtime.command import explain
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import read_json
from seitpp.runtime.run_folder import RunFolder
from seitpp.training import step_guard as watch
from seitpp.training.best_weights import Better
from seitpp.training.checkpoint import load_checkpoint, save_checkpoint
from seitpp.training.config import TrainConfig
from seitpp.training.loop import train
from seitpp.training.micro_batch import shrink_to_memory
from seitpp.training.optimizer import make_adamw
from seitpp.training.schedule import make_schedule
from toy_training import Stop, losses, saved_steps, stopping_at, toy, toy_batch

# Checkpoints


@pytest.fixture
def scored(tmp_path):
    """Train a linear model whose evaluations give the numbers asked for; returns its run."""

    def start(scores, **fields):
        config = TrainConfig(
            output_dir=str(tmp_path / "run"), batch_size=4, steps=2 * len(scores), lr=0.1, save_every=2, **fields
        )
        accelerator = make_accelerator("no")
        run = RunFolder(config, stage="scored")
        model = torch.nn.Linear(3, 2)
        optimizer = make_adamw([{"params": list(model.parameters())}], config)
        model, optimizer = accelerator.prepare(model, optimizer)
        coming = iter(scores)
        train(
            accelerator, run, model=model, optimizer=optimizer,
            schedule=make_schedule(config, samples=60, world_size=1),
            batch_at=lambda step, micro: toy_batch(config, step, micro),
            step=lambda batch, _: ((model(batch[0]) - batch[1]).square().mean(), {}),
            title="scored", evaluate=lambda step: {"score": next(coming)}, eval_every=2, best_by=Better("score"),
        )  # fmt: skip
        return run

    return start


@pytest.mark.parametrize(
    ("scores", "keep", "kept"),
    [
        ([3, 1, 4, 5, 9], 1, [4, 10]),
        ([3, 1, 4, 5, 9], 2, [4, 8, 10]),
        ([5, 4, 3, 2], 1, [8]),
        ([2, 2, 2], 1, [2, 6]),
    ],
)
def test_the_best_checkpoint_outlives_the_newest(scored, scores, keep, kept):
    run = scored(scores, keep_checkpoints=keep)
    assert saved_steps(run.path) == kept
    best = read_json(run.path / "best.json")
    assert best == {"step": kept[0], "score": min(scores), "checkpoint": f"checkpoints/step-{kept[0]:08d}"}


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full, a device without room, here")
def test_a_full_disk_loses_no_older_checkpoint_and_gets_its_room_back(tmp_path):
    def fill():
        for unfinished in (tmp_path / "run" / "checkpoints").glob(".step-00000008.tmp"):
            (unfinished / "optimizer.bin").symlink_to("/dev/full")

    with pytest.raises(Exception) as full:  # noqa: PT011 (torch's own kind of error)
        toy_training.main(toy(tmp_path / "run"), before_saving=fill)
    assert explain(full.value).startswith("no space left on the disk")
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000004"]
    toy_training.main(toy(tmp_path / "run"))
    toy_training.main(toy(tmp_path / "whole"))
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.bin", "meter.safetensors", "checkpoint.json"])
@pytest.mark.parametrize("damage", ["cut off", "gone"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_takes_over(tmp_path, file, damage):
    with pytest.raises(Stop):
        toy_training.main(toy(tmp_path / "run"), before_batch=stopping_at(9))
    newest = tmp_path / "run" / "checkpoints" / "step-00000008"
    if damage == "gone":
        (newest / file).unlink()
    else:
        (newest / file).write_bytes((newest / file).read_bytes()[:20])
    with pytest.raises(UserError, match=r"step-00000008.* (can't be read|is missing).*: move that folder") as said:
        toy_training.main(toy(tmp_path / "run"))
    tiny.one_line(str(said.value))
    shutil.rmtree(newest)
    toy_training.main(toy(tmp_path / "run"))
    toy_training.main(toy(tmp_path / "whole"))
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def test_a_checkpoint_of_another_stage_is_refused(tmp_path):
    toy_training.main(toy(tmp_path / "toy"))
    config = TrainConfig(output_dir=str(tmp_path / "run"), resume=str(tmp_path / "toy/checkpoints/step-00000008"))
    with pytest.raises(UserError, match=r"is of another training \(stage: toy there, other here\): name another"):
        load_checkpoint(make_accelerator("no"), RunFolder(config, stage="other"))


def test_a_checkpoint_holds_all_of_it_or_does_not_have_its_name(tmp_path):
    class Broken:
        def state_dict(self):
            raise Stop

    run = RunFolder(toy(tmp_path / "run"), stage="toy")
    with pytest.raises(Stop):
        save_checkpoint(make_accelerator("no"), run, next_step=4, keep=1, parts={"broken": Broken()})
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


# Losses that are not finite


@pytest.mark.parametrize("late", [False, True])
def test_no_update_follows_a_loss_that_is_not_finite(tmp_path, late):
    model = torch.nn.Linear(2, 1)
    optimizer = make_adamw([{"params": list(model.parameters())}], TrainConfig(output_dir="x"))
    optimizer.param_groups[0]["lr"] = 0.1
    accelerator = make_accelerator("no")
    watched = watch.Watch(accelerator, RunFolder(toy(tmp_path), stage="toy"), optimizer, [], late=late)
    weights = []

    def descend(step, factor):
        optimizer.zero_grad()
        loss = model(torch.ones(3, 2)).square().mean() * factor
        loss.backward()
        watched.add(loss)
        watched.before_update(step)
        optimizer.step()
        weights.append(model.weight.detach().clone())

    descend(0, 1.0)
    descend(1, 1.0)
    assert not torch.equal(weights[0], weights[1])
    message = r"the loss is nan at step 2; nothing was updated. Newest checkpoint: none"
    if late:
        descend(2, float("nan"))
        with pytest.raises(UserError, match=message):
            descend(3, 1.0)
    else:
        with pytest.raises(UserError, match=message):
            descend(2, float("nan"))
    assert torch.equal(model.weight, weights[1])


def test_news_read_late_change_no_loss_and_let_nothing_bad_be_saved(tmp_path, monkeypatch):
    toy_training.main(toy(tmp_path / "at once"))
    monkeypatch.setattr(watch, "_skips_on_a_device", lambda optimizer, accelerator: True)
    toy_training.main(toy(tmp_path / "late"))
    assert losses(tmp_path / "late") == losses(tmp_path / "at once")
    plain = toy_batch
    monkeypatch.setattr(
        toy_training, "toy_batch",
        lambda config, step, micro: (plain(config, step, micro)[0], float("inf") * plain(config, step, micro)[1])
        if step == 7 else plain(config, step, micro),
    )  # fmt: skip
    with pytest.raises(UserError, match=r"the loss is inf at step 7; .*step-00000004"):
        toy_training.main(toy(tmp_path / "bad", log_every=3))
    assert saved_steps(tmp_path / "bad") == [4]
    assert [line["step"] for line in losses(tmp_path / "bad")] == [2, 5]


# Memory


def test_the_micro_batch_halves_until_it_fits_and_the_effective_batch_stays(tmp_path):
    config = toy(tmp_path, batch_size=48, accum_iter=3)
    run, tried = RunFolder(config, stage="toy"), []

    def attempt(size):
        tried.append(size)
        torch.empty(1 if size <= 12 else 2**50, dtype=torch.uint8)  # a petabyte: the allocator itself refuses

    shrunk = shrink_to_memory(config, make_accelerator("no"), run, attempt)
    assert (tried, shrunk.batch_size, shrunk.accum_iter) == ([48, 24, 12], 12, 12)
    tried.clear()
    again = shrink_to_memory(config, make_accelerator("no"), run, attempt)
    assert (tried, again) == ([12], shrunk)


def test_a_step_that_never_fits_is_one_line(tmp_path):
    config = toy(tmp_path, batch_size=12)
    with pytest.raises(UserError, match=r"a step does not fit into memory, .* --batch_size 12 .* smaller model"):
        shrink_to_memory(
            config, make_accelerator("no"), RunFolder(config, stage="toy"), lambda size: torch.empty(2**50)
        )


def test_other_errors_of_the_first_step_are_not_taken_for_a_lack_of_memory(tmp_path):
    def attempt(size):
        raise RuntimeError("shapes do not fit")

    config = toy(tmp_path)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        shrink_to_memory(config, make_accelerator("no"), RunFolder(config, stage="toy"), attempt)
