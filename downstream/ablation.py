"""Which ingredient of pre-training helps on your data: the papers' ablation, on a token store with labels.

    seitpp ablation --store stores/train --eval_store stores/test --token_adapt runs/tokenadapt --output_dir runs/mine
    seitpp ablation --config vit_small_256 --lanes 3 …      the papers' resolution; three trainings at a time
    seitpp ablation --quick true …                          a few steps of everything, to see that it runs

One ViT is trained from scratch, and from pre-training by masked token modelling (MTM): plain, with TokenAdapt, with
ColorAdapt, with both. A seed is a pre-training, a choice of labels and a fine-tuning of its own. Pre-training sees all
images without labels; probe and fine-tuning see a fraction of the labels, class by class, the same for all
ingredients of a seed. They follow one recipe for all, augmentation included: what differs is what pre-training gained.

    results.csv     every measured number, a row
    ablation.csv    means, standard deviations and paired differences
    seed-0/…        the runs

`seitpp report RUN` makes the page and the table for a README. To resume, rerun the same command; it may name more seeds
or label fractions, and other lanes. Finished runs keep their weights, not their checkpoints.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from seitpp.downstream.ablation_steps import (
    INGREDIENTS,
    Recipes,
    augment_of,
    folder_of,
    folder_of_step,
    make_steps,
    require_ingredients,
)
from seitpp.downstream.ablation_table import ablation_table, gather
from seitpp.downstream.corruptions import check_corruptions
from seitpp.downstream.robustness import RobustnessConfig, measure_robustness
from seitpp.finetune.labelled import LabelledRows, fingerprints, open_train_and_test, split_labelled
from seitpp.finetune.probe import ProbeConfig, probe
from seitpp.finetune.train import FinetuneConfig, finetune
from seitpp.mtm.augmentation.augment import Augment
from seitpp.mtm.encoder import fitting_view
from seitpp.mtm.pretrain import PretrainConfig, pretrain
from seitpp.runtime.command import parse, run_command
from seitpp.runtime.config import StageConfig, require, require_each_once
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import replacing
from seitpp.runtime.locations import Location
from seitpp.runtime.ownership import is_run
from seitpp.runtime.results import write_results
from seitpp.runtime.run_content import remove_checkpoints, remove_empty, remove_run
from seitpp.runtime.run_folder import RunFolder
from seitpp.runtime.steps.runner import StepRunner, forget_steps
from seitpp.runtime.steps.step import Step
from seitpp.runtime.weights import fingerprint_of
from seitpp.tokenadapt.model import load_token_adapt
from seitpp.tokenizers.sources.images import open_image_folder
from seitpp.tokenizers.sources.source import source_fingerprint
from seitpp.tokenizers.tokenize_job import remove_job
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.reading import TABLE_FIELDS, ReadsLabels, label_words
from seitpp.tokens.subset import remove_subset, write_subset

Recipe = TypeVar("Recipe")
STAGES = {
    "pretrain": (PretrainConfig, pretrain),
    "finetune": (FinetuneConfig, finetune),
    "probe": (ProbeConfig, probe),
    "robustness": (RobustnessConfig, measure_robustness),
}
"""What each step's command starts."""
TABLE = "ablation.csv"
MAY_CHANGE = ("seeds", "label_fractions", "lanes")


@dataclass(frozen=True, kw_only=True)
class AblationConfig(StageConfig, ReadsLabels):
    """Train from scratch and with each ingredient of pre-training, and compare."""

    store: Location
    """token store to learn from: all of it in pre-training, its labels in probe and fine-tuning"""
    eval_store: Location
    """token store to measure on"""
    dataset: str = "classification"
    """name of this data set and task in results"""
    token_adapt: Location | None = None
    """run or weights of TokenAdapt; the ingredients tokenadapt and all need it"""
    ingredients: tuple[str, ...] = tuple(INGREDIENTS)
    """what to compare: scratch, mtm (plain), tokenadapt, coloradapt, all (MTM with both)"""
    label_fractions: tuple[float, ...] = (1.0, 0.2)
    """fractions of the labels to learn from"""
    seeds: int = 3
    """repetitions: seed, seed + 1, …"""
    pretrain: Location = "demo"
    """recipe of seitpp.mtm.pretrain, name or path. Its augmentation counts, but for TokenAdapt, which comes from
    `token_adapt`, and ColorAdapt, which is on at its `color_adapt` for the ingredients that have it"""
    finetune: Location = "demo"
    """recipe of seitpp.finetune.train, name or path; the encoder from scratch is that of the pre-training recipe"""
    probe: Location | None = None
    """recipe of seitpp.finetune.probe, name or path; its features do not count. None: the defaults"""
    images: Location | None = None
    """folder of the evaluation store's images, to measure robustness on; None: not measured"""
    tokenizer: Location | None = None
    """run or weights of the stores' tokenizer, for robustness"""
    domains: dict[str, Location] = field(default_factory=dict)
    """other folders with the same classes, for robustness: name to folder"""
    lanes: int | None = None
    """trainings at a time; None: one on a GPU, one a core without"""
    quick: bool = False
    """a few steps of everything: it shows that all runs, not what it reaches"""

    def __post_init__(self):
        super().__post_init__()
        require_ingredients(self)
        require_each_once(self, "ingredients", "label_fractions")
        require(self, "label_fractions", all(0 < each <= 1 for each in self.label_fractions), "must lie in (0, 1]")
        require(self, "seeds", self.seeds >= 1, "must be at least 1")
        require(self, "lanes", self.lanes is None or self.lanes >= 1, "must be at least 1")
        require(self, "images", self.images is None or self.tokenizer, "needs --tokenizer")
        require(self, "domains", not self.domains or self.images, "needs --images")

    @property
    def all_seeds(self) -> range:
        """The seeds, a range."""
        return range(self.seed, self.seed + self.seeds)


