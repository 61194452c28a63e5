"""Recipes of all stages but pre-training (test_pretrain_recipes.py): each loads, and takes a step at a small size."""

from dataclasses import fields, is_dataclass
from importlib import import_module

import numpy as np
import pytest

import tiny
from seitpp.runtime.command import parse
from seitpp.runtime.errors import UserError
from seitpp.runtime.recipes import read_recipe, recipes_folder

STAGES = {  # folder of recipes: module, its configuration's class, flags that it needs
    "train_tokenizer": ("seitpp.tokenizers.train", "TrainTokenizerConfig", ["--images", "i"]),
    "tokenize": ("seitpp.tokenizers.tokenize", "TokenizeConfig", ["--images", "i", "--tokenizer", "t"]),
    "tokenadapt": ("seitpp.tokenadapt.train", "TrainTokenAdaptConfig", ["--images", "i", "--tokenizer", "t"]),
    "finetune": ("seitpp.finetune.train", "FinetuneConfig", ["--store", "s", "--eval_store", "s"]),
    "continual": (
        "seitpp.finetune.continual", "ContinualConfig",
        ["--store", "s", "--eval_store", "s", "--images", "i", "--tokenizer", "t"],
    ),
    "probe": (
        "seitpp.finetune.probe", "ProbeConfig",
        ["--store", "s", "--eval_store", "s", "--weights", "w", "--images", "i", "--eval_images", "i"],
    ),
    "explore": ("seitpp.finetune.explore", "ExploreConfig", ["--store", "s", "--eval_store", "s", "--weights", "w"]),
    "robustness": (
        "seitpp.downstream.robustness", "RobustnessConfig",
        ["--classifiers", "[r]", "--tokenizer", "t", "--images", "i"],
    ),
    "adversarial": (
        "seitpp.downstream.adversarial", "AdversarialConfig",
        ["--classifiers", "[r]", "--tokenizer", "t", "--images", "i"],
    ),
    "ablation": ("seitpp.downstream.ablation", "AblationConfig", ["--store", "s", "--eval_store", "s"]),
    "storage_curve": (
        "seitpp.downstream.storage_curve", "StorageCurveConfig",
        ["--store", "s", "--eval_store", "s", "--images", "i", "--eval_images", "i"],
    ),
    "segmentation": (
        "seitpp.downstream.segmentation.train", "SegmentationConfig", ["--store", "s", "--eval_store", "s"],
    ),
    "fine_grained": ("seitpp.downstream.fine_grained", "FineGrainedConfig", ["--tokenizer", "t"]),
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
    small = ["--encoder.width", "24", "--encoder.heads", "3", "--encoder.depth", "1", "--seeds", "1", "--min_lr", "0"]
    words = ["--store", stores[0], "--eval_store", stores[1], "--output_dir", tmp_path / "run", *STEP, *small]
    module, config = load("finetune", recipe, *words)
    module.finetune(config)
    assert (tmp_path / "run/results.csv").exists()


@pytest.mark.parametrize("recipe", of("continual"))
def test_recipes_of_continual_learning_take_a_step_in_each_task(recipe, tmp_path):
    stores = [
        tiny.make_store(tmp_path / name, tiny.striped_ids(np.arange(30) % 3, (8, 8), seed=seed))
        for seed, name in enumerate(("train", "test"))
    ]
    small = ["--encoder.width", "24", "--encoder.heads", "3", "--encoder.depth", "1", "--methods", "[tokens]"]
    words = ["--store", stores[0], "--eval_store", stores[1], "--output_dir", tmp_path / "run", *STEP, *small]
    module, config = load("continual", recipe, *words)
    module.continual(config)
    assert (tmp_path / "run/curve.svg").exists()


# Recipes on recipes


@pytest.fixture
def written(tmp_path):
    """Write recipes, {name: text}; returns the path of the last."""

    def write(**texts):
        for name, text in texts.items():
            (tmp_path / f"{name}.yaml").write_text(text)
        return str(tmp_path / f"{list(texts)[-1]}.yaml")

    return write


def test_a_recipe_is_its_base_with_what_it_says_itself(written):
    path = written(
        one="model: {encoder: {width: 8, heads: 2}, smoothing: 0.1}\nsteps: 5\nview: [2, 2]\n",
        two="base: one\nmodel: {encoder: {heads: 4}}\nview: [4, 4]\n",
        three="# a comment\nbase: two\nsteps: 7\n",
    )
    assert read_recipe(path, "pretrain")[1] == {
        "model": {"encoder": {"width": "8", "heads": "4"}, "smoothing": "0.1"}, "steps": "7", "view": ["4", "4"],
    }  # fmt: skip


def test_a_base_is_one_beside_the_recipe_or_one_of_the_stage(written):
    own = read_recipe(written(mine="base: vit_base\nepochs: 3\n"), "pretrain")[1]
    packaged = read_recipe("vit_base", "pretrain")[1]
    assert own == {**packaged, "epochs": "3"}
    beside = read_recipe(written(vit_base="seed: 4\n", mine="base: vit_base\n"), "pretrain")[1]
    assert beside == {"seed": "4"}


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({"a": "base: b\n", "b": "base: a\n"}, "b.yaml is its own base.*a.yaml"),
        ({"a": "base: a\n"}, "a.yaml is its own base"),
        ({"a": "base: [x]\n"}, r"a.yaml: base = \['x'\]"),
        ({"a": "base: vit_bsae\n"}, r"no recipe vit_bsae.*vit_base"),
    ],
)
def test_a_base_that_can_not_be_is_named(written, texts, said):
    with pytest.raises(UserError, match=said):
        read_recipe(written(**texts), "pretrain")


def test_sizes_of_a_vit_differ_from_the_base_in_their_size_and_batches_alone():
    base = read_recipe("vit_base", "pretrain")[1]
    for name in ("vit_tiny", "vit_small", "vit_large"):
        other = read_recipe(name, "pretrain")[1]
        assert set(other["model"].pop("encoder")) <= {"width", "depth", "heads"}
        assert {key for key in other if other[key] != base.get(key)} <= {"batch_size", "accum_iter"}
