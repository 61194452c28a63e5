"""A serious run: what is kept when disks fill up, processes die, losses explode and memory runs out."""

import json
import shutil
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tiny
import toy_training
from mtm import pretrain
from mtm.augment import AugmentConfig
from mtm.cost import take_memory, training_flops
from mtm.encoder import EncoderConfig
from mtm.masking import MaskConfig
from mtm.model import DecoderConfig, MaskedTokenModel, ModelConfig, load_model
from tokens.store import TokenStore
from tokens.tokenizer import load_tokenizer
from toy_training import ToyConfig, toy_batch
from training import watch
from training.average import averaged
from training.checkpoint import load_checkpoint, save_checkpoint
from training.command import explain, parse
from training.config import TrainConfig
from training.devices import compile_in_place, make_accelerator
from training.errors import UserError
from training.files import read_json
from training.loop import train
from training.micro_batch import shrink_to_memory
from training.optimizer import make_adamw
from training.recipes import recipes_folder
from training.run_folder import RunFolder, read_metrics
from training.schedule import make_schedule
from training.sharding import whole_state
from training.speed import Speed, count_flops, peak_flops

ROOT = Path(__file__).parent.parent
MODEL = ModelConfig(
    encoder=EncoderConfig(width=24, depth=2, heads=3, token_dropout=0.0, embedding_std=1.0),
    decoder=DecoderConfig(width=24, depth=1, heads=2, dropout=0.0),
)


def losses(folder):
    """What a run logged, without what depends on the clock."""
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in read_metrics(folder)]


def saved_steps(folder):
    return [int(path.name.removeprefix("step-")) for path in sorted(Path(folder, "checkpoints").glob("step-*"))]


def toy(folder, **fields):
    return ToyConfig(output_dir=str(folder), **{"steps": 12, "log_every": 1, "save_every": 4, **fields})


class Stop(Exception):
    """Ends a training from within."""


def stopping_at(wanted):
    def before_batch(step, micro):
        if step == wanted:
            raise Stop

    return before_batch


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
            title="scored", evaluate=lambda: {"score": next(coming)}, eval_every=2, best_by="score",
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
    with pytest.raises(UserError, match=r"checkpoint .*step-00000008 can't be read \(.*\): delete that folder") as said:
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


# Two processes


@pytest.fixture(scope="module")
def launches(tmp_path_factory):
    """Toy runs on two processes: name to (what came of each launch, folder)."""
    folder = tmp_path_factory.mktemp("two")
    plan = {
        "whole": [{}],
        "stopped": [{"on": 1, "step": 6, "does": "SIGTERM"}, {}],
        "killed": [{"on": 1, "step": 7, "does": "SIGKILL"}, {"on": 0, "step": 9, "does": "SIGKILL"}, {}],
        "failed": [{"on": 1, "step": 7, "does": "raise"}, {}],
        "main failed": [{"on": 0, "step": 7, "does": "raise"}],
        "main failed early": [{"on": 0, "step": 7, "does": "raise", "lag": 3.0}],
        "exploded": [{"on": 1, "step": 7, "does": "nan"}, {"processes": 1}],
    }
    words, owners = [], []
    for name, tries in plan.items():
        for each in tries:
            flags = ["--steps", "12", "--log_every", "4", "--save_every", "5"]
            words.append({"argv": ["--output_dir", str(folder / name), *flags], **each})
            owners.append(name)
    done = tiny.run(Path(__file__).parent / "toy_processes.py", json.dumps(words))
    assert done.returncode == 0, done.stderr
    results = {name: ([], folder / name) for name in plan}
    for name, result in zip(owners, json.loads(done.stdout), strict=True):
        results[name][0].append(result)
    return results


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_at_the_same_step_and_the_run_goes_on_bit_for_bit(launches):
    (first, second), folder = launches["stopped"]
    assert first["codes"] == [143, 143]
    line = "stopped before step 7 of 12; saved. Give the same command again to go on"
    assert tiny.one_line(first["stderr"]) == line
    assert second == {"codes": [0, 0], "stderr": ""}
    assert losses(folder) == losses(launches["whole"][1])


