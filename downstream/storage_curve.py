"""Accuracy against all bytes that a training reads: fewer and fewer tokens, and JPEGs of as many bytes.

    seitpp storage-curve --config demo --store stores/train --eval_store stores/test --images photos/train \
        --eval_images photos/test --tokenizer runs/tokenizer --output_dir runs/curve
    seitpp storage-curve --budgets '[0.25, 0.5, 1.0]' --seeds 3 …   three subsets of the tokens, three seeds
    seitpp storage-curve --budgets '[0.3GB, 0.8GB]' …              so many bytes of tokens, labels and keys
    seitpp storage-curve --count_tokenizer true --tokenizer runs/tokenizer …   JPEGs of as many bytes as it takes, too
    seitpp storage-curve --quick true …                            a few steps of everything, to see that it runs

At each budget a seed takes a subset of the tokens, class by class. A ViT learns from it from scratch, and from a
pre-training on these rows only (`--ingredients`: with TokenAdapt, ColorAdapt or both, too). Beside them the same ViT
with a stem that reads pixels learns from as many bytes of JPEGs (`--jpegs`), by the same recipe, steps, batches and
seeds. Bytes are those of tokens or JPEGs, labels, keys, codebook and coding tables.

    storage_curve.csv   a row a point: images, bytes, bytes with the tokenizer's weights, mean, deviation
    results.csv         every measured number, a row
    seed-0/…            subsets, JPEGs and runs

To resume, rerun the same command; it may name more seeds, budgets or JPEGs.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from seitpp.downstream.ablation import drop_checkpoints, forget_runs, recipe_of, usual_lanes
from seitpp.downstream.ablation_steps import INGREDIENTS, augment_of, require_ingredients
from seitpp.downstream.storage_curve_steps import CurveRecipes, Point, folder_of, make_steps
from seitpp.downstream.storage_curve_table import curve_table, gather, subset_bytes, tokenizer_bytes
from seitpp.finetune.labelled import LabelledRows, fingerprints, open_train_and_test
from seitpp.finetune.pixels import PixelsConfig, open_pixels, train_on_pixels
from seitpp.finetune.train import FinetuneConfig, finetune
from seitpp.mtm.augmentation.augment import Augment
from seitpp.mtm.encoder import fitting_view
from seitpp.mtm.pretrain import PretrainConfig, pretrain
from seitpp.runtime.command import parse, run_command
from seitpp.runtime.config import StageConfig, require, require_each_once
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import replacing
from seitpp.runtime.locations import Location
from seitpp.runtime.results import write_results
from seitpp.runtime.run_folder import RunFolder
from seitpp.runtime.steps.runner import StepRunner
from seitpp.runtime.steps.step import Step
from seitpp.runtime.weights import fingerprint_of
from seitpp.tokenadapt.model import load_token_adapt
from seitpp.tokenizers.sources.jpegs.storage import forms_of
from seitpp.tokenizers.sources.source import source_fingerprint
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.reading import TABLE_FIELDS, ReadsLabels, label_words
from seitpp.tokens.store import TokenStore
from seitpp.tokens.subset import bytes_of_rows, parse_bytes, rank_rows, write_subset

STAGES = {
    "pretrain": (PretrainConfig, pretrain, "pretrain"),
    "finetune": (FinetuneConfig, finetune, "finetune"),
    "train-on-jpegs": (PixelsConfig, train_on_pixels, "finetune"),
}
"""What each step's command starts: configuration, function, folder of recipes."""
MAY_CHANGE = ("seeds", "budgets", "jpegs", "ingredients", "lanes", "tokenizer")
CURVE = "storage_curve.csv"


