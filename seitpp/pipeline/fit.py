"""From a folder of photographs to a model in use, with one command.

    seitpp fit photos --output_dir runs/mine                              a folder a class; or train/ and test/ of such
    seitpp fit photos --output_dir runs/mine --dry_run true               time, memory and disk of each step, measured
    seitpp fit photos --labels birds.csv --output_dir runs/birds          classes from a table with columns key,label
    seitpp fit photos --unlabelled true --output_dir runs/features        no classes: features and completions
    seitpp fit photos --tokenizer tokenizers/movq --output_dir runs/mine  a tokenizer that is there, also hf://OWNER/NAME

It splits the images (look-alikes on one side) unless they are split, trains a tokenizer, makes tokens, trains
TokenAdapt, pre-trains by masked token modelling, trains a classifier from that and from scratch, probes, measures,
and writes a report and a bundle. Sizes are chosen by what is there (`seitpp.pipeline.sizes` has the rules). Every
step is a command that is printed before it runs. To resume, rerun the same command.

    runs/mine/fit.json      of what, what was found, and the sizes that were chosen
    runs/mine/images/       train and test: links, the images stay as they are
    runs/mine/report.html   the page
    runs/mine/bundle/       tokenizer and model: seitpp.load("runs/mine").predict("cat.jpg")
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seitpp.pipeline.facts import Facts, grid_of
from seitpp.pipeline.given import Given, divide_given, open_given
from seitpp.pipeline.hub_tokenizer import local_tokenizer
from seitpp.pipeline.sizes import Sizes, plan
from seitpp.pipeline.split import SplitConfig
from seitpp.pipeline.steps import Way, fit_steps
from seitpp.pipeline.trial import as_lines, estimate
from seitpp.runtime.command import run_command
from seitpp.runtime.config import StageConfig, from_dict, require
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import make_folder, read_json, write_json
from seitpp.runtime.locations import Location, with_home
from seitpp.runtime.locks import lock_folder
from seitpp.runtime.ownership import is_fit
from seitpp.runtime.places import claim
from seitpp.runtime.positional import positional_field
from seitpp.runtime.schema import anything, read_described, record, table
from seitpp.runtime.steps.runner import StepRunner
from seitpp.tokenizers.sources.listing.left_out import sentence
from seitpp.tokenizers.tokenizer import load_tokenizer

FILE = "fit.json"
_MEND = "mend it, or choose another --output_dir"
LEAST = 16
"""Images that a fit needs."""


@dataclass(frozen=True, kw_only=True)
class FitConfig(StageConfig):
    """From a folder of images to a model in use: seitpp fit FOLDER --output_dir RUN."""

    images: tuple[str, ...] = positional_field()
    """the folder of images, written without a flag: one folder a class, or train/ and test/ (or val/) of such; images
    directly in it are unlabelled. It stays as it is"""
    labels: Location | None = None
    """CSV with columns key,label: classes of the images instead of their folders; key is the path from the folder"""
    class_level: int = 0
    """which of the folders above an image is its class: 0 the first below the folder, -1 the last"""
    unlabelled: bool = False
    """whether the folders in it are no classes: then features are learned, and no classifier"""
    test: float = 0.2
    """fraction of each class's images that is for testing, where they are not split"""
    tokenizer: Location | None = None
    """a tokenizer that is there: folder of seitpp train-tokenizer or import-tokenizer, or hf://OWNER/NAME of a bundle
    or tokenizer on the Hugging Face Hub; None: one is trained on the images"""
    dry_run: bool = False
    """whether only the plan is printed, with time, memory and disk of each step, measured on a few images and steps"""
    quick: bool = False
    """a few steps of everything: it shows that all runs, not what it reaches"""

    def __post_init__(self):
        super().__post_init__()
        require(self, "images", len(self.images) == 1, "must name one folder of images")
        require(self, "test", 0 < self.test < 1, "must lie in (0, 1)")
        require(self, "unlabelled", not (self.unlabelled and self.labels), "and labels exclude each other")
        require(self, "class_level", not (self.class_level and (self.labels or self.unlabelled)), "excludes the others")
        require(self, "resume", self.resume == "auto", "must be auto: to start afresh choose another --output_dir")


