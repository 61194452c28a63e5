"""`--init_weights`: a new training that starts from the weights of an old one."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny
from seitpp.mtm import pretrain as stage
from seitpp.mtm.model import load_model
from seitpp.runtime.errors import UserError
from seitpp.tokenadapt import train as token_adapt_stage
from seitpp.tokenadapt.model import TokenAdaptConfig, load_token_adapt
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.store import TokenStore
from tiny_pretraining import MODEL, make_config, make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory, tokenizer_folder):
    return make_world(tmp_path_factory.mktemp("world"), tokenizer_folder)


@pytest.fixture(scope="module")
def old(world):
    """A run of two steps, on views of the whole grid of 4 x 6 tokens."""
    stage.pretrain(make_config(world, world / "old", steps=2))
    return world / "old"


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_training_starts_from_the_weights_and_goes_its_own_way(world, old, tmp_path):
    config = make_config(world, tmp_path / "new", init_weights=str(old), steps=1, seed=7, lr=1e-12, weight_decay=0.0)
    started = stage.make_model(config, TokenStore(world / "train")).state_dict()
    there = load_model(old)[0].state_dict()
    assert same(started, there)
    stage.pretrain(config)
    left = load_model(tmp_path / "new")[0].state_dict()
    assert all(torch.allclose(left[name], there[name], atol=1e-9) for name in there)


def test_positions_of_the_decoder_are_interpolated_to_another_view(world, old, tmp_path):
    weights = tmp_path / "weights"
    model, fingerprint = load_model(old)
    with torch.no_grad():  # each patch's position is its column, which a coarser table must keep in order
        model.decoder_pos_embed[0, 1:] = torch.arange(6.0).remainder(3)[:, None]
        model.decoder_pos_embed[0, 0] = 9.0
    stage.save_model(weights, model, tokenizer=fingerprint, grid=tiny.GRID)
    config = make_config(world, tmp_path / "new", init_weights=str(weights), view=(4, 4))
    started = stage.make_model(config, TokenStore(world / "train"))
    assert started.encoder.view == (4, 4)
    table = started.decoder_pos_embed.detach()
    assert table.shape == (1, 1 + 4, 24)
    assert torch.equal(table[0, 0], torch.full((24,), 9.0))
    left, right = table[0, 1, 0], table[0, 2, 0]
    assert 0 <= left < 1 < right <= 2
    assert torch.allclose(table[0, 1:3], table[0, 3:5])


def test_a_model_of_another_shape_is_refused_with_the_flags_to_give(world, old, tmp_path):
    other = replace(MODEL, encoder=replace(MODEL.encoder, width=12, depth=1))
    config = make_config(world, tmp_path / "new", init_weights=str(old), model=other)
    wanted = r"another shape: give --model\.encoder\.width 24 --model\.encoder\.depth 2$"
    with pytest.raises(UserError, match=wanted):
        stage.pretrain(config)
    assert not Path(config.output_dir).exists()


def test_weights_of_another_tokenizer_or_kind_are_refused(world, tokenizer_folder, tmp_path):
    for name, weights in (
        ("was made by tokenizer", tiny.make_mtm(tmp_path / "other", view=tiny.GRID)),
        ("is no masked token model", tiny.make_token_adapt(tmp_path / "adapt")),
        ("nowhere", tmp_path / "nowhere"),
    ):
        config = make_config(world, tmp_path / "new", init_weights=str(weights))
        with pytest.raises(UserError, match=name):
            stage.pretrain(config)
        assert not Path(config.output_dir).exists()


def test_other_weights_make_another_run(world, old, tmp_path):
    stage.pretrain(make_config(world, tmp_path / "new", steps=1))
    with pytest.raises(UserError, match=r"holds another run \(init_weights: "):
        stage.pretrain(make_config(world, tmp_path / "new", steps=1, init_weights=str(old)))


def test_token_adapt_starts_from_one_of_its_tokenizer_and_shape(images, tokenizer_folder, tmp_path):
    fingerprint = load_tokenizer(tokenizer_folder).fingerprint
    weights = tiny.make_token_adapt(tmp_path / "old", fingerprint=fingerprint)
    config = token_adapt_stage.TrainTokenAdaptConfig(
        images=str(images), tokenizer=str(tokenizer_folder), output_dir=str(tmp_path / "run"), seed=3,
        init_weights=str(weights), model=TokenAdaptConfig(width=64), dry_run=True,
    )  # fmt: skip
    tokenizer = load_tokenizer(tokenizer_folder)
    model = token_adapt_stage.make_model(config, tokenizer)
    assert same(model.state_dict(), load_token_adapt(weights)[0].state_dict())
    assert all(each.requires_grad for each in model.parameters())
    with pytest.raises(UserError, match=r"another shape: it has tokenadapt\.width = 64$"):
        token_adapt_stage.make_model(replace(config, model=TokenAdaptConfig(width=128)), tokenizer)
    with pytest.raises(UserError, match=r"another shape: it has view = \[4, 6\]$"):
        token_adapt_stage.make_model(replace(config, view=(4, 4)), tokenizer)
    other = tiny.make_token_adapt(tmp_path / "other")
    with pytest.raises(UserError, match="belongs to tokenizer aaaaaaaaaaaa, not to this one"):
        token_adapt_stage.make_model(replace(config, init_weights=str(other)), tokenizer)
    assert not (tmp_path / "run").exists()
