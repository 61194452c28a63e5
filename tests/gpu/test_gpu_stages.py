"""A few steps on the GPU of every other stage that trains, encodes or measures; beside a CPU's where ids must agree."""

from dataclasses import replace

import pandas as pd
import pytest

import small_runs
import tiny
from seitpp.finetune import probe
from seitpp.finetune import train as finetune
from seitpp.finetune.probing.features import FrozenEncoder, Layout
from seitpp.finetune.probing.heads import HeadsConfig
from seitpp.mtm.augmentation.mixing import MixConfig
from seitpp.mtm.model import load_model
from seitpp.runtime.files import read_json
from seitpp.runtime.run_folder import read_metrics
from seitpp.tokenadapt import train as tokenadapt
from seitpp.tokenadapt.model import TokenAdaptConfig, load_token_adapt
from seitpp.tokenizers import tokenize
from seitpp.tokenizers import train as train_tokenizer
from seitpp.tokenizers.networks.vq import VQConfig
from seitpp.tokenizers.sources.images import open_image_folder, read_all
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.store import TokenStore
from seitpp.tokens.views import centre

QUICK_HEADS = HeadsConfig(blr=(1e-2,), weight_decay=(0.0,), epochs=2)
QUICK = {"log_every": 1, "save_every": 100, "trackers": ()}


@pytest.fixture(scope="module")
def pretrained(world):
    """A run of pre-training, six steps long, as the defaults choose precision."""
    small_runs.run(small_runs.make_config(world, world / "pretrained", steps=6))
    return world / "pretrained"


def test_finetuning_runs_with_mixed_labels_and_leaves_results(world, pretrained, tmp_path):
    mixed = small_runs.everything(world, mix=MixConfig(cutmix=1.0, token_adapt_mixup=0.8))
    finetune.finetune(
        finetune.FinetuneConfig(
            store=str(world / "train"), eval_store=str(world / "test"), weights=str(pretrained),
            output_dir=str(tmp_path), augment=mixed, batch_size=16, steps=6, layer_decay=0.75, drop_path=0.1,
            blr_candidates=(1e-3, 1e-2), **QUICK,
        )
    )  # fmt: skip
    results = pd.read_csv(tmp_path / "results.csv").set_index("metric").value
    assert 0 <= results.accuracy <= 1
    assert 0 < results.cross_entropy < 10


def test_a_probe_reads_features_from_the_device(world, pretrained, tmp_path):
    probe.probe(
        probe.ProbeConfig(
            store=str(world / "train"), eval_store=str(world / "test"), weights=str(pretrained),
            output_dir=str(tmp_path), features=("mtm", "random"), inverse_regularisation=(0.01,),
            protocols=("linear", "knn", "linear_grid", "attentive"), logistic_solver="device", heads=QUICK_HEADS,
        )
    )  # fmt: skip
    assert pd.read_csv(tmp_path / "results.csv").value.between(0, 1).all()


@pytest.mark.usefixtures("proper_float32")
def test_features_of_the_device_are_those_of_the_cpu(device, world, pretrained):
    store = TokenStore(world / "test")
    ids = centre(store.ids(range(len(store))), load_model(pretrained)[0].encoder.view)
    here, there = (
        FrozenEncoder(load_model(pretrained)[0].encoder, store, device=where)
        .pooled(ids.to(where), Layout(2, ("cls", "mean"))).cpu()
        for where in ("cpu", device)
    )  # fmt: skip
    assert there == pytest.approx(here, abs=1e-3)


def test_tokenising_gives_the_ids_of_the_cpu_and_the_same_bytes_each_time(images, tokenizer_folder, tmp_path):
    for name in ("once", "again"):
        tiny.forget_accelerator()
        tokenize.main(
            tokenize.TokenizeConfig(
                images=str(images), tokenizer=str(tokenizer_folder), output_dir=str(tmp_path / name), batch_size=7,
                rows_per_shard=16,
            )
        )  # fmt: skip
    once, again = (
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("shard-*.arrow")} for name in ("once", "again")
    )
    assert len(once) == 2
    assert once == again
    store, tokenizer = TokenStore(tmp_path / "once"), load_tokenizer(tokenizer_folder)
    store.verify()
    expected = tokenizer.encode(read_all(open_image_folder(images), range(len(store)), tiny.IMAGE_SIZE))
    assert (store.ids(range(len(store))) == expected).double().mean() > 0.995  # two codes may be equally near


def test_a_tokenizer_trains_and_its_codes_are_used(images, tmp_path):
    train_tokenizer.main(
        train_tokenizer.TrainTokenizerConfig(
            images=str(images), output_dir=str(tmp_path), steps=12, batch_size=6, held_out=0.2, **QUICK,
            model=VQConfig(
                image_size=tiny.IMAGE_SIZE, space_to_depth=4, widths=(32,), attention=False, codebook_size=16,
                codebook_dim=5,
            ),
        )
    )  # fmt: skip
    errors = [line["mse"] for line in read_metrics(tmp_path) if "mse" in line]
    assert errors[-1] < errors[0]
    tokenizer = load_tokenizer(tmp_path)
    pixels = read_all(open_image_folder(images), range(9), tiny.IMAGE_SIZE)
    assert len(tokenizer.encode(pixels).unique()) > 1
    assert (tmp_path / "reconstructions.png").exists()


def test_token_adapt_trains_in_bf16_as_in_float32_and_is_measured(images, tokenizer_folder, tmp_path):
    for precision in ("no", "bf16"):
        tiny.forget_accelerator()
        tokenadapt.main(
            tokenadapt.TrainTokenAdaptConfig(
                images=str(images), tokenizer=str(tokenizer_folder), output_dir=str(tmp_path / precision), batch_size=8,
                steps=12, lr=3e-3, held_out=0.2, model=TokenAdaptConfig(width=64), mixed_precision=precision, **QUICK,
            )
        )  # fmt: skip
    whole, half = (small_runs.losses(tmp_path / precision) for precision in ("no", "bf16"))
    assert half == pytest.approx(whole, rel=0.02)
    assert half[-1] < half[0] - 1
    load_token_adapt(tmp_path / "bf16")
    assert pd.read_csv(tmp_path / "bf16" / "agreement.csv").agreement.between(0, 1).all()


def test_pretraining_is_measured_averaged_and_pictured(world, tokenizer_folder, tmp_path):
    ids = tiny.random_ids(24, tiny.CODES, tiny.GRID)  # of a grid and a codebook that the tokenizer can decode
    store = tiny.make_store(tmp_path / "store", ids, fingerprint=load_tokenizer(tokenizer_folder).fingerprint)
    run = tmp_path / "run"
    config = small_runs.make_config(
        world, run, view=None, augment=replace(small_runs.everything(world), token_adapt=None), batch_size=8, steps=6,
        ema_decay=0.9, tokenizer=str(tokenizer_folder), eval_store=str(store), preview_every=1,
    )  # fmt: skip
    small_runs.run(replace(config, store=str(store)))
    assert {"eval_cross_entropy", "eval_cross_entropy_ema"} <= read_json(run / "summary.json").keys()
    assert (run / "completions.png").exists()
    assert len(list((run / "previews").iterdir())) == 2
    assert load_model(run / "weights_ema")[0].mask_token.isfinite().all()
