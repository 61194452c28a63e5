"""Recipes of pre-training: each takes a step at a small size; the papers' numbers stand in theirs."""

import numpy as np
import pytest

import tiny
from seitpp.mtm import pretrain
from seitpp.runtime.command import parse
from seitpp.runtime.recipes import recipes_folder
from tiny_pretraining import entropies

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
    pretrain.pretrain(parse(pretrain.PretrainConfig, words, recipes="pretrain"))
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
