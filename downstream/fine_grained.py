"""Transfer to other data sets: each is tokenised once, then an encoder is probed and fine-tuned on it, over seeds.

    seitpp fine-grained --sets '[cub, pets]' --data DATA_ROOT --weights runs/mtm --tokenizer runs/tokenizer \
        --output_dir runs/fine-grained
    seitpp fine-grained --folders '{mine: {train: photos/train, test: photos/test}}' --weights runs/mtm …
    accelerate launch -m seitpp.downstream.fine_grained --config vit_base …      shards and batches are divided

Known sets are cub, flowers, cars, aircraft, pets, food101, dtd, sun397, caltech101, inat2018, inat2019, cifar10 and
cifar100, read from the files that their authors publish, by the official split and metric (docs/fine-grained.md).
Everything is checked before anything runs: what is missing of any set is said at once, and nothing was written then.

    results.csv         every measured number, a row
    fine_grained.csv    a row a set and method: its official metric, mean and deviation over seeds
    sets/NAME/…         the runs of a set

The stores are kept, and used by other runs where --stores names the same folder. To resume, rerun the same command; it
may name more sets, of which only the new ones run.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from seitpp.downstream.benchmarks.checked import CheckedSet, open_sets
from seitpp.downstream.benchmarks.download import download
from seitpp.downstream.benchmarks.sets import choose_sets, read_sets
from seitpp.downstream.fine_grained_methods import Recipes, measure_set, read_recipes
from seitpp.downstream.fine_grained_table import fine_grained_table, results_of
from seitpp.runtime.command import run_command
from seitpp.runtime.config import StageConfig, require
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import replacing
from seitpp.runtime.locations import Location
from seitpp.runtime.processes import Processes
from seitpp.runtime.results import write_results
from seitpp.runtime.run_folder import RunFolder, open_run
from seitpp.tokenizers.kept_stores import kept_fingerprint, kept_job, make_kept_stores
from seitpp.tokenizers.tokenize_job import TokenizeJob
from seitpp.tokenizers.tokenizer import Tokenizer, load_tokenizer

PARTS = ("train", "test")
_TABLE = "fine_grained.csv"


@dataclass(frozen=True, kw_only=True)
class OwnFolders:
    """Images of one's own, divided."""

    train: Location
    """folder of class folders to learn from, or what else seitpp tokenize takes"""
    test: Location
    """likewise, to measure on: its classes are among those of `train`"""


@dataclass(frozen=True, kw_only=True)
class FineGrainedConfig(StageConfig):
    """Probe and fine-tune an encoder on a list of data sets."""

    sets: tuple[str, ...] = ()
    """known sets: cub, flowers, cars, aircraft, pets, food101, dtd, sun397, caltech101, inat2018, inat2019, cifar10,
    cifar100"""
    data: Location | None = None
    """folder in which the folders of these sets lie, such as CUB_200_2011; needed for `sets`"""
    folders: dict[str, OwnFolders] = field(default_factory=dict)
    """sets of your own, measured by accuracy: name to {train: FOLDER, test: FOLDER}"""
    download: bool = False
    """whether sets that are missing in `data` are fetched from their authors first; not all can be"""
    table: Location | None = None
    """CSV to use instead of the package's table of sets, downstream/benchmarks/sets.csv: other classes or images of the
    same layouts"""
    tokenizer: Location
    """run or weights of the tokenizer that the weights belong to"""
    weights: Location | None = None
    """run or weights of seitpp.mtm.pretrain, or of a classifier; None: only from scratch"""
    scratch: bool = False
    """whether the same network is measured from scratch, too: trained on labels alone, and probed as it is drawn"""
    methods: tuple[Literal["probe", "finetune"], ...] = ("probe", "finetune")
    """what is done on each set"""
    probe: Location | None = None
    """recipe of seitpp.finetune.probe, name or path; its features do not count. None: the defaults"""
    finetune: Location = "demo"
    """recipe of seitpp.finetune.train, name or path; its seeds do not count, nor does its encoder where there are
    weights"""
    seeds: int = 3
    """fine-tunings of each set: seed, seed + 1, …"""
    stores: Location | None = None
    """folder of the token stores of all sets, which other runs may share; None: stores/ in the run folder"""
    batch_size: int = 128
    """images per forward pass of the tokenizer; recipes have their own"""
    max_skipped: float = 0.0
    """fraction of a part's images that may fail to decode; they are listed in its store's skipped.csv"""

    def __post_init__(self):
        super().__post_init__()
        require(self, "sets", len(set(self.sets)) == len(self.sets), "must name each once")
        require(self, "sets", not self.sets or self.data, "needs --data, the folder in which the sets lie")
        for name in self.folders:
            fits = name and name == Path(name).name and name[0] != "." and name not in self.sets
            require(self, "folders", fits, f"has {name!r}: choose a name without / that is not among --sets")
        require(self, "methods", 0 < len(set(self.methods)) == len(self.methods), "must name one or more, each once")
        require(self, "resume", self.resume in ("auto", "none"), "must be auto or none")
        require(self, "seeds", self.seeds >= 1, "must be at least 1")
        require(self, "batch_size", self.batch_size >= 1, "must be at least 1")
        require(self, "max_skipped", 0 <= self.max_skipped <= 1, "must lie in [0, 1]")

    @property
    def names(self) -> list[str]:
        """Of all sets."""
        return [*self.sets, *self.folders]


