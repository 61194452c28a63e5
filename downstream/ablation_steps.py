"""The ablation's steps: which runs it is made of, where they lie, and the commands that make them.

seed-0/labels-0.2             a fraction of the labels, a store; the same for all ingredients
seed-0/all/pretrain           one pre-training for all label_fractions of the labels
seed-0/all/finetune-0.2       and on each of them a fine-tuning
seed-0/all/probe-0.2          and a probe
seed-0/robustness-0.2         all fine-tuned classifiers of a fraction on images
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seitpp.finetune.probe import ProbeConfig
from seitpp.finetune.train import FinetuneConfig
from seitpp.mtm.augmentation.augment import AugmentConfig
from seitpp.mtm.pretrain import PretrainConfig
from seitpp.runtime.config import require
from seitpp.runtime.steps.step import Step, flag_words
from seitpp.runtime.suggest import did_you_mean
from seitpp.training.config import TrainConfig

if TYPE_CHECKING:
    from seitpp.downstream.ablation import AblationConfig


SCRATCH, PLAIN = "scratch", "mtm"
INGREDIENTS = {
    SCRATCH: (),
    PLAIN: (),
    "tokenadapt": ("TokenAdapt",),
    "coloradapt": ("ColorAdapt",),
    "all": ("TokenAdapt", "ColorAdapt"),
}
"""Names on the command line, and what each adds to plain masked token modelling."""

QUICK = {"steps": 10, "warmup_steps": 2, "batch_size": 8}
"""Of each training: enough for every part of it to run."""


@dataclass(frozen=True, kw_only=True)
class Recipes:
    """What the trainings are told, as their recipes resolve.

    Attributes:
        pretrain: a PretrainConfig; its encoder is also the one from scratch.
        finetune: a FinetuneConfig.
        probe: a ProbeConfig.
        view: (h, w) tokens that the encoder sees.
        images: rows of the store, with labels or not.
        labelled: {fraction of the labels: rows of it}.
    """

    pretrain: PretrainConfig
    finetune: FinetuneConfig
    probe: ProbeConfig
    view: tuple
    images: int
    labelled: dict


def require_ingredients(config: Any) -> None:
    """Raise a UserError that names what is no ingredient in `config.ingredients`, and the nearest that is one."""
    for name in config.ingredients:
        require(config, "ingredients", name in INGREDIENTS, f"has {name!r}; {did_you_mean(name, INGREDIENTS)}")


def folder_of(config: "AblationConfig", seed: int, fraction: float | None, kind: str, ingredient: str = "") -> Path:
    """Folder of one run; of a pre-training with `fraction` None, of all ingredients with `ingredient` empty."""
    name = kind if fraction is None else f"{kind}-{fraction:g}"
    return Path(config.output_dir) / f"seed-{seed}" / ingredient / name


def folder_of_step(step: Step) -> Path:
    """Folder of the run that a step's command makes: its last word."""
    return Path(step.command[-1])


def store_of(config: "AblationConfig", seed: int, fraction: float) -> str:
    """The store that a fraction of the labels is read from: a subset, or for all of them the whole store."""
    return config.store if fraction == 1 else str(folder_of(config, seed, fraction, "labels"))


def augment_of(ingredient: str, recipe: AugmentConfig, token_adapt: str | None) -> AugmentConfig:
    """The augmentation of an ingredient's pre-training: the recipe's, with its parts on and the others' off.

    Args:
        ingredient: a key of INGREDIENTS.
        recipe: the AugmentConfig of the pre-training recipe.
        token_adapt: run of TokenAdapt.
    """
    parts = INGREDIENTS[ingredient]
    return replace(
        recipe,
        token_adapt=token_adapt if "TokenAdapt" in parts else None,
        color_adapt=recipe.color_adapt if "ColorAdapt" in parts else 0.0,
    )


def make_steps(config: "AblationConfig", recipes: Recipes) -> list[Step]:
    """All steps, seed by seed, each after those it needs.

    Args:
        config: an AblationConfig.
        recipes: Recipes.
    Returns: list of Step.
    """
    steps = []
    for seed in config.all_seeds:
        for ingredient in config.ingredients:
            needed = ()
            if ingredient != SCRATCH:
                steps.append(_pretraining(config, recipes, seed, ingredient))
                needed = (steps[-1].name,)
            for fraction in config.label_fractions:
                steps.append(_finetuning(config, recipes, seed, fraction, ingredient, needed))
                steps.append(_probe(config, recipes, seed, fraction, ingredient, needed))
        if config.images is not None:
            steps += [_robustness(config, seed, fraction) for fraction in config.label_fractions]
    return steps