@dataclass(frozen=True, kw_only=True)
class StorageCurveConfig(StageConfig, ReadsLabels):
    """Accuracy against bytes: tokens, and JPEGs of as many bytes."""

    store: Location
    """token store of the training images, a folder on this machine"""
    eval_store: Location
    """token store to measure on"""
    images: Location | None = None
    """what `store` was made of, as for seitpp tokenize; needed for `jpegs`"""
    eval_images: Location | None = None
    """what `eval_store` was made of, likewise"""
    tokenizer: Location | None = None
    """the stores' tokenizer, whose bytes are counted in a column of their own; None: they are not"""
    count_tokenizer: bool = False
    """whether JPEGs may take as many bytes as tokens and the tokenizer's weights together; else, as tokens alone"""
    dataset: str = "classification"
    """name of this data set and task in results"""
    budgets: tuple[str, ...] = ("0.25", "0.5", "1.0")
    """what the rows of a subset may take: fractions of the labelled rows' bytes, up to 1, or bytes, such as 300kB or
    0.3GB. Its codebook comes on top, and JPEGs may take as much as both"""
    ingredients: tuple[str, ...] = ("scratch", "mtm")
    """trainings on tokens: scratch, mtm (pre-trained), tokenadapt, coloradapt, all (pre-trained with both)"""
    jpegs: tuple[str, ...] = ("jpeg75", "jpeg_fit", "jpeg75_side_fit")
    """trainings on pixels. jpeg75: as many JPEGs of quality 75 as fit; jpeg75_side32: the same, scaled down to 32
    pixels a side; jpeg_fit: all images, at the quality that fits; jpeg75_side_fit: all images, at the side that fits"""
    token_adapt: Location | None = None
    """run or weights of TokenAdapt; the ingredients tokenadapt and all need it"""
    seeds: int = 3
    """repetitions: seed, seed + 1, …"""
    pretrain: Location = "demo"
    """recipe of seitpp.mtm.pretrain, name or path; its encoder is that of all trainings"""
    finetune: Location = "demo"
    """recipe of seitpp.finetune.train, name or path, of all trainings on labels"""
    pretrain_steps: int | None = None
    """optimizer steps of each pre-training; None: as the recipe says"""
    finetune_steps: int | None = None
    """optimizer steps of each training on labels; None: as the recipe says"""
    blr: float | None = None
    """base learning rate of all trainings on labels; None: the recipe's, or the first of its candidates"""
    pixel_blr: float | None = None
    """base learning rate of trainings on pixels; None: the same"""
    lanes: int | None = None
    """trainings at a time; None: one on a GPU, one a core without"""
    quick: bool = False
    """a few steps of everything: it shows that all runs, not what it reaches"""

    def __post_init__(self):
        super().__post_init__()
        require_ingredients(self)
        require_each_once(self, "ingredients", "budgets")
        require(self, "jpegs", len(self.jpegs) == len(set(self.jpegs)), "must name each once")
        require(self, "count_tokenizer", self.tokenizer or not self.count_tokenizer, "needs --tokenizer")
        for storage in self.jpegs:
            forms_of(storage, (256, 256))
        for budget in self.budgets:
            parse_bytes(budget)
        require(self, "seeds", self.seeds >= 1, "must be at least 1")
        for name in ("pretrain_steps", "finetune_steps", "lanes"):
            require(self, name, getattr(self, name) is None or getattr(self, name) >= 1, "must be at least 1")
        for name in ("blr", "pixel_blr"):
            require(self, name, getattr(self, name) is None or getattr(self, name) > 0, "must be above 0")

    @property
    def all_seeds(self) -> range:
        """The seeds, a range."""
        return range(self.seed, self.seed + self.seeds)