@pytest.mark.slow
def test_a_killed_process_ends_the_others_in_one_line_and_the_run_goes_on_bit_for_bit(launches):
    tries, folder = launches["killed"]
    assert [sorted(each["codes"]) for each in tries] == [[-9, 1], [-9, 1], [0, 0]]
    line = "error: another process ended before its work was done: give the same command again to go on"
    assert tiny.one_line(tries[0]["stderr"]) == line
    assert tiny.one_line(tries[1]["stderr"]) == line.replace("another", "process 1: another", 1)
    assert losses(folder) == losses(launches["whole"][1])


@pytest.mark.slow
def test_an_error_on_any_process_is_said_once_and_ends_all(launches):
    (failed, after), folder = launches["failed"]
    assert failed["codes"] == [1, 1]
    assert tiny.one_line(failed["stderr"]) == "error: process 1: its shard is gone"
    assert after["codes"] == [0, 0]
    assert losses(folder) == losses(launches["whole"][1])
    for name in ("main failed", "main failed early"):
        ((failed,), _) = launches[name]
        assert failed["codes"] == [1, 1]
        assert tiny.one_line(failed["stderr"]) == "error: its shard is gone"


@pytest.mark.slow
def test_a_loss_that_is_not_finite_on_one_process_stops_all(launches):
    (exploded, _), folder = launches["exploded"]
    assert exploded["codes"] == [1, 1]
    assert "the loss is nan at step 7; nothing was updated. Newest checkpoint" in tiny.one_line(exploded["stderr"])
    assert saved_steps(folder) == [5]


@pytest.mark.slow
def test_going_on_with_another_effective_batch_is_refused(launches):
    (_, alone), _ = launches["exploded"]
    assert alone["codes"] == [1]
    assert "(effective_batch: 8 there, 4 here): start as many processes as before" in tiny.one_line(alone["stderr"])


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


# Pre-training


@pytest.fixture(scope="module")
def world(tmp_path_factory, tokenizer_folder):
    folder = tmp_path_factory.mktemp("world")
    fingerprint = load_tokenizer(tokenizer_folder).fingerprint
    for name, rows in (("train", 48), ("test", 11)):
        ids = tiny.striped_ids(np.arange(rows) % 3, tiny.GRID, seed=rows)
        tiny.make_store(folder / name, ids, fingerprint=fingerprint)
    return folder


def make_config(world, output, **fields):
    fields = {
        "store": str(world / "train"), "model": MODEL, "batch_size": 8, "steps": 8, "lr": 3e-3, "log_every": 1,
        "save_every": 4, "mixed_precision": "no", "augment": AugmentConfig(crop=False), **fields,
    }  # fmt: skip
    return pretrain.PretrainConfig(output_dir=str(output), **fields)


def entropies(folder):
    return [line["loss"] for line in read_metrics(folder) if "loss" in line]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("codes", r"codebook_size: 37 there, 29 here"),
        ("grid", r"grid: \[4, 6\] there, \[4, 8\] here"),
        ("tokenizer", r"tokenizer: \w+ there, b+ here"),
        ("width", r"is of another model \(.* is .*24.* there, .*36.* here\): give it the K, the grid and the model"),
        ("depth", r"is of another model \(encoder.blocks.2.* is only in one\)"),
    ],
)
def test_a_checkpoint_of_another_codebook_grid_tokenizer_or_model_is_one_clear_line(world, tmp_path, change, said):
    stored = {"codes": tiny.CODES, "fingerprint": load_tokenizer_of(world)}
    grid, model = tiny.GRID, MODEL
    if change == "codes":
        stored["codes"] = 29
    elif change == "grid":
        grid = (4, 8)
    elif change == "tokenizer":
        stored["fingerprint"] = "b" * 64
    elif change == "width":
        model = replace(MODEL, encoder=replace(MODEL.encoder, width=36))
    else:
        model = replace(MODEL, encoder=replace(MODEL.encoder, depth=3))
    other = tiny.make_store(tmp_path / "store", tiny.random_ids(20, stored["codes"], grid), **stored)
    pretrain.main(make_config(world, tmp_path / "first"))
    checkpoint = tmp_path / "first" / "checkpoints" / "step-00000004"
    config = make_config(world, tmp_path / "second", store=str(other), model=model, resume=str(checkpoint))
    with pytest.raises(UserError, match=said) as refused:
        pretrain.main(config)
    assert str(checkpoint) in tiny.one_line(str(refused.value))


