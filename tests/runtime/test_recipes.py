"""Recipes of all stages but pre-training (test_pretrain_recipes.py): each loads, and takes a step at a small size."""

from dataclasses import fields, is_dataclass
from importlib import import_module

import numpy as np
import pytest

import tiny
from seitpp.runtime.command import parse
from seitpp.runtime.recipes import recipes_folder

STAGES = {  # folder of recipes: module, its configuration's class, flags that it needs
    "train_tokenizer": ("seitpp.tokenizers.train", "TrainTokenizerConfig", ["--images", "i"]),
    "tokenize": ("seitpp.tokenizers.tokenize", "TokenizeConfig", ["--images", "i", "--tokenizer", "t"]),
    "tokenadapt": ("seitpp.tokenadapt.train", "TrainTokenAdaptConfig", ["--images", "i", "--tokenizer", "t"]),
    "finetune": ("seitpp.finetune.train", "FinetuneConfig", ["--store", "s", "--eval_store", "s"]),
    "probe": (
        "seitpp.finetune.probe", "ProbeConfig",
        ["--store", "s", "--eval_store", "s", "--weights", "w", "--images", "i", "--eval_images", "i"],
    ),
    "ablation": ("seitpp.downstream.ablation", "AblationConfig", ["--store", "s", "--eval_store", "s"]),
}  # fmt: skip
RECIPES = [(stage, file.stem) for stage in STAGES for file in sorted(recipes_folder(stage).glob("*.yaml"))]
STEP = ["--steps", "1", "--warmup_steps", "0", "--batch_size", "4"]


def load(stage, recipe, *words):
    """(the stage's module, its configuration)."""
    module, name, _ = STAGES[stage]
    module = import_module(module)
    return module, parse(getattr(module, name), ["--config", recipe, *map(str, words)], recipes=stage)


def of(stage):
    return [recipe for each, recipe in RECIPES if each == stage]


def test_every_folder_of_recipes_is_tested():
    folders = {path.name for path in recipes_folder("pretrain").parent.iterdir() if any(path.glob("*.yaml"))}
    assert folders == {*STAGES, "pretrain", "accelerate"}


@pytest.mark.parametrize(("stage", "recipe"), RECIPES, ids=str)
def test_every_recipe_loads_and_says_something_else_than_the_defaults(stage, recipe, tmp_path):
    needed = STAGES[stage][2]
    _, config = load(stage, recipe, *needed, "--output_dir", tmp_path)
    plain = parse(type(config), [*needed, "--output_dir", str(tmp_path)], recipes=stage)
    assert is_dataclass(config)
    assert any(getattr(config, each.name) != getattr(plain, each.name) for each in fields(config))


@pytest.mark.parametrize("recipe", of("train_tokenizer"))
def test_recipes_of_tokenizers_take_a_step(recipe, images, tmp_path):
    words = ["--images", images, "--output_dir", tmp_path, *STEP, "--held_out", "0.2"]
    module, config = load("train_tokenizer", recipe, *words, "--model.image_size", "[16,16]")
    module.main(config)
    assert (tmp_path / "weights/tokenizer.json").exists()


@pytest.mark.parametrize("recipe", of("tokenadapt"))
def test_recipes_of_token_adapt_take_a_step(recipe, images, tokenizer_folder, tmp_path):
    words = ["--images", images, "--tokenizer", tokenizer_folder, "--output_dir", tmp_path, *STEP, "--held_out", "0.2"]
    module, config = load("tokenadapt", recipe, *words, "--model.width", "64", "--view", "[2,4]")
    module.main(config)
    assert (tmp_path / "weights/model.safetensors").exists()


@pytest.mark.parametrize("recipe", of("finetune"))
def test_recipes_of_fine_tuning_take_a_step(recipe, tmp_path):
    stores = [
        tiny.make_store(tmp_path / name, tiny.striped_ids(np.arange(30) % 3, (32, 32), seed=seed))
        for seed, name in enumerate(("train", "test"))
    ]
    small = ["--encoder.width", "24", "--encoder.heads", "3", "--encoder.depth", "1", "--seeds", "1"]
    words = ["--store", stores[0], "--eval_store", stores[1], "--output_dir", tmp_path / "run", *STEP, *small]
    module, config = load("finetune", recipe, *words)
    module.main(config)
    assert (tmp_path / "run/results.csv").exists()
