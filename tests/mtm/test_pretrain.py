"""Pre-training as a user starts it: on a tiny store, stopped and gone on with, on one process and on two."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import tiny
import tiny_pretraining
from seitpp.mtm import pretrain as stage
from seitpp.mtm.augmentation.augment import Augment, AugmentConfig
from seitpp.mtm.encoder import EncoderConfig
from seitpp.mtm.masking import MaskConfig, make_masks, sample_masks
from seitpp.mtm.model import DecoderConfig, MaskedTokenModel, ModelConfig, load_model
from seitpp.mtm.pictures import completion_picture
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import read_json
from seitpp.runtime.run_folder import read_metrics
from seitpp.tokenadapt.geometry import GeometryConfig
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.loader import TrainingBatches
from seitpp.tokens.remote import CacheConfig
from seitpp.tokens.store import TokenStore
from seitpp.training.random_streams import Draws
from tiny_pretraining import entropies, make_world

ROOT = tiny.ROOT
MODEL = replace(tiny_pretraining.MODEL, encoder=replace(tiny_pretraining.MODEL.encoder, patch_size=2))


@pytest.fixture(scope="module")
def world(tmp_path_factory, tokenizer_folder):
    """Stores `train` and `test` and a TokenAdapt with random weights."""
    folder = make_world(tmp_path_factory.mktemp("world"), tokenizer_folder)
    tiny.make_token_adapt(folder / "tokenadapt", fingerprint=load_tokenizer(tokenizer_folder).fingerprint)
    return folder


make_config = partial(tiny_pretraining.make_config, model=MODEL, steps=20, save_every=100)


def everything(world):
    """All parts of the augmentation."""
    return AugmentConfig(
        token_adapt=str(world / "tokenadapt"), color_adapt=0.3, noise=0.3, geometry=GeometryConfig(affine=1.0)
    )


def command(config, folder):
    """Flags that give a configuration, through a recipe with all of it."""
    plain = json.loads(json.dumps(asdict(config)))
    (folder / "recipe.yaml").write_text(yaml.safe_dump({k: v for k, v in plain.items() if v is not None}))
    return ["-m", "seitpp.mtm.pretrain", "--config", str(folder / "recipe.yaml")]


# One process


@pytest.fixture(scope="module")
def trained(world, tokenizer_folder):
    config = make_config(
        world, world / "run", steps=500, save_every=200, lr=1e-2, warmup_steps=10, clip_grad=1.0,
        eval_store=str(world / "test"), tokenizer=str(tokenizer_folder),
    )  # fmt: skip
    stage.pretrain(config)
    return config


def test_training_predicts_masked_tokens_better_than_their_frequencies(trained):
    summary = read_json(Path(trained.output_dir) / "summary.json")
    assert summary["unigram_baseline"] == pytest.approx(np.log(9), abs=0.1)
    assert summary["eval_cross_entropy"] < summary["unigram_baseline"] - 0.4  # log 3 would be all that can be known
    assert summary["eval_cross_entropy"] < summary["position_baseline"] - 0.4
    assert entropies(trained.output_dir)[-1] < entropies(trained.output_dir)[0] - 0.5


def test_it_is_measured_now_and_then_on_the_evaluation_store(trained):
    measured = [line["step"] for line in read_metrics(trained.output_dir) if "eval_cross_entropy" in line]
    assert measured == [200, 400, 500]


@torch.no_grad()
def test_the_measure_is_the_mean_over_masked_tokens_with_fixed_masks(trained):
    model, _ = load_model(trained.output_dir)
    store = TokenStore(trained.eval_store)
    entropies = []
    for row in range(11):
        noise = Draws(0, 0, torch.tensor([row])).uniform("evaluation mask", 6)
        masks = make_masks(noise, masked_count=4, dropped_count=3)  # 0.6 and 0.4 of 6 patches, rounded up
        entropies.append(model(store.ids([row]), masks)[1]["cross_entropy"].item())
    assert read_json(Path(trained.output_dir) / "summary.json")["eval_cross_entropy"] == pytest.approx(
        np.mean(entropies)
    )


def test_training_leaves_weights_that_know_their_tokenizer_and_a_picture(trained, tokenizer_folder):
    _, fingerprint = load_model(trained.output_dir)
    assert fingerprint == load_tokenizer(tokenizer_folder).fingerprint
    described = read_json(Path(trained.output_dir) / "weights" / "config.json")
    assert described["view"] == described["grid"] == list(tiny.GRID)
    with Image.open(Path(trained.output_dir) / "completions.png") as picture:
        assert picture.size == (11 * (24 + 2) - 2, 3 * (16 + 2) - 2)


def test_tensorboard_gets_completions_of_six_rows_at_each_evaluation(trained, tmp_path):
    model, _ = load_model(trained.output_dir)
    ids = TokenStore(trained.eval_store).ids([0, 1, 2, 3, 4, 5])
    completion_picture(model, load_tokenizer(trained.tokenizer), ids, tmp_path / "expected.png", ratio=0.6)
    first, second, last = tiny.shown_pictures(trained.output_dir, "completions")
    assert (first[0], second[0], last[0]) == (200, 400, 500)
    with Image.open(tmp_path / "expected.png") as expected:
        np.testing.assert_array_equal(last[1], np.asarray(expected.convert("RGB")))
    assert not np.array_equal(first[1], last[1])


def test_the_picture_is_of_what_the_trained_model_completes(trained, tokenizer_folder, tmp_path):
    model, _ = load_model(trained.output_dir)
    ids = TokenStore(trained.eval_store).ids(range(11))
    completion_picture(model, load_tokenizer(tokenizer_folder), ids, tmp_path / "expected.png", ratio=0.6)
    drawn = (Path(trained.output_dir) / "completions.png").read_bytes()
    assert drawn == (tmp_path / "expected.png").read_bytes()


def seeded_model(seed):
    """The model as it is before the first step."""
    torch.manual_seed(seed)
    return MaskedTokenModel(MODEL, view=tiny.GRID, codebook_size=tiny.CODES, embedding_dim=5)


def test_the_first_losses_are_those_of_each_steps_views_under_its_masks(world, tmp_path):
    mask = MaskConfig(mask_ratio_min=0.3, mask_ratio_max=0.9, mask_ratio_mean=0.7, mask_ratio_std=0.2)
    config = make_config(world, tmp_path, mask=mask, augment=everything(world), steps=2, lr=1e-12, seed=5)
    stage.pretrain(config)
    store, model = TokenStore(config.store), seeded_model(5).eval()
    augment = Augment(config.augment, store=store, view=tiny.GRID, device="cpu")
    batches, expected = TrainingBatches(store, 8, seed=5), []
    for step in range(2):
        batch = batches(step)
        draws = Draws(5, step, batch.positions)
        loss, _ = model(augment(batch.ids, draws), sample_masks(mask, draws, 6))
        expected.append(loss.item())
    assert entropies(tmp_path) == pytest.approx(expected, abs=1e-5)


def test_weight_decay_shrinks_matrices_alone_by_the_rate_times_the_decay(world, tmp_path):
    for name, decay in (("without", 0.0), ("with", 20.0)):
        stage.pretrain(make_config(world, tmp_path / name, steps=1, lr=0.01, weight_decay=decay))
    plain, decayed = (load_model(tmp_path / name)[0].state_dict() for name in ("without", "with"))
    spared = ("embeddings.weight", "pos_embed", "cls_token", "mask_token")
    for name, parameter in seeded_model(0).named_parameters():
        shrinks = parameter.ndim > 1 and not name.endswith(spared)
        expected = plain[name] - 0.01 * 20.0 * parameter.detach() * shrinks
        assert decayed[name].numpy() == pytest.approx(expected.numpy(), abs=1e-6), name


def test_a_finished_training_is_not_run_again(trained, capsys):
    stage.pretrain(trained)
    assert "finished before, nothing to do" in capsys.readouterr().out


def test_accumulated_micro_batches_are_one_large_batch(world, tmp_path):
    whole = make_config(world, tmp_path / "whole", augment=everything(world))
    divided = make_config(world, tmp_path / "divided", augment=everything(world), batch_size=4, accum_iter=2)
    for config in (whole, divided):
        stage.pretrain(config)
    assert entropies(tmp_path / "divided") == pytest.approx(entropies(tmp_path / "whole"), abs=1e-5)


def test_another_seed_is_another_training(world, tmp_path):
    for seed in (0, 1):
        stage.pretrain(make_config(world, tmp_path / str(seed), seed=seed, steps=2))
    assert entropies(tmp_path / "0")[0] != entropies(tmp_path / "1")[0]


def test_all_patches_may_be_hidden(world, tmp_path):
    mask = MaskConfig(mask_ratio_min=0.5, mask_ratio_max=1.0, mask_ratio_mean=9.0, mask_ratio_std=0.1)
    stage.pretrain(make_config(world, tmp_path, mask=mask, steps=2))
    assert np.isfinite(entropies(tmp_path)).all()


def test_a_smaller_view_is_trained_on(world, tmp_path):
    stage.pretrain(make_config(world, tmp_path, view=(2, 4), augment=AugmentConfig(), steps=2, ema_decay=0.9))
    for name in ("weights", "weights_ema"):
        model, _ = load_model(tmp_path / name)
        assert model.encoder.view == (2, 4)
        assert read_json(tmp_path / name / "config.json")["grid"] == list(tiny.GRID)


@pytest.mark.parametrize("view", [(3, 4), (6, 6), (4, 8)])
def test_a_view_that_does_not_fit_is_refused(world, tmp_path, view):
    with pytest.raises(UserError, match="view"):
        stage.pretrain(make_config(world, tmp_path, view=view, steps=1))


def test_an_evaluation_store_of_another_tokenizer_is_refused(world, tmp_path):
    other = tiny.make_store(tmp_path / "other", tiny.random_ids(4, tiny.CODES, tiny.GRID), fingerprint="b" * 64)
    with pytest.raises(UserError, match="other was made by tokenizer bbbbbbbbbbbb, but the store"):
        stage.pretrain(make_config(world, tmp_path / "run", eval_store=str(other)))


def test_a_run_is_not_gone_on_with_on_other_rows_but_its_checkpoint_may_be(world, tmp_path):
    def make(seed):
        store = tiny.make_store(tmp_path / "store", tiny.random_ids(9, tiny.CODES, tiny.GRID, seed=seed))
        return make_config(world, tmp_path / "run", steps=1), str(store)

    config, store = make(seed=1)
    stage.pretrain(replace(config, store=store))
    known = json.loads((tmp_path / "run/env.json").read_text())["inputs"]
    assert known["store"] == TokenStore(store).fingerprint
    config, store = make(seed=2)
    with pytest.raises(UserError, match=r"run holds another run \(store: .* is another since, .* there, .* now\)"):
        stage.pretrain(replace(config, store=store))
    (checkpoint,) = (tmp_path / "run/checkpoints").iterdir()
    elsewhere = replace(config, store=store, output_dir=str(tmp_path / "two"), steps=2, resume=str(checkpoint))
    stage.pretrain(elsewhere)
    assert [line["step"] for line in read_metrics(tmp_path / "two")] == [1]


def test_embeddings_may_start_as_the_codebook(world, tmp_path):
    encoder = EncoderConfig(width=24, depth=1, heads=3, patch_size=2, embedding_std=0.25, embedding_init="codebook")
    config = make_config(world, tmp_path, model=ModelConfig(encoder=encoder, decoder=MODEL.decoder), steps=1, lr=1e-12)
    stage.pretrain(config)
    codebook = TokenStore(world / "train").codebook.numpy()
    expected = (codebook - codebook.mean(0)) / codebook.std(0, ddof=1) * 0.25
    table = load_model(tmp_path)[0].encoder.stem.embeddings.weight.detach().numpy()
    assert table == pytest.approx(expected, abs=1e-4)


# Many processes


@pytest.mark.slow
def test_killed_and_started_again_is_as_if_nothing_had_happened(world, tmp_path):
    encoder = EncoderConfig(width=24, depth=1, heads=3, patch_size=2)  # with dropout, as the papers
    fields = {
        "model": ModelConfig(encoder=encoder, decoder=DecoderConfig(width=16, depth=1, heads=2)), "steps": 150,
        "save_every": 11, "log_every": 3, "augment": everything(world), "clip_grad": 1.0,
    }  # fmt: skip
    stage.pretrain(make_config(world, tmp_path / "whole", **fields))
    killed = make_config(world, tmp_path / "killed", **fields)
    words = [sys.executable, *command(killed, tmp_path)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        while len(entropies(tmp_path / "killed")) < 10 and process.poll() is None:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    assert 10 <= len(entropies(tmp_path / "killed")) < 50
    done = tiny.run(*command(killed, tmp_path))
    assert done.returncode == 0, done.stderr
    assert entropies(tmp_path / "killed") == entropies(tmp_path / "whole")


@pytest.mark.slow
def test_one_process_and_two_give_the_same_losses(world, tmp_path):
    one = make_config(world, tmp_path / "one", augment=everything(world))
    two = make_config(world, tmp_path / "two", augment=everything(world), batch_size=4)
    stage.pretrain(one)
    done = tiny.run(
        "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *command(two, tmp_path),
        ACCELERATE_USE_CPU="1", OMP_NUM_THREADS="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(entropies(tmp_path / "two")) == 20
    assert entropies(tmp_path / "two") == pytest.approx(entropies(tmp_path / "one"), abs=1e-5)


# From a store behind a URL


@pytest.fixture
def remote(world):
    """The training store in fsspec's memory file system."""
    system = fsspec.filesystem("memory")
    for path in (world / "train").iterdir():
        system.pipe_file(f"/training/{path.name}", path.read_bytes())
    yield "memory://training"
    system.rm("/training", recursive=True)


def test_pretraining_from_a_url_depends_neither_on_the_cache_nor_on_a_stop(world, remote, tmp_path):
    size = read_json(world / "train" / "store.json")["shards"][0]["bytes"]

    def run(name, gigabytes):
        cache = CacheConfig(folder=str(tmp_path / f"cache of {gigabytes}"), gigabytes=gigabytes, window=10)
        config = make_config(
            world, tmp_path / name, steps=14, batch_size=6, save_every=3, keep_checkpoints=9, cache=cache
        )
        stage.pretrain(replace(config, store=remote))
        return entropies(tmp_path / name), (tmp_path / name / "weights" / "model.safetensors").read_bytes()

    whole = run("whole", 1.0)
    assert run("little room", 7.1 * size / 1e9) == whole
    run("stopped", 1.0)
    for file in ("summary.json", "weights"):  # as if it had been killed after step 9
        path = tmp_path / "stopped" / file
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for step in (12, 14):
        shutil.rmtree(tmp_path / "stopped" / "checkpoints" / f"step-{step:08d}")
    assert run("stopped", 7.1 * size / 1e9) == whole
