"""Whole pre-trainings: refused, shrunken, averaged, compiled, with pictures on the way."""

import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import tiny
from seitpp.mtm import pretrain
from seitpp.mtm.model import load_model
from seitpp.runtime.devices import compile_in_place, make_accelerator
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import read_json
from seitpp.runtime.run_folder import RunFolder, read_metrics
from seitpp.tokens.store import TokenStore
from seitpp.training import fit
from seitpp.training.config import TrainConfig
from seitpp.training.ema import averaged
from seitpp.training.loop import train
from seitpp.training.micro_batch import take_memory
from seitpp.training.optimizer import make_adamw
from seitpp.training.schedule import make_schedule
from tiny_pretraining import MODEL, entropies, make_config, make_world
from toy_training import losses, toy_batch


@pytest.fixture(scope="module")
def world(tmp_path_factory, tokenizer_folder):
    return make_world(tmp_path_factory.mktemp("world"), tokenizer_folder)


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
    pretrain.pretrain(make_config(world, tmp_path / "first"))
    checkpoint = tmp_path / "first" / "checkpoints" / "step-00000004"
    config = make_config(world, tmp_path / "second", store=str(other), model=model, resume=str(checkpoint))
    with pytest.raises(UserError, match=said) as refused:
        pretrain.pretrain(config)
    assert str(checkpoint) in tiny.one_line(str(refused.value))


def load_tokenizer_of(world):
    return read_json(world / "train" / "store.json")["tokenizer"]["fingerprint"]


def test_a_batch_larger_than_the_set_is_one_clear_line(world, tmp_path):
    with pytest.raises(UserError, match=r"has 48 samples, fewer than one effective batch of 64 .*: lower --batch_size"):
        pretrain.pretrain(make_config(world, tmp_path, batch_size=64))


def test_a_shrunken_micro_batch_gives_the_losses_of_the_whole_one(world, tmp_path, monkeypatch):
    pretrain.pretrain(make_config(world, tmp_path / "whole"))

    def short_of_memory(model, batches, step, config, accelerator, size):
        take_memory(model, batches, step, config, accelerator, size)
        torch.empty(1 if size <= 4 else 2**50, dtype=torch.uint8)

    monkeypatch.setattr(fit, "take_memory", short_of_memory)
    pretrain.pretrain(make_config(world, tmp_path / "shrunk", shrink_batch=True))
    assert read_json(tmp_path / "shrunk" / "micro_batch.json") == {"batch_size": 4, "accum_iter": 2}
    assert entropies(tmp_path / "shrunk") == pytest.approx(entropies(tmp_path / "whole"), abs=1e-5)


def test_a_trial_of_memory_changes_nothing_where_all_fits(world, tmp_path):
    pretrain.pretrain(make_config(world, tmp_path / "plain"))
    pretrain.pretrain(make_config(world, tmp_path / "tried", shrink_batch=True))
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
        step=lambda batch, _: ((prepared(batch[0]) - batch[1]).square().mean(), {}), title="x", ema=average,
    )  # fmt: skip
    weights = [*weights[1:], model.weight.detach()]
    expected = weights[0]
    for step, weight in enumerate(weights[1:], start=1):
        decay = min(0.6, 1 - (1 + step) ** (-2 / 3))
        expected = decay * expected + (1 - decay) * weight
    assert average.module.weight.detach().numpy() == pytest.approx(expected.numpy(), abs=1e-6)


def test_averaged_weights_are_measured_kept_in_checkpoints_and_left_at_the_end(world, tmp_path):
    def start(name, **fields):
        pretrain.pretrain(make_config(world, tmp_path / name, ema_decay=0.9, eval_store=str(world / "test"), **fields))
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


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # dynamo looks at a block's input
def test_a_compiled_model_has_the_same_losses_and_few_shapes(world, tmp_path, monkeypatch):
    pretrain.pretrain(make_config(world, tmp_path / "plain"))
    monkeypatch.setattr(fit, "compile_in_place", partial(compile_in_place, backend="eager"))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    pretrain.pretrain(make_config(world, tmp_path / "compiled", compile=True))
    assert entropies(tmp_path / "compiled") == pytest.approx(entropies(tmp_path / "plain"), abs=1e-6)
    assert 1 <= torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 6
    assert load_model(tmp_path / "compiled")[0].mask_token.shape == (1, 1, 24)


def test_pictures_are_made_every_so_many_epochs_and_perplexity_is_logged(world, tmp_path, tokenizer_folder):
    config = make_config(world, tmp_path, tokenizer=str(tokenizer_folder), preview_every=1, steps=14, save_every=50)
    pretrain.pretrain(config)
    first, second = sorted((tmp_path / "previews").iterdir())
    assert [path.name for path in (first, second)] == ["epoch-0001.png", "epoch-0002.png"]
    assert first.read_bytes() != second.read_bytes()  # the model of its time completes each
    for line in read_metrics(tmp_path):
        assert line["perplexity"] == pytest.approx(np.exp(line["cross_entropy"]))


@pytest.mark.parametrize(("ratio", "hidden"), [(0.7, 5 / 6), (1.0, 1.0)])
def test_pictures_hide_the_share_of_patches_that_cross_entropy_is_measured_at(
    world, tmp_path, tokenizer_folder, ratio, hidden
):
    pretrain.pretrain(
        make_config(world, tmp_path, tokenizer=str(tokenizer_folder), steps=1, batch_size=48, eval_mask_ratio=ratio)
    )
    with Image.open(tmp_path / "completions.png") as picture:
        pixels = np.asarray(picture)
    height, width = tiny.IMAGE_SIZE
    covered = pixels[height + 2 : 2 * height + 2, :width]  # the second row's first image
    assert (covered == 153).all(axis=2).mean() == hidden


def test_pictures_change_no_loss(world, tmp_path, tokenizer_folder):
    with_dropout = replace(MODEL, decoder=replace(MODEL.decoder, dropout=0.2))
    for name, every in (("with", 1), ("without", 0)):
        fields = {"tokenizer": str(tokenizer_folder), "preview_every": every, "model": with_dropout}
        pretrain.pretrain(make_config(world, tmp_path / name, **fields))
    assert entropies(tmp_path / "with") == entropies(tmp_path / "without")