def fit_images(config: FitConfig) -> None:
    """Look at what is there, plan, split, run the steps, say what to do next."""
    folder = claim(config, is_fit, "what seitpp fit made")
    given = open_given(
        with_home(config.images[0]), labels=config.labels, unlabelled=config.unlabelled, class_level=config.class_level
    )
    tokenizer = None if config.tokenizer is None else local_tokenizer(config.tokenizer)
    facts, sizes = make_plan(config, given, tokenizer)
    print("\n".join(said(config, given, facts, sizes)), flush=True)
    if config.dry_run:
        estimates, tried = estimate(given, facts, sizes, tokenizer)
        print("\n".join(["", *as_lines(estimates, lanes=sizes.lanes, images=tried, gpus=facts.gpus)]))
        print(f"nothing was written to {folder}; without --dry_run it begins")
        return
    make_folder(folder)
    lock = lock_folder(folder)
    write_json(folder / FILE, {**described_as(config, given), "facts": asdict(facts), "sizes": asdict(sizes)})
    split = SplitConfig(
        images=config.images, output_dir=str(folder / "images"), test=config.test, labels=config.labels,
        unlabelled=config.unlabelled, class_level=config.class_level, seed=config.seed,
    )  # fmt: skip
    print("\n".join(["", *divide_given(given, folder / "images", split)]), flush=True)
    way = Way(folder=folder, images=folder / "images", sizes=sizes, tokenizer=tokenizer)
    labelled = facts.classes >= 2
    StepRunner(fit_steps(way, labelled=labelled), folder, lanes=sizes.lanes).run()
    lock.release()
    print("\n".join(farewell(folder, facts.test_images, labelled=labelled)))


def make_plan(config: FitConfig, given: Given, tokenizer: str | None) -> tuple[Facts, Sizes]:
    """What is there and the sizes for it; those of before where a fit goes on, maybe on another machine.

    Raises: UserError if there are too few images, the tokenizer can't be loaded, or the folder holds another fit.
    """
    facts = given.facts(config.test, None if tokenizer is None else grid_of(load_tokenizer(tokenizer)))
    if facts.images < LEAST or facts.test_images < 1:
        raise UserError(
            f"{config.images[0]} holds {facts.images} images to learn from and {facts.test_images} to test on: "
            f"a fit needs {LEAST} and one"
        )
    file = Path(config.output_dir) / FILE
    if not file.exists():
        return facts, plan(facts, quick=config.quick)
    there, here = read_described(file, record({"sizes": table(anything)}), _MEND), described_as(config, given)
    if there["images"] != here["images"]:
        raise UserError(f"{file.parent} holds a fit of other images, or they have changed: choose another --output_dir")
    other = [name for name, value in here["settings"].items() if there["settings"].get(name) != value]
    if other:
        raise UserError(f"{file.parent} holds another fit ({', '.join(other)} differ): choose another --output_dir")
    return from_dict(Facts, there["facts"], file), from_dict(Sizes, there["sizes"], file)


def described_as(config: FitConfig, given: Given) -> dict[str, Any]:
    """What tells a fit from others."""
    settings = {name: getattr(config, name) for name in ("unlabelled", "test", "tokenizer", "quick", "seed")}
    return {"images": given.fingerprint, "settings": settings}


def said(config: FitConfig, given: Given, facts: Facts, sizes: Sizes) -> list[str]:
    """Lines that open a fit: what was found, and what will be done."""
    split = "as it is split" if given.test else f"{config.test:.0%} of each class held out"
    lines = [
        f"{config.images[0]}: about {facts.images:,} images to learn from and {facts.test_images:,} to test on "
        f"({split}), {facts.classes} classes, short side {facts.side} pixels" + sentence(given.left_out)
    ]
    lines += given.train.notices
    if given.beside:
        lines.append(f"not read: {', '.join(given.beside)}")
    if facts.classes < 2:
        lines.append("fewer than two classes: features are learned, and no classifier")
    gpus = f"{facts.gpus} GPUs" if facts.gpus else "no GPU"
    lines.append(f"{facts.cores} cores, {gpus}, {facts.memory / 1e9:.1f} GB of memory")
    for stage, flags in sizes.flags.items():
        if config.tokenizer and stage == "train-tokenizer":
            continue
        chosen = ", ".join(f"{name} {value}" for name, value in flags.items())
        lines.append(f"  {stage}: recipe {sizes.recipes[stage]}, {chosen}")
    return lines


def farewell(folder: Path, tested: int, *, labelled: bool) -> list[str]:
    """Lines that end a fit: what came out, where it lies, the next command."""
    lines = [""]
    if labelled:
        tuned, scratch = (read_json(folder / name / "summary.json")["accuracy"] for name in ("finetune", "scratch"))
        lines.append(f"accuracy {tuned:.3f} on about {tested:,} test images, from scratch {scratch:.3f}")
    use = 'predict("cat.jpg")' if labelled else 'embed(["cat.jpg"])'
    lines += [
        f"the report: {folder / 'report.html'}",
        f'the model:  {folder / "bundle"}, in Python: seitpp.load("{folder}").{use}',
    ]
    if labelled:
        lines.append(f"next: seitpp predict cat.jpg --classifier {folder}")
    return lines


def cli() -> None:
    """Run the stage from the command line."""
    run_command(fit_images, FitConfig, recipes="fit")


if __name__ == "__main__":
    cli()
