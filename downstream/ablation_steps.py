"""The ablation's steps: which runs it is made of, where they lie, and the commands that make them.

seed-0/labels-0.2             a share of the labels, a store; the same for all ingredients
seed-0/all/pretrain           one pre-training for all shares of the labels
seed-0/all/finetune-0.2       and on each of them a fine-tuning
seed-0/all/probe-0.2          and a probe
seed-0/robustness-0.2         all fine-tuned classifiers of a share on images
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from seitpp.finetune.probe import ProbeConfig
from seitpp.finetune.train import FinetuneConfig
from seitpp.mtm.pretrain import PretrainConfig
from seitpp.runtime.step_runner import Step

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
        labelled: {share of the labels: rows of it}.
    """

    pretrain: PretrainConfig
    finetune: FinetuneConfig
    probe: ProbeConfig
    view: tuple
    images: int
    labelled: dict


def label_of(ingredient):
    """What tables call an ingredient: "MTM + TokenAdapt"."""
    return "from scratch" if ingredient == SCRATCH else " + ".join(("MTM", *INGREDIENTS[ingredient]))


def method_of(ingredient):
    """What results call its fine-tuning."""
    return label_of(ingredient) if ingredient == SCRATCH else f"fine-tuned from {label_of(ingredient)}"


def task_of(config, share):
    """What results call the task at a share of the labels."""
    return f"{config.task}, {100 * share:g} % of the labels"


def folder_of(config, seed, share, kind, ingredient=""):
    """Folder of one run; of a pre-training with `share` None, of all ingredients with `ingredient` empty."""
    name = kind if share is None else f"{kind}-{share:g}"
    return Path(config.output_dir) / f"seed-{seed}" / ingredient / name


def folder_of_step(step):
    """Folder of the run that a step's command makes: its last word."""
    return Path(step.command[-1])


def store_of(config, seed, share):
    """The store that a share of the labels is read from: a subset, or for all of them the whole store."""
    return config.store if share == 1 else str(folder_of(config, seed, share, "labels"))


def augment_of(ingredient, recipe, token_adapt):
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


def make_steps(config, recipes):
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
            for share in config.shares:
                steps.append(_finetuning(config, recipes, seed, share, ingredient, needed))
                steps.append(_probe(config, recipes, seed, share, ingredient, needed))
        if config.images is not None:
            steps += [_robustness(config, seed, share) for share in config.shares]
    return steps


def _pretraining(config, recipes, seed, ingredient):
    recipe = asdict(recipes.pretrain.augment)
    own = asdict(augment_of(ingredient, recipes.pretrain.augment, config.token_adapt))
    flags = {
        "store": config.store, "eval_store": config.eval_store,
        **{f"augment.{name}": value for name, value in own.items() if value != recipe[name]},
        **_training(config, recipes.pretrain, recipes.images, seed),
        "output_dir": str(folder_of(config, seed, None, "pretrain", ingredient)),
    }  # fmt: skip
    name = f"{ingredient}, seed {seed}, pre-training"
    return Step(name=name, command=_command("pretrain", config.pretrain, flags), after=(), seconds=120)


def _finetuning(config, recipes, seed, share, ingredient, after):
    flags = {
        **_labelled(config, seed, share), "method": method_of(ingredient), **_start(config, recipes, seed, ingredient),
        **_training(config, recipes.finetune, recipes.labelled[share], seed), "seeds": 1,
        "output_dir": str(folder_of(config, seed, share, "finetune", ingredient)),
    }  # fmt: skip
    name = _finetuning_name(ingredient, seed, share)
    return Step(name=name, command=_command("finetune", config.finetune, flags), after=after, seconds=60)


def _probe(config, recipes, seed, share, ingredient, after):
    """Of the pre-trained encoder; from scratch, of the same encoder before any training, as a control."""
    flags = {
        **_labelled(config, seed, share), "features": ["random" if ingredient == SCRATCH else "mtm"],
        **_start(config, recipes, seed, ingredient), "seed": seed,
        "output_dir": str(folder_of(config, seed, share, "probe", ingredient)),
    }  # fmt: skip
    name = f"{ingredient}, seed {seed}, probe, share {share:g}"
    return Step(name=name, command=_command("probe", config.probe, flags), after=after, seconds=15)


def _robustness(config, seed, share):
    """One run for all ingredients: what takes its time, corrupting and tokenising, is the same for them."""
    flags = {
        "classifiers": [str(folder_of(config, seed, share, "finetune", each)) for each in config.ingredients],
        "images": config.images, "tokenizer": config.tokenizer, "domains": config.domains,
        "task": task_of(config, share), "output_dir": str(folder_of(config, seed, share, "robustness")),
    }  # fmt: skip
    after = tuple(_finetuning_name(each, seed, share) for each in config.ingredients)
    name = f"seed {seed}, robustness, share {share:g}"
    return Step(name=name, command=_command("robustness", None, flags), after=after, seconds=60)


def _finetuning_name(ingredient, seed, share):
    return f"{ingredient}, seed {seed}, fine-tuning, share {share:g}"


def _labelled(config, seed, share):
    labels = {} if config.labels is None else {"labels": config.labels}
    task = task_of(config, share)
    return {"store": store_of(config, seed, share), "eval_store": config.eval_store, **labels, "task": task}


def _start(config, recipes, seed, ingredient):
    """Where an encoder comes from: a pre-training, or the same shape at its start, whatever the other recipe says."""
    if ingredient != SCRATCH:
        return {"weights": str(folder_of(config, seed, None, "pretrain", ingredient))}
    encoder = asdict(recipes.pretrain.model.encoder)
    return {**{f"encoder.{name}": value for name, value in encoder.items()}, "view": recipes.view}


def _training(config, recipe, rows, seed):
    """Flags of one training; batches of at most a third of its rows, in fours, as pairs of pairs need them, or of 2."""
    flags = {"seed": seed, "keep_checkpoints": 1, **(QUICK if config.quick else {})}
    fitting = rows // 3 // recipe.accum_iter // 4 * 4 or 2
    return flags | ({"batch_size": fitting} if fitting < flags.get("batch_size", recipe.batch_size) else {})


def _command(stage, recipe, flags):
    named = flags if recipe is None else {"config": recipe, **flags}
    return ("seitpp", stage, *(word for name, value in named.items() for word in (f"--{name}", _text(value))))


def _text(value):
    return value if isinstance(value, str) else json.dumps(value)