def storage_curve(config: StorageCurveConfig) -> None:
    """Check that everything fits together, write the subsets, run the steps, write the tables."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("seitpp storage-curve starts its trainings itself: launch it as one process")
    train_set, test_set, recipes, data = read_inputs(config)
    budgets = budgets_in_bytes(config.budgets, train_set)
    known = fingerprints(train_set, test_set)
    known["data"] |= data
    run = RunFolder(config, stage="downstream.storage_curve", may_change=MAY_CHANGE, **known)
    run.begin()
    if config.resume == "none":
        forget_runs(run.path, CURVE)
    points = [write_tokens(config, train_set, budget, seed) for seed in config.all_seeds for budget in budgets]
    besides = tokenizer_bytes(str(config.tokenizer)) if config.count_tokenizer else 0
    steps = make_steps(config, recipes, points, besides)
    lanes = config.lanes or usual_lanes()
    StepRunner(steps, run.path, lanes=lanes, on_finish=drop_checkpoints, call=run_step).run()
    results, found = gather(config, budgets)
    table = curve_table(found)
    write_results(run.path, results)
    with replacing(run.path / CURVE) as temporary:
        table.to_csv(temporary, index=False)
    run.finish({"results": len(results)})
    shown = table[table["metric"] == "accuracy"].drop(columns=["metric", "dataset", "budget"])
    print(f"\n{shown.to_string(index=False, float_format='{:.3f}'.format)}\n")
    print(f"{run.path}: results.csv and {CURVE} are written. seitpp report {run.path} makes a page of them")


def run_step(step: Step) -> None:
    """Do in this process what a step's command does: call the stage's function."""
    _, stage, *words = step.command
    config_class, function, recipes = STAGES[stage]
    function(parse(config_class, words, recipes=recipes))


def read_inputs(config: StorageCurveConfig) -> tuple[LabelledRows, LabelledRows, CurveRecipes, dict[str, Any]]:
    """Everything that the steps will read, opened once, so that what does not fit is said before anything runs.

    Returns: (LabelledRows to learn from, LabelledRows to measure on, CurveRecipes, fingerprints of all else).
    Raises: UserError naming what does not fit.
    """
    if "://" in config.store:
        raise UserError(f"{config.store}: subsets need a store on this machine")
    if config.jpegs and not (config.images and config.eval_images):
        raise UserError("JPEGs need --images and --eval_images; for tokens alone: --jpegs '[]'")
    needing = [name for name in config.ingredients if "TokenAdapt" in INGREDIENTS[name]]
    if needing and config.token_adapt is None:
        raise UserError(f"the ingredient {needing[0]} needs --token_adapt, a run of seitpp train-tokenadapt")
    stores = ["--store", config.store, "--eval_store", config.eval_store]
    pretraining = recipe_of(config, "pretrain", PretrainConfig, stores)
    finetuning = recipe_of(config, "finetune", FinetuneConfig, [*stores, *label_words(config)])
    train_set, test_set = open_train_and_test(finetuning)
    store = train_set.store
    view = fitting_view(pretraining.view, store.grid, pretraining.model.encoder.patch_size, store.geometry)
    for ingredient in config.ingredients:
        augment = augment_of(ingredient, pretraining.augment, config.token_adapt)
        Augment(augment, store=store, view=view, device="cpu")
        if "ColorAdapt" in INGREDIENTS[ingredient] and not augment.color_adapt:
            raise UserError(
                f"the recipe {config.pretrain} has no ColorAdapt to switch on for {ingredient}: give it "
                f"`augment: {{color_adapt: …}}` above 0, or leave {ingredient} out of --ingredients"
            )
    candidates = finetuning.blr_candidates or (finetuning.blr,)
    recipes = CurveRecipes(
        pretrain=pretraining, finetune=finetuning, view=(view[0], view[1]), blr=config.blr or candidates[0]
    )
    return train_set, test_set, recipes, _further_fingerprints(config, recipes, store)


def _further_fingerprints(config: StorageCurveConfig, recipes: CurveRecipes, store: TokenStore) -> dict[str, Any]:
    """Of recipes, TokenAdapt and images: finished steps are not run again, so these must be what they were, too."""
    places, found = {"output_dir", "store", "eval_store", *TABLE_FIELDS}, {}
    for name in ("pretrain", "finetune"):
        resolved = {key: value for key, value in asdict(getattr(recipes, name)).items() if key not in places}
        found[name] = hashlib.sha256(json.dumps(resolved).encode()).hexdigest()
    if config.token_adapt is not None:
        found["token_adapt"] = fingerprint_of(load_token_adapt(config.token_adapt)[0].state_dict(), {})
    if config.tokenizer is not None:
        made_by = store.tokenizer["fingerprint"]
        tokenizer = load_tokenizer(config.tokenizer, fingerprint=made_by)
        store.check_tokenizer(tokenizer.fingerprint, f"the tokenizer in {config.tokenizer}", tokenizer.codebook_size)
    if config.jpegs:
        words = ["--images", config.images, "--eval_images", config.eval_images]
        stores = ["--store", config.store, "--eval_store", config.eval_store, "--blr_candidates", "[]"]
        pixels = recipe_of(config, "finetune", PixelsConfig, [*stores, *label_words(config), *words])
        train_set, test_set, _ = open_pixels(pixels)
        found |= {"images": source_fingerprint(train_set.images), "eval_images": source_fingerprint(test_set.images)}
    return found


def budgets_in_bytes(budgets: tuple[str, ...], labelled: LabelledRows) -> list[int]:
    """What the rows of each subset may take.

    Args:
        budgets: fractions or sizes, as texts.
        labelled: LabelledRows to choose from.
    Raises: UserError if one is more than all rows take, or two are the same.
    """
    total = int(bytes_of_rows(labelled.store, labelled.rows).sum())
    found = []
    for text in budgets:
        fraction = _fraction(text)
        found.append(parse_bytes(text) if fraction is None else int(fraction * total))
        if found[-1] > total:
            raise UserError(
                f"--budgets: all labelled rows of {labelled.store.folder} take {total} bytes, less than {text}"
            )
    if len(set(found)) < len(found):
        raise UserError(f"--budgets: two of {', '.join(budgets)} are the same, of {total} bytes")
    return found


def _fraction(text: str) -> float | None:
    """A number up to 1; None for a size."""
    try:
        return float(text) if float(text) <= 1 else None
    except ValueError:
        return None


def write_tokens(config: StorageCurveConfig, labelled: LabelledRows, budget: int, seed: int) -> Point:
    """Write a seed's subset of the labelled rows: class by class in turn, as a subset takes them.

    Raises: UserError if the budget holds no row, or rows of fewer than two classes.
    """
    ranked = labelled.rows[rank_rows(np.arange(len(labelled.rows)), labelled.targets, seed=seed)]
    total = np.cumsum(bytes_of_rows(labelled.store, ranked))
    rows = np.sort(ranked[: int(np.searchsorted(total, budget, side="right"))])
    if len(np.unique(labelled.labels[rows])) < 2:
        raise UserError(f"--budgets: {budget} bytes hold rows of fewer than two classes: allow more")
    folder = folder_of(config, seed, budget, "store")
    write_subset(folder, labelled.store, rows, how={"budget": str(budget), "balanced": True, "seed": seed})
    size = TokenStore(folder, verify_shards=False).size
    return Point(seed=seed, budget=budget, bytes=subset_bytes(size), images=size.rows)


def cli() -> None:
    """Run the stage from the command line."""
    run_command(storage_curve, StorageCurveConfig, recipes="storage_curve")


if __name__ == "__main__":
    cli()
