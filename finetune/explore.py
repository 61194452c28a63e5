"""Look at a feature space: nearest neighbours of a few test images, and a map of many in two dimensions.

    seitpp explore --store stores/train --eval_store stores/test --weights runs/mtm --output_dir runs/explore
    seitpp explore --weights runs/finetune --tokenizer runs/tokenizer …        neighbours as pictures, decoded
    accelerate launch -m seitpp.finetune.explore --weights runs/mtm --method pca …

Features are those of `seitpp probe`, made by all processes into files that it finds again (--features_folder); the
rest is the main process's. Neighbours are training images; a test image that lies in the training set too shows as one
of similarity 1. The run folder gets

    neighbours.csv, .png   the nearest training images of each query, and pictures where --tokenizer or images are given
    feature_map.csv        key, class, x and y of test rows
    results.csv            neighbour_agreement: how many of a test row's nearest training rows are of its class
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from seitpp.finetune.exploring import Pictures, look, open_pictures
from seitpp.finetune.labelled import fingerprints, open_train_and_test, row_counts
from seitpp.finetune.load import model_folder
from seitpp.finetune.probing.encoders import feature_origin, trained_encoder
from seitpp.finetune.probing.feature_file import feature_file
from seitpp.finetune.probing.feature_map import Way
from seitpp.finetune.probing.feature_set import FeatureSet
from seitpp.finetune.probing.features import FrozenEncoder, Layout, encoder_recipe
from seitpp.runtime.command import run_command
from seitpp.runtime.config import StageConfig, require
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.fingerprints import weights_fingerprint
from seitpp.runtime.locations import Location
from seitpp.runtime.processes import Processes
from seitpp.runtime.results import Result, write_results
from seitpp.runtime.run_folder import open_run
from seitpp.tokens.reading import ReadsLabels, ReadsStores
from seitpp.tokens.remote import CacheConfig


@dataclass(frozen=True, kw_only=True)
class ExploreConfig(StageConfig, ReadsStores, ReadsLabels):
    """Look at a feature space: neighbours of a few test images, and a map of many."""

    store: Location
    """token store with labels whose images are the neighbours"""
    eval_store: Location
    """token store with labels whose images ask for neighbours and are mapped"""
    weights: Location
    """run or weights of seitpp.mtm.pretrain, or of seitpp.finetune.train"""
    cache: CacheConfig = field(default_factory=CacheConfig)
    """how stores behind a URL are read"""
    dataset: str = "classification"
    """name of this data set and task in results"""
    tokenizer: Location | None = None
    """run or weights of the stores' tokenizer: neighbours are drawn as it decodes them"""
    images: Location | None = None
    """without a tokenizer: folder that `store` was made of, to draw neighbours"""
    eval_images: Location | None = None
    """likewise for `eval_store`"""
    queries: int = 8
    """test images that neighbours are shown of, of as many classes as there are; the rest is chance, by the seed"""
    neighbours: int = 6
    """of each, and of each mapped row for the agreement"""
    map_rows: int = 2000
    """test rows in the map, by chance; t-SNE of 2,000 takes half a minute of one core"""
    method: Way = "tsne"
    """of the map: tsne (who is near whom), of the first 50 principal components; pca (the first two of them)"""
    perplexity: float = 30.0
    """of t-SNE: about how many neighbours a row has; at most a third of the rows"""
    features_folder: str | None = None
    """where files of features are kept and found again, by runs that share it; None: in the run folder"""
    batch_size: int = 256
    """images per forward pass"""
    mixed_precision: Literal["auto", "no", "bf16"] = "auto"
    """precision of the encoder's pass, as in a training; auto: bf16 on a GPU"""

    def __post_init__(self):
        super().__post_init__()
        for name in ("queries", "neighbours", "batch_size"):
            require(self, name, getattr(self, name) >= 1, "must be at least 1")
        require(self, "map_rows", self.map_rows >= 2, "must be at least 2")
        require(self, "perplexity", self.perplexity > 0, "must be above 0")
        both = (self.images is None) == (self.eval_images is None)
        require(self, "images", both, "but --images and --eval_images belong together: neighbours lie in both")


def explore(config: ExploreConfig) -> None:
    """Make features, write neighbours, map and results."""
    accelerator = make_accelerator(config.mixed_precision)
    team = Processes(accelerator)
    sets = team.agree(lambda: open_train_and_test(config))
    encoder, _, tokenizer, codes = team.agree(lambda: trained_encoder(config.weights))
    team.agree(lambda: sets[0].store.check_tokenizer(tokenizer, f"the model in {config.weights}", codes))
    pictures: Pictures = team.agree(lambda: open_pictures(config, sets, accelerator.device))
    known = fingerprints(*sets)
    known["data"] |= {"weights": weights_fingerprint(model_folder(config.weights)), **pictures.fingerprints}
    may_change = ("features_folder", "batch_size")
    run = open_run(config, accelerator, stage="finetune.explore", may_change=may_change, **known)
    if run.finished:
        accelerator.print(f"{run.path}: finished before, nothing to do")
        return
    run.begin()
    frozen = FrozenEncoder(encoder, sets[0].store, device=accelerator.device, autocast=accelerator.autocast)
    layout, folder = Layout(), config.features_folder or Path(config.output_dir) / "features"
    features = []
    for each in sets:
        recipe = encoder_recipe(frozen, each.store, layout, precision=accelerator.mixed_precision)
        made = feature_file(
            folder, recipe, rows=len(each.store), batch_size=config.batch_size, team=team, title="features"
        )
        features.append(FeatureSet(layout.pick(made), each))
    told = team.from_main(lambda: look(*features, config, pictures, device=accelerator.device))
    if accelerator.is_main_process:
        counts = row_counts(*sets) | {"test_images": told["feature_map"]["rows"]}
        agreement = Result(
            dataset=config.dataset, metric="neighbour_agreement", value=told["neighbour_agreement"], seed=config.seed,
            protocol=f"knn{told['neighbours']}", **feature_origin("mtm", config.weights), **counts,
            run=config.output_dir,
        )  # fmt: skip
        write_results(run.path, [agreement])
        run.finish(told)
        print(
            f"{config.dataset}: {told['neighbour_agreement']:.3f} of the {told['neighbours']} nearest training images "
            f"are of a test image's class ({run.path}/neighbours.csv, feature_map.csv)"
        )
    accelerator.end_training()


def cli() -> None:
    """Run the stage from the command line."""
    run_command(explore, ExploreConfig, recipes="explore")


if __name__ == "__main__":
    cli()