def load_tokenizer_of(world):
    return read_json(world / "train" / "store.json")["tokenizer"]["fingerprint"]


def test_a_batch_larger_than_the_set_is_one_clear_line(world, tmp_path):
    with pytest.raises(UserError, match=r"has 48 samples, fewer than one effective batch of 64 .*: lower --batch_size"):
        pretrain.main(make_config(world, tmp_path, batch_size=64))


def test_a_shrunken_micro_batch_gives_the_losses_of_the_whole_one(world, tmp_path, monkeypatch):
    pretrain.main(make_config(world, tmp_path / "whole"))

    def short_of_memory(model, augment, store, config, accelerator, size):
        take_memory(model, augment, store, config, accelerator, size)
        torch.empty(1 if size <= 4 else 2**50, dtype=torch.uint8)

    monkeypatch.setattr(pretrain, "take_memory", short_of_memory)
    pretrain.main(make_config(world, tmp_path / "shrunk", shrink_batch=True))
    assert read_json(tmp_path / "shrunk" / "micro_batch.json") == {"batch_size": 4, "accum_iter": 2}
    assert entropies(tmp_path / "shrunk") == pytest.approx(entropies(tmp_path / "whole"), abs=1e-5)


def test_a_trial_of_memory_changes_nothing_where_all_fits(world, tmp_path):
    pretrain.main(make_config(world, tmp_path / "plain"))
    pretrain.main(make_config(world, tmp_path / "tried", shrink_batch=True))
    assert entropies(tmp_path / "tried") == entropies(tmp_path / "plain")


def test_the_moving_average_is_that_of_a_slow_loop(tmp_path):
    config = TrainConfig(output_dir=str(tmp_path), batch_size=4, steps=5, lr=0.1)
    accelerator = make_accelerator("no")
    model = torch.nn.Linear(3, 2)
    average = averaged(model, 0.6, accelerator)
    optimizer = make_adamw([{"params": list(model.parameters())}], config)
    prepared, optimizer = accelerator.prepare(model, optimizer)
    weights = []

    def batch_at(step, micro):
        weights.append(model.weight.detach().clone())
        return toy_batch(config, step, micro)

    train(
        accelerator, RunFolder(config, stage="averaged"), model=prepared, optimizer=optimizer,
        schedule=make_schedule(config, samples=60, world_size=1), batch_at=batch_at,
        step=lambda batch, _: ((prepared(batch[0]) - batch[1]).square().mean(), {}), title="x", average=average,
    )  # fmt: skip
    weights = [*weights[1:], model.weight.detach()]
    expected = weights[0]
    for step, weight in enumerate(weights[1:], start=1):
        decay = min(0.6, 1 - (1 + step) ** (-2 / 3))
        expected = decay * expected + (1 - decay) * weight
    assert average.module.weight.detach().numpy() == pytest.approx(expected.numpy(), abs=1e-6)