def main(config: AblationConfig) -> None:
    """Check that everything fits together, run the steps, write the tables."""
    train_set, test_set, recipes = read_inputs(config)
    known = fingerprints(train_set, test_set)
    known["data"] |= _further_fingerprints(config, recipes)
    run = RunFolder(config, stage="downstream.ablation", may_change=MAY_CHANGE, **known)
    run.begin()
    if config.resume == "none":
        forget_runs(run.path, TABLE)
    for seed in config.all_seeds:
        for fraction in [each for each in config.label_fractions if each < 1]:
            write_fraction(folder_of(config, seed, fraction, "labels"), train_set, fraction, seed=seed)
    lanes = config.lanes or usual_lanes()
    StepRunner(make_steps(config, recipes), run.path, lanes=lanes, on_finish=drop_checkpoints, call=run_step).run()
    results = gather(config)
    table = ablation_table(results)
    write_results(run.path, results)
    with replacing(run.path / TABLE) as temporary:
        table.to_csv(temporary, index=False)
    run.finish({"results": len(results)})
    shown = table[table.metric == "accuracy"].drop(columns=["metric", "train_images"])
    print(f"\n{shown.to_string(index=False, float_format='{:.3f}'.format)}\n")
    print(f"{run.path}: results.csv and ablation.csv are written. seitpp report {run.path} makes a page of them")


def run_step(step: Step) -> None:
    """Do in this process what a step's command does: call the stage's function."""
    _, stage, *words = step.command
    config_class, function = STAGES[stage]
    function(parse(config_class, words, recipes=stage))


def read_inputs(config: AblationConfig) -> tuple[LabelledRows, LabelledRows, Recipes]:
    """Everything that the steps will read, opened once, so that what does not fit is said before anything runs.

    Args:
        config: an AblationConfig.
    Returns: (LabelledRows to learn from, LabelledRows to measure on, Recipes).
    Raises: UserError naming what does not fit.
    """
    needing = [name for name in config.ingredients if "TokenAdapt" in INGREDIENTS[name]]
    if needing and config.token_adapt is None:
        others = ", ".join(name for name in config.ingredients if name not in needing)
        raise UserError(
            f"the ingredient {needing[0]} needs --token_adapt, a run of seitpp train-tokenadapt; "
            f"without it: --ingredients '[{others}]'"
        )
    stores = ["--store", config.store, "--eval_store", config.eval_store]
    pretraining = recipe_of(config, "pretrain", PretrainConfig, stores)
    finetuning = recipe_of(config, "finetune", FinetuneConfig, [*stores, *label_words(config)])
    probing = recipe_of(config, "probe", ProbeConfig, [*stores, "--features", "[random]"])
    train_set, test_set = open_train_and_test(finetuning)
    store = train_set.store
    if "://" in config.store and min(config.label_fractions) < 1:
        raise UserError(
            f"{config.store}: fractions of the labels need a store on this machine; or give --label_fractions '[1]'"
        )
    view = fitting_view(pretraining.view, store.grid, pretraining.model.encoder.patch_size, store.geometry)
    for ingredient in config.ingredients:
        augment = augment_of(ingredient, pretraining.augment, config.token_adapt)
        Augment(augment, store=store, view=view, device="cpu")
        if "ColorAdapt" in INGREDIENTS[ingredient] and not augment.color_adapt:
            raise UserError(
                f"the recipe {config.pretrain} has no ColorAdapt to switch on for {ingredient}: give it "
                f"`augment: {{color_adapt: …}}` above 0, or leave {ingredient} out of --ingredients"
            )
    if config.images is not None:
        _check_robustness(config, train_set)
    parts = {each: part_of(train_set, each, seed=config.seed) for each in config.label_fractions}
    for part in parts.values():
        split_labelled(part, probing.held_out, seed=config.seed)
    labelled = {each: len(part.rows) for each, part in parts.items()}
    recipes = Recipes(
        pretrain=pretraining, finetune=finetuning, probe=probing, view=view, images=len(store), labelled=labelled
    )
    return train_set, test_set, recipes


