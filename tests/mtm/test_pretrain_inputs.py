"""What pre-training asks of its inputs before it begins, and what it says beside its losses."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tiny
from seitpp.mtm import pretrain as stage
from seitpp.mtm.augmentation.augment import AugmentConfig
from seitpp.mtm.augmentation.eda import EdaConfig
from seitpp.mtm.baselines import frequency_baselines
from seitpp.mtm.encoder import EncoderConfig
from seitpp.mtm.model import DecoderConfig, ModelConfig
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import read_json, write_json
from seitpp.runtime.run_folder import read_metrics
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.store import TokenStore

MODEL = ModelConfig(
    encoder=EncoderConfig(width=24, depth=1, heads=3), decoder=DecoderConfig(width=16, depth=1, heads=2)
)


@pytest.fixture(scope="module")
def fingerprint(tokenizer_folder):
    return load_tokenizer(tokenizer_folder).fingerprint


@pytest.fixture
def config(tmp_path, fingerprint):
    store = tiny.make_store(tmp_path / "store", tiny.striped_ids(np.arange(24) % 3, tiny.GRID), fingerprint=fingerprint)
    return stage.PretrainConfig(
        store=str(store), output_dir=str(tmp_path / "run"), model=MODEL, batch_size=4, steps=3, lr=1e-3, log_every=1,
        mixed_precision="no", augment=AugmentConfig(crop=False),
    )  # fmt: skip


def test_a_tokenizer_of_other_tokens_is_refused_before_anything_is_trained(config, tmp_path):
    other = tiny.make_tokenizer(tmp_path / "other", seed=5)
    with pytest.raises(UserError, match=r"store was made by tokenizer .*, but the one in .*other belongs to"):
        stage.pretrain(replace(config, tokenizer=str(other)))
    with pytest.raises(UserError, match="is not a tokenizer"):
        stage.pretrain(replace(config, tokenizer=str(tmp_path)))
    assert not Path(config.output_dir).exists()


def test_a_tokenizer_may_be_named_or_left_out_when_a_run_is_gone_on_with(config, tokenizer_folder):
    stage.pretrain(config)
    run = Path(config.output_dir)
    for name in ("summary.json", "weights/model.safetensors"):  # as if it had been killed at the very end
        (run / name).unlink()
    stage.pretrain(replace(config, tokenizer=str(tokenizer_folder)))
    assert (run / "completions.png").exists()
    stage.pretrain(config)


def test_a_store_may_be_named_in_any_way_when_a_run_is_gone_on_with(config, tmp_path, monkeypatch, capsys):
    stage.pretrain(config)
    losses = read_metrics(config.output_dir)
    capsys.readouterr()
    (tmp_path / "link").symlink_to(tmp_path / "store")
    monkeypatch.chdir(tmp_path)
    for spelling in ("store", "./store/", f"{tmp_path}/run/../store", "link"):
        stage.pretrain(replace(config, store=spelling, output_dir="run"))
        assert capsys.readouterr().out == "run: finished before, nothing to do\n"
    monkeypatch.chdir(tmp_path.parent)
    project = tmp_path.rename(tmp_path.with_name(f"{tmp_path.name} moved"))
    stage.pretrain(replace(config, store=str(project / "store"), output_dir=str(project / "run")))
    assert "finished before, nothing to do" in capsys.readouterr().out
    assert read_metrics(project / "run") == losses


def test_a_stopped_run_whose_project_was_moved_goes_on_where_it_stopped(config, tmp_path):
    stage.pretrain(config)
    losses = [line["loss"] for line in read_metrics(config.output_dir)]
    Path(config.output_dir, "summary.json").unlink()
    project = tmp_path.rename(tmp_path.with_name(f"{tmp_path.name} moved"))
    stage.pretrain(replace(config, store=str(project / "store"), output_dir=str(project / "run")))
    assert [line["loss"] for line in read_metrics(project / "run")] == losses


def test_another_token_adapt_or_synonym_file_at_the_same_path_is_another_run(config, tmp_path, fingerprint):
    adapter, synonyms = tiny.make_token_adapt(tmp_path / "ta", fingerprint=fingerprint), tmp_path / "synonyms.json"
    synonyms.write_text(json.dumps({code: [(code + 1) % tiny.CODES] for code in range(tiny.CODES)}))
    eda = EdaConfig(synonyms=0.2, synonym_file=str(synonyms))
    config = replace(config, augment=AugmentConfig(crop=False, token_adapt=str(adapter), eda=eda))
    stage.pretrain(config)
    stage.pretrain(config)
    synonyms.write_text(json.dumps({code: [(code + 2) % tiny.CODES] for code in range(tiny.CODES)}))
    described = read_json(adapter / "weights" / "config.json")
    write_json(adapter / "weights" / "config.json", {**described, "trained": "anew"})
    with pytest.raises(UserError, match=r"augment\.eda\.synonym_file: .* now; augment\.token_adapt: .* there, .* now"):
        stage.pretrain(config)


@pytest.mark.parametrize(
    ("codes", "grid", "rows", "message"),
    [
        (tiny.CODES + 1, tiny.GRID, 4, "test has 38 codes, but the store .* knows 37"),
        (tiny.CODES, (2, 3), 4, r"test has grids of \(2, 3\) tokens, .*store of \(4, 6\)"),
        (tiny.CODES, tiny.GRID, 0, "test holds no rows to measure on"),
    ],
)
def test_an_evaluation_store_that_does_not_fit_is_refused(config, tmp_path, fingerprint, codes, grid, rows, message):
    ids = tiny.random_ids(rows, tiny.CODES, grid)
    store = tiny.make_store(tmp_path / "test", ids, codes=codes, fingerprint=fingerprint)
    with pytest.raises(UserError, match=message):
        stage.pretrain(replace(config, eval_store=str(store)))


def test_every_loss_stands_beside_what_frequencies_alone_would_pay(config):
    stage.pretrain(config)
    unigram = frequency_baselines(TokenStore(config.store))["unigram"]
    lines = [line for line in read_metrics(config.output_dir) if "loss" in line]
    assert len(lines) == 3
    for line in lines:
        assert line["gain_over_unigram"] == pytest.approx(unigram - line["cross_entropy"])


def test_a_checkpoint_at_or_beyond_the_end_is_refused_where_it_was_asked_for(config, tmp_path):
    stage.pretrain(config)
    (checkpoint,) = Path(config.output_dir, "checkpoints").iterdir()
    for steps in (3, 2):
        further = replace(config, output_dir=str(tmp_path / f"two-{steps}"), steps=steps, resume=str(checkpoint))
        with pytest.raises(UserError, match=f"is of step 3, and this training ends at step {steps}: nothing is left"):
            stage.pretrain(further)
    stage.pretrain(replace(config, output_dir=str(tmp_path / "three"), steps=4, resume=str(checkpoint)))
    assert [line["step"] for line in read_metrics(tmp_path / "three")] == [3]