def _pretraining(config, recipes, seed, ingredient):
    recipe = asdict(recipes.pretrain.augment)
    own = asdict(augment_of(ingredient, recipes.pretrain.augment, config.token_adapt))
    flags = {
        "store": config.store, "eval_store": config.eval_store,
        **{f"augment.{name}": value for name, value in own.items() if value != recipe[name]},
        **training_flags(config, recipes.pretrain, recipes.images, seed),
        "output_dir": str(folder_of(config, seed, None, "pretrain", ingredient)),
    }  # fmt: skip
    name = f"{ingredient}, seed {seed}, pre-training"
    return Step(name=name, command=command_of("pretrain", config.pretrain, flags), after=(), seconds=120)


def _finetuning(config, recipes, seed, fraction, ingredient, after):
    flags = {
        **_labelled(config, seed, fraction), **_start(config, recipes, seed, ingredient),
        **training_flags(config, recipes.finetune, recipes.labelled[fraction], seed), "seeds": 1,
        "output_dir": str(folder_of(config, seed, fraction, "finetune", ingredient)),
    }  # fmt: skip
    name = _finetuning_name(ingredient, seed, fraction)
    return Step(name=name, command=command_of("finetune", config.finetune, flags), after=after, seconds=60)


def _probe(config, recipes, seed, fraction, ingredient, after):
    """Of the pre-trained encoder; from scratch, of the same encoder before any training, as a control."""
    flags = {
        **_labelled(config, seed, fraction), "features": ["random" if ingredient == SCRATCH else "mtm"],
        **_start(config, recipes, seed, ingredient), "seed": seed,
        "output_dir": str(folder_of(config, seed, fraction, "probe", ingredient)),
    }  # fmt: skip
    name = f"{ingredient}, seed {seed}, probe, fraction {fraction:g}"
    return Step(name=name, command=command_of("probe", config.probe, flags), after=after, seconds=15)


def _robustness(config, seed, fraction):
    """One run for all ingredients: what takes its time, corrupting and tokenising, is the same for them."""
    flags = {
        "classifiers": [str(folder_of(config, seed, fraction, "finetune", each)) for each in config.ingredients],
        "images": config.images, "tokenizer": config.tokenizer, "domains": config.domains,
        "dataset": config.dataset, "stores": f"{config.output_dir}/stores",
        "output_dir": str(folder_of(config, seed, fraction, "robustness")),
    }  # fmt: skip
    after = tuple(_finetuning_name(each, seed, fraction) for each in config.ingredients)
    name = f"seed {seed}, robustness, fraction {fraction:g}"
    return Step(name=name, command=command_of("robustness", None, flags), after=after, seconds=60)


def _finetuning_name(ingredient, seed, fraction):
    return f"{ingredient}, seed {seed}, fine-tuning, fraction {fraction:g}"


def _labelled(config, seed, fraction):
    labels = {} if config.labels is None else {"labels": config.labels}
    store = store_of(config, seed, fraction)
    return {"store": store, "eval_store": config.eval_store, **labels, "dataset": config.dataset}


def _start(config, recipes, seed, ingredient):
    """Where an encoder comes from: a pre-training, or the same shape at its start, whatever the other recipe says."""
    if ingredient != SCRATCH:
        return {"weights": str(folder_of(config, seed, None, "pretrain", ingredient))}
    encoder = asdict(recipes.pretrain.model.encoder)
    return {**{f"encoder.{name}": value for name, value in encoder.items()}, "view": recipes.view}


def training_flags(config: Any, recipe: TrainConfig, rows: int, seed: int) -> dict[str, Any]:
    """Flags of one training; batches of at most a third of its rows, in fours, as pairs of pairs need them, or of 2.

    Args:
        config: of the stage that has steps: its `quick` counts.
        recipe: the training's configuration as its recipe resolves.
        rows: that it learns from.
        seed: of the training.
    """
    flags = {"seed": seed, "keep_checkpoints": 1, **(QUICK if config.quick else {})}
    fitting = rows // 3 // recipe.accum_iter // 4 * 4 or 2
    return flags | ({"batch_size": fitting} if fitting < flags.get("batch_size", recipe.batch_size) else {})


def command_of(stage: str, recipe: str | None, flags: Mapping[str, Any]) -> tuple[str, ...]:
    """The command of a stage with a recipe and flags."""
    named = flags if recipe is None else {"config": recipe, **flags}
    return ("seitpp", stage, *flag_words(named))