def test_averaged_weights_are_measured_kept_in_checkpoints_and_left_at_the_end(world, tmp_path):
    def start(name, **fields):
        pretrain.main(make_config(world, tmp_path / name, ema_decay=0.9, eval_store=str(world / "test"), **fields))
        return load_file(tmp_path / name / "weights_ema" / "model.safetensors")

    whole = start("run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000008")  # as if it had been killed after step 7
    for name in ("weights", "weights_ema"):
        shutil.rmtree(tmp_path / "run" / name)
    logged = losses(tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    resumed = start("run")
    assert losses(tmp_path / "run") == logged
    assert {name: tensor.tolist() for name, tensor in resumed.items()} == {n: t.tolist() for n, t in whole.items()}
    newest, _ = load_model(tmp_path / "run")
    mean, _ = load_model(tmp_path / "run" / "weights_ema")
    assert not torch.equal(mean.mask_token, newest.mask_token)
    summary, config = read_json(tmp_path / "run" / "summary.json"), make_config(world, tmp_path)
    for model, suffix in ((newest, ""), (mean, "_ema")):
        measured = pretrain.evaluate_model(model, TokenStore(world / "test"), config, make_accelerator("no"))
        assert {name: summary[name + suffix] for name in measured} == pytest.approx(measured)
    assert summary["eval_cross_entropy_ema"] != pytest.approx(summary["eval_cross_entropy"], abs=1e-4)


def test_a_compiled_model_has_the_same_losses_and_few_shapes(world, tmp_path, monkeypatch):
    pretrain.main(make_config(world, tmp_path / "plain"))
    monkeypatch.setattr(pretrain, "compile_in_place", partial(compile_in_place, backend="eager"))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    pretrain.main(make_config(world, tmp_path / "compiled", compile=True))
    assert entropies(tmp_path / "compiled") == pytest.approx(entropies(tmp_path / "plain"), abs=1e-6)
    assert 1 <= torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 6
    assert load_model(tmp_path / "compiled")[0].mask_token.shape == (1, 1, 24)


def test_pictures_are_made_every_so_many_epochs_and_perplexity_is_logged(world, tmp_path, tokenizer_folder):
    config = make_config(world, tmp_path, tokenizer=str(tokenizer_folder), preview_every=1, steps=14, save_every=50)
    pretrain.main(config)
    first, second = sorted((tmp_path / "previews").iterdir())
    assert [path.name for path in (first, second)] == ["epoch-0001.png", "epoch-0002.png"]
    assert first.read_bytes() != second.read_bytes()  # the model of its time completes each
    for line in read_metrics(tmp_path):
        assert line["perplexity"] == pytest.approx(np.exp(line["cross_entropy"]))


def test_pictures_change_no_loss(world, tmp_path, tokenizer_folder):
    with_dropout = replace(MODEL, decoder=replace(MODEL.decoder, dropout=0.2))
    for name, every in (("with", 1), ("without", 0)):
        fields = {"tokenizer": str(tokenizer_folder), "preview_every": every, "model": with_dropout}
        pretrain.main(make_config(world, tmp_path / name, **fields))
    assert entropies(tmp_path / "with") == entropies(tmp_path / "without")


# Recipes


RECIPES = sorted(path.stem for path in recipes_folder("pretrain").glob("*.yaml"))


def test_there_are_recipes_for_all_sizes():
    assert {"debug", "demo", "vit_tiny", "vit_small", "vit_base", "vit_large"} <= set(RECIPES)


@pytest.fixture(scope="module")
def large_grid(tmp_path_factory):
    """A store of the papers' grid, 32 x 32."""
    return tiny.make_store(tmp_path_factory.mktemp("large") / "store", tiny.random_ids(9, tiny.CODES, (32, 32)))


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_takes_one_step_at_a_shrunken_size(recipe, large_grid, tmp_path):
    shrunken = {
        "model.encoder.width": 12, "model.encoder.depth": 1, "model.encoder.heads": 3, "model.decoder.width": 8,
        "model.decoder.depth": 1, "model.decoder.heads": 2, "batch_size": 2, "accum_iter": 2, "steps": 1,
        "warmup_steps": 0,
    }  # fmt: skip
    flags = [word for name, value in shrunken.items() for word in (f"--{name}", str(value))]
    words = ["--config", recipe, "--store", str(large_grid), "--output_dir", str(tmp_path), *flags]
    pretrain.main(parse(pretrain.PretrainConfig, words, recipes="pretrain"))
    assert np.isfinite(entropies(tmp_path)).all()
    assert len(entropies(tmp_path)) == 1


@pytest.mark.parametrize(
    ("recipe", "millions"), [("vit_tiny", 5.4), ("vit_small", 21.3), ("vit_base", 85.1), ("vit_large", 302.4)]
)
def test_the_papers_recipes_are_400_epochs_of_4096_images_and_of_the_papers_sizes(recipe, millions):
    words = ["--config", recipe, "--store", "s", "--output_dir", "o"]
    config = parse(pretrain.PretrainConfig, words, recipes="pretrain")
    assert config.batch_size * config.accum_iter * 8 == 4096
    assert (config.epochs, config.warmup_epochs, config.blr, config.lr) == (400, 40, 1.5e-4, None)
    assert (config.betas, config.weight_decay, config.clip_grad, config.view) == ((0.9, 0.95), 0.05, 3.0, (28, 28))
    encoder, d = config.model.encoder, config.model.encoder.width
    assert d / encoder.heads == 64
    assert encoder.depth * (12 * d * d + 13 * d) / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.parametrize("name", ["ddp_bf16", "fsdp2"])
def test_the_launchers_configurations_load(name):
    config = load_config_from_file(str(recipes_folder("accelerate") / f"{name}.yaml"))
    assert config.distributed_type == {"ddp_bf16": "MULTI_GPU", "fsdp2": "FSDP"}[name]
    assert (config.mixed_precision, config.num_processes) == ("bf16", 8)
    if name == "fsdp2":
        assert config.fsdp_config["fsdp_version"] == 2


ON_CPUS = """
import sys
from accelerate import PartialState
from accelerate.utils import DistributedType
from mtm import pretrain
PartialState(cpu=True)
PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU  # or Accelerate refuses FSDP on CPUs
pretrain.cli()
"""


def run_sharded(config, tmp_path):
    """Run a configuration on two processes of CPUs under configs/accelerate/fsdp2.yaml."""
    (tmp_path / "on_cpus.py").write_text(ON_CPUS)
    plain = json.loads(json.dumps(asdict(config)))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({k: v for k, v in plain.items() if v is not None}))
    fsdp = load_config_from_file(str(recipes_folder("accelerate") / "fsdp2.yaml")).fsdp_config
    environment = {name.upper(): str(value) for name, value in fsdp.items()}
    done = tiny.run(
        "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", tmp_path / "on_cpus.py",
        "--config", tmp_path / "recipe.yaml",
        **environment, FSDP_TRANSFORMER_CLS_TO_WRAP=fsdp["fsdp_transformer_layer_cls_to_wrap"],
        ACCELERATE_USE_FSDP="true", ACCELERATE_USE_CPU="1", OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_fsdp2_shards_the_weights_and_gives_the_losses_and_weights_of_one_process(world, tmp_path):
    fields = {"eval_store": str(world / "test"), "clip_grad": 1.0}
    pretrain.main(make_config(world, tmp_path / "one", **fields))
    run_sharded(make_config(world, tmp_path / "sharded", **{**fields, "batch_size": 4}), tmp_path)
    assert (tmp_path / "sharded" / "checkpoints" / "step-00000008" / "pytorch_model_fsdp_0").is_dir()
    assert entropies(tmp_path / "sharded") == pytest.approx(entropies(tmp_path / "one"), abs=1e-5)
    one, sharded = (read_json(tmp_path / name / "summary.json") for name in ("one", "sharded"))
    assert sharded["eval_cross_entropy"] == pytest.approx(one["eval_cross_entropy"], abs=1e-5)
    weights = [load_file(tmp_path / name / "weights" / "model.safetensors") for name in ("one", "sharded")]
    for name, tensor in weights[0].items():
        assert weights[1][name].numpy() == pytest.approx(tensor.numpy(), abs=2e-3), name


@pytest.mark.slow
def test_fsdp2_in_bf16_keeps_the_loss_in_float32(world, tmp_path):
    pretrain.main(make_config(world, tmp_path / "one"))
    run_sharded(make_config(world, tmp_path / "sharded", batch_size=4, mixed_precision="bf16"), tmp_path)
    found = entropies(tmp_path / "sharded")
    assert found == pytest.approx(entropies(tmp_path / "one"), rel=0.01)
    assert all(4 < value < 8 for value in found)  # where bf16 has steps of 1/32, a mean of two processes' of 1/64
    assert any(64 * value % 1 for value in found)


def test_sharded_weights_come_back_in_one_piece(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1
    )  # fmt: skip
    try:
        from torch.distributed.fsdp import fully_shard

        model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 2))
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        fully_shard(model, mesh=torch.distributed.init_device_mesh("cpu", (1,)))
        after = whole_state(model)
    finally:
        torch.distributed.destroy_process_group()
    assert all(type(tensor) in (torch.Tensor, torch.nn.Parameter) for tensor in after.values())
    assert {name: t.tolist() for name, t in after.items()} == {name: t.tolist() for name, t in before.items()}