def part_of(labelled: LabelledRows, fraction: float, *, seed: int) -> LabelledRows:
    """A fraction of each class, LabelledRows; a smaller one of the same seed lies within a larger one."""
    return labelled if fraction == 1 else split_labelled(labelled, fraction, seed=seed)[1]


def write_fraction(folder: str | Path, labelled: LabelledRows, fraction: float, *, seed: int) -> None:
    """Write a fraction of the labelled rows as a store, without copying any.

    Args:
        folder: of the store.
        labelled: LabelledRows.
        fraction: of each class, in (0, 1).
        seed: of the choice.
    """
    rows = part_of(labelled, fraction, seed=seed).rows
    write_subset(folder, labelled.store, rows, how={"fraction": fraction, "by": "class", "seed": seed})


def recipe_of(config: Any, stage: str, config_class: type[Recipe], words: Sequence[str]) -> Recipe:
    """A stage's configuration as its recipe resolves, or its defaults.

    Args:
        config: has a field of the stage's name, which names the recipe, and `output_dir`.
        stage: name of the stage.
        config_class: its configuration.
        words: flags besides.
    Raises: UserError naming recipe and fault.
    """
    name = getattr(config, stage)
    recipe = [] if name is None else ["--config", name]
    try:
        return parse(config_class, [*recipe, *words, "--output_dir", config.output_dir], recipes=stage)
    except UserError as error:
        raise UserError(f"--{stage} {name}: {error}") from error


def _check_robustness(config, train_set):
    from importlib.util import find_spec

    if find_spec("imagecorruptions") is None:
        raise UserError("robustness needs its extra: pip install 'seitpp[robustness]'; or leave out --images")
    for folder in (config.images, *config.domains.values()):
        open_image_folder(folder, train_set.classes)
    made_by = train_set.store.tokenizer["fingerprint"]
    tokenizer = load_tokenizer(config.tokenizer, fingerprint=made_by)
    what = f"the tokenizer in {config.tokenizer}"
    train_set.store.check_tokenizer(tokenizer.fingerprint, what, tokenizer.codebook_size)
    check_corruptions(RobustnessConfig.corruptions, tokenizer.image_size, "leave out --images")


def _further_fingerprints(config, recipes):
    """Of recipes and TokenAdapt: finished steps are not run again, so these must be what they were, too."""
    places = {"output_dir", "store", "eval_store", *TABLE_FIELDS}
    found = {}
    for name in ("pretrain", "finetune", "probe"):
        resolved = {key: value for key, value in asdict(getattr(recipes, name)).items() if key not in places}
        found[name] = hashlib.sha256(json.dumps(resolved).encode()).hexdigest()
    if config.token_adapt is not None:
        found["token_adapt"] = fingerprint_of(load_token_adapt(config.token_adapt)[0].state_dict(), {})
    if config.images is not None:
        found["images"] = source_fingerprint(open_image_folder(config.images))
    for name, folder in config.domains.items():
        found[f"domains.{name}"] = source_fingerprint(open_image_folder(folder))
    return found


def forget_runs(folder: Path, table: str) -> None:
    """Remove the runs in a folder's seed-…, the record of its steps and its table; what else lies among them stays."""
    for seed in folder.glob("seed-*"):
        for parent, _, _ in os.walk(seed, topdown=False):
            path = Path(parent)
            remove_subset(path)
            remove_job(path)
            remove_run(path)
    forget_steps(folder)
    remove_empty(folder / "logs")
    (folder / table).unlink(missing_ok=True)


def drop_checkpoints(step: Step) -> None:
    """Remove what a finished step would have gone on from: dozens of runs would fill a disk."""
    for parent, _, _ in os.walk(folder_of_step(step)):
        if is_run(parent):
            remove_checkpoints(Path(parent))


def usual_lanes() -> int:
    """Trainings at a time: one on a GPU, one a core without."""
    return 1 if torch.cuda.is_available() else os.cpu_count() or 1


def cli() -> None:
    """Run the stage from the command line."""
    run_command(main, AblationConfig, recipes="ablation")


if __name__ == "__main__":
    cli()
