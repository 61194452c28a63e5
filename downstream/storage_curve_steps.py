"""The steps of a storage curve: which runs it is made of, where they lie, and the commands that make them.

seed-0/120000/store            a subset of the tokens, of 120,000 bytes; the same for all that learn from it
seed-0/120000/mtm/pretrain     a pre-training on these rows only
seed-0/120000/mtm/finetune     and on them a fine-tuning
seed-0/120000/jpeg75           JPEGs of as many bytes as the subset and its codebook take, and a training on them
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seitpp.downstream.ablation_steps import SCRATCH, augment_of, command_of, training_flags
from seitpp.finetune.train import FinetuneConfig
from seitpp.mtm.pretrain import PretrainConfig
from seitpp.runtime.steps.step import Step, flag_words

if TYPE_CHECKING:
    from seitpp.downstream.storage_curve import StorageCurveConfig


@dataclass(frozen=True, kw_only=True)
class CurveRecipes:
    """What the trainings are told, as their recipes resolve.

    Attributes:
        pretrain: a PretrainConfig; its encoder is that of all trainings.
        finetune: a FinetuneConfig.
        view: (h, w) tokens that the encoder sees.
        blr: base learning rate of all trainings on labels.
    """

    pretrain: PretrainConfig
    finetune: FinetuneConfig
    view: tuple[int, int]
    blr: float


@dataclass(frozen=True, kw_only=True)
class Point:
    """A seed's subset of the tokens.

    Attributes:
        seed: of the choice, and of the trainings.
        budget: bytes that its rows may take.
        bytes: that it takes: rows, codebook and tables of its coding.
        images: its rows.
    """

    seed: int
    budget: int
    bytes: int
    images: int


def folder_of(config: "StorageCurveConfig", seed: int, budget: int, *names: str) -> Path:
    """Folder of a subset or run at a budget."""
    return Path(config.output_dir, f"seed-{seed}", str(budget), *names)


def make_steps(
    config: "StorageCurveConfig", recipes: CurveRecipes, points: list[Point], besides: int = 0
) -> list[Step]:
    """All steps, each after those it needs.

    Args:
        config: a StorageCurveConfig.
        recipes: CurveRecipes.
        points: the subsets, which are written already.
        besides: bytes that JPEGs may take besides those of the subset.
    """
    steps = []
    for point in points:
        for ingredient in config.ingredients:
            if ingredient != SCRATCH:
                steps.append(_pretraining(config, recipes, point, ingredient))
            after = () if ingredient == SCRATCH else (steps[-1].name,)
            steps.append(_finetuning(config, recipes, point, ingredient, after))
        steps += [_on_jpegs(config, recipes, point, storage, besides) for storage in config.jpegs]
    return steps


def _pretraining(config, recipes, point, ingredient):
    recipe = asdict(recipes.pretrain.augment)
    own = asdict(augment_of(ingredient, recipes.pretrain.augment, config.token_adapt))
    flags = {
        "store": str(folder_of(config, point.seed, point.budget, "store")), "eval_store": config.eval_store,
        **{f"augment.{name}": value for name, value in own.items() if value != recipe[name]},
        **_steps(config.pretrain_steps),
        **training_flags(config, recipes.pretrain, point.images, point.seed),
        "output_dir": str(folder_of(config, point.seed, point.budget, ingredient, "pretrain")),
    }  # fmt: skip
    return Step(
        name=_name(point, ingredient, "pre-training"), command=command_of("pretrain", config.pretrain, flags),
        after=(), seconds=120,
    )  # fmt: skip


def _finetuning(config, recipes, point, ingredient, after):
    flags = {
        "store": str(folder_of(config, point.seed, point.budget, "store")), "eval_store": config.eval_store,
        **_labels(config), **_training(config, recipes, point),
    }  # fmt: skip
    if ingredient == SCRATCH:
        flags |= _encoder(recipes)
    else:
        flags["weights"] = str(folder_of(config, point.seed, point.budget, ingredient, "pretrain"))
    flags["output_dir"] = str(folder_of(config, point.seed, point.budget, ingredient, "finetune"))
    return Step(
        name=_name(point, ingredient, "fine-tuning"), command=command_of("finetune", config.finetune, flags),
        after=after, seconds=60,
    )  # fmt: skip


def _on_jpegs(config, recipes, point, storage, besides):
    flags = {
        "store": config.store, "eval_store": config.eval_store, "images": config.images,
        "eval_images": config.eval_images, **_labels(config), **_training(config, recipes, point),
        **_encoder(recipes), "storage": storage, "budget": str(point.bytes + besides),
        "output_dir": str(folder_of(config, point.seed, point.budget, storage)),
    }  # fmt: skip
    if config.pixel_blr is not None:
        flags["blr"] = config.pixel_blr
    recipe = () if config.finetune is None else ("--config", config.finetune)
    return Step(
        name=_name(point, storage, "training"), command=("seitpp", "train-on-jpegs", *recipe, *flag_words(flags)),
        after=(), seconds=60,
    )  # fmt: skip


def _name(point, what, kind):
    return f"{what}, {point.budget} bytes, seed {point.seed}, {kind}"


def _labels(config) -> dict[str, Any]:
    labels = {} if config.labels is None else {"labels": config.labels}
    return {**labels, "dataset": config.dataset}


def _training(config, recipes, point) -> dict[str, Any]:
    """Of a training on labels: the same for tokens and JPEGs."""
    return {
        **_steps(config.finetune_steps), **training_flags(config, recipes.finetune, point.images, point.seed),
        "seeds": 1, "blr": recipes.blr, "blr_candidates": [],
    }  # fmt: skip


def _encoder(recipes) -> Mapping[str, Any]:
    """The encoder of the pre-training, from scratch."""
    encoder = asdict(recipes.pretrain.model.encoder)
    return {**{f"encoder.{name}": value for name, value in encoder.items()}, "view": recipes.view}


def _steps(count) -> dict[str, int]:
    return {} if count is None else {"steps": count}