# What watches


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
    monkeypatch.setattr("training.trackers.find_spec", lambda package: None)
    line = rf"--trackers: {name} is not installed: pip install 'seitpp\[{name}\]', or leave it out"
    with pytest.raises(UserError, match=line):
        toy_training.main(toy(tmp_path / "run", trackers=(name,)))


def test_the_share_of_the_peak_is_known_where_the_device_is():
    assert peak_flops("NVIDIA H200", "bf16") == peak_flops("NVIDIA H100 80GB HBM3", "bf16") == 989e12
    assert peak_flops("NVIDIA H100 PCIe", "bf16") == 756e12
    assert peak_flops("NVIDIA A100-SXM4-80GB", "fp16") == 312e12
    assert peak_flops("NVIDIA A100-SXM4-80GB", "no") is peak_flops("cpu", "bf16") is None
    assert peak_flops("NVIDIA RTX A1000", "bf16") is None  # no A100
    speed = Speed(make_accelerator("no"), 2e12)
    assert speed.of(300, 2.0) == ({"images_per_second": 150.0}, "150 images/s")
    speed.peak = 600e12
    assert speed.of(300, 2.0) == ({"images_per_second": 150.0, "mfu": 0.5}, "150 images/s  MFU 50%")


def test_operations_are_counted_by_hand():
    weight = torch.empty(5, 7, device="meta", requires_grad=True)
    assert count_flops(lambda: (torch.empty(3, 5, device="meta") @ weight).sum().backward()) == 2 * 2 * 3 * 5 * 7


def test_a_step_of_vit_base_costs_what_the_formula_says():
    c, k, width, narrow = 32, 391, 768, 512
    model = MaskedTokenModel(ModelConfig(), view=(28, 28), codebook_size=k, embedding_dim=c)
    masks = MaskConfig()
    patches, visible = 196, 196 - 79
    masked = next(count for count in range(79, 197) if count / 196 >= 0.567)  # the median ratio, by the normal's table
    encoder = 12 * (12 * width**2 * (visible + 1) + 2 * width * (visible + 1) ** 2) + patches * 4 * c * width
    decoder = 4 * (12 * narrow**2 * (patches + 1) + 2 * narrow * (patches + 1) ** 2) + (visible + 1) * width * narrow
    head = masked * narrow * 4 * c + masked * 4 * c * k
    assert training_flops(model, masks) == pytest.approx(3 * 2 * (encoder + decoder + head), rel=0.02)