def measure_fine_grained(config: FineGrainedConfig) -> None:
    """Check all sets, tokenise what is missing, probe and fine-tune on each, write the tables."""
    accelerator = make_accelerator("no")
    processes = Processes(accelerator)
    recipes = processes.agree(lambda: read_recipes(config))
    sets = _opened(config, processes)
    tokenizer = processes.agree(
        lambda: load_tokenizer(config.tokenizer, accelerator.device, fingerprint=recipes.tokenizer)
    )
    processes.agree(lambda: recipes.check(tokenizer))
    prints = processes.from_main(lambda: _fingerprints(sets, tokenizer))
    run = open_run(config, accelerator, stage="downstream.fine_grained", **_inputs(config, recipes, tokenizer, prints))
    if run.finished and set(config.names) <= set(run.summary.get("sets", {})):
        accelerator.print(f"{run.path}: finished before, nothing to do")
        return
    run.begin()
    folder = Path(config.stores or run.path / "stores")
    jobs = [
        _job(config, folder / f"{each.name}-{part}-{prints[each.name, part][:12]}", each, part, tokenizer)
        for each in sets
        for part in PARTS
    ]
    stores = make_kept_stores(jobs, folder, processes, accelerator.device)
    for place, each in enumerate(sets):
        train, test = stores[2 * place : 2 * place + 2]
        measure_set(config, each.name, recipes, train, test, processes)
    if processes.is_main:
        _write_tables(config, run, sets)
    accelerator.end_training()


def _opened(config: FineGrainedConfig, processes: Processes) -> list[CheckedSet]:
    """The sets, downloaded where that is asked for, and checked."""
    require(config, "sets", config.names, "and folders name nothing: name a set")
    wanted = processes.agree(lambda: choose_sets(config.sets, read_sets(config.table)))
    if config.download:
        processes.from_main(lambda: download(wanted, config.data or "."))
    own = {name: (each.train, each.test) for name, each in config.folders.items()}
    return processes.agree(lambda: open_sets(wanted, config.data, own))


def _fingerprints(sets: list[CheckedSet], tokenizer: Tokenizer) -> dict[tuple[str, str], str]:
    """{(set, part): of its store}."""
    return {
        (each.name, part): kept_fingerprint(getattr(each.images, part), tokenizer) for each in sets for part in PARTS
    }


def _inputs(
    config: FineGrainedConfig, recipes: Recipes, tokenizer: Tokenizer, prints: dict[tuple[str, str], str]
) -> dict[str, Any]:
    """Arguments of the RunFolder. Which sets there are may change, but not what one of a name is."""
    own = [f"folders.{name}.{part}" for name in config.folders for part in PARTS]
    images = {
        f"folders.{name}.{part}" if name in config.folders else f"set.{name}.{part}": value
        for (name, part), value in prints.items()
    }
    return {
        "inputs": {"tokenizer": tokenizer.fingerprint},
        "data": {**recipes.fingerprints(), **images},
        "may_change": ("sets", "data", "folders", *own, "download", "table", "stores", "batch_size", "max_skipped"),
    }


@dataclass(frozen=True, kw_only=True)
class _StoreOf:
    """What `kept_job` asks a stage's configuration for."""

    images: str
    tokenizer: str
    batch_size: int
    max_skipped: float
    resume: str


def _job(config: FineGrainedConfig, folder: Path, each: CheckedSet, part: str, tokenizer: Tokenizer) -> TokenizeJob:
    details = _StoreOf(
        images=each.place, tokenizer=config.tokenizer, batch_size=config.batch_size, max_skipped=config.max_skipped,
        resume=config.resume,
    )  # fmt: skip
    return kept_job(details, folder, getattr(each.images, part), tokenizer)


def _write_tables(config: FineGrainedConfig, run: RunFolder, sets: list[CheckedSet]) -> None:
    results = results_of(run.path, [each.name for each in sets], config.methods)
    table = fine_grained_table(results, {each.name: each.metric for each in sets})
    if table.empty:
        raise UserError(f"{run.path} has no results, though all its runs are finished: start afresh with --resume none")
    write_results(run.path, results)
    with replacing(run.path / _TABLE) as temporary:
        table.to_csv(temporary, index=False)
    run.finish({"sets": {each.name: each.metric for each in sets}, "results": len(results)})
    shown = table.drop(columns=["augmentation", "train_images"])
    print(f"\n{shown.to_string(index=False, float_format='{:.3f}'.format)}\n")
    print(f"{run.path}: {len(sets)} sets are measured, see results.csv and {_TABLE}")


def cli() -> None:
    """Run the stage from the command line."""
    run_command(measure_fine_grained, FineGrainedConfig, recipes="fine_grained")


if __name__ == "__main__":
    cli()
