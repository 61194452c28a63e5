"""Probes of frozen features, with the simple baselines that they must beat.

    seitpp probe --store stores/train --eval_store stores/test --weights runs/mtm --output_dir runs/probe
    seitpp probe --weights runs/mtm … --protocols '[linear, knn, linear_grid, attentive]' --shots '[1, 5]'
    accelerate launch -m seitpp.finetune.probe --config vit_base --weights runs/mtm …

Features are made once, by all processes, into a file that is found again by what it is of. What is chosen (C, a head
of a grid) is chosen on a held-out part of the training set; nothing reads a label of the test set before it measures.

    linear        logistic regression on the last block's mean over patches
    knn           k nearest neighbours by cosine on the same
    linear_grid   linear heads of several learning rates, decays and inputs, trained at once
    attentive     heads that attend to the patches of the last block, likewise; the encoder runs along
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from seitpp.finetune.labelled import fingerprints, open_train_and_test
from seitpp.finetune.load import model_folder
from seitpp.finetune.probing.heads import HeadsConfig
from seitpp.finetune.probing.logistic import Solver
from seitpp.finetune.probing.protocols import Probing
from seitpp.mtm.augmentation.augment import AugmentConfig, check_geometry
from seitpp.mtm.encoder import EncoderConfig, fitting_view
from seitpp.runtime.command import run_command
from seitpp.runtime.config import StageConfig, require
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.errors import UserError
from seitpp.runtime.fingerprints import weights_fingerprint
from seitpp.runtime.locations import Location
from seitpp.runtime.results import write_results
from seitpp.runtime.run_folder import open_run
from seitpp.tokenizers.sources.images import open_image_folder
from seitpp.tokenizers.sources.source import source_fingerprint
from seitpp.tokens.reading import ReadsLabels, ReadsStores
from seitpp.tokens.remote import CacheConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

FEATURES = ("mtm", "random", "bag-of-tokens", "pixels", "majority")
"""The encoder of `weights`, the same before any training, counts of codes, 16 x 16 pixels, and none at all."""
Protocol = Literal["linear", "knn", "linear_grid", "attentive"]


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(StageConfig, ReadsStores, ReadsLabels):
    """Linear and attentive probes and k-NN on frozen features."""

    store: Location
    """token store with labels to learn from"""
    eval_store: Location
    """token store to measure on"""
    cache: CacheConfig = field(default_factory=CacheConfig)
    """how stores behind a URL are read"""
    dataset: str = "classification"
    """name of this data set and task in results"""
    weights: Location | None = None
    """run or weights of seitpp.mtm.pretrain, or of seitpp.finetune.train; needed for the feature `mtm`"""
    features: tuple[str, ...] = ("mtm",)
    """what to probe: mtm (the encoder of `weights`), random (the same encoder at its start), bag-of-tokens, pixels
    (16 x 16), majority (no features: the commonest class)"""
    protocols: tuple[Protocol, ...] = ("linear", "knn")
    """how to probe encoders; other features get linear alone"""
    images: Location | None = None
    """folder that `store` was made of; needed for the feature `pixels`"""
    eval_images: Location | None = None
    """folder that `eval_store` was made of; needed for the feature `pixels`"""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """shape of a random encoder where no weights are given"""
    view: tuple[int, int] | None = None
    """tokens (h, w) that such an encoder sees; None: all"""
    held_out: float = 0.2
    """fraction of the training set that C and heads are chosen on"""
    inverse_regularisation: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    """values of C to choose from"""
    logistic_solver: Solver = "auto"
    """scikit-learn: in memory; device: L-BFGS in chunks, by all processes; auto: scikit-learn for small sets"""
    logistic_iterations: int = 300
    """of L-BFGS at most: plenty for what is compared"""
    neighbours: tuple[int, ...] = (10, 20, 100, 200)
    """values of k; those above the number of training rows are left out, but for the smallest"""
    heads: HeadsConfig = field(default_factory=HeadsConfig)
    """grids of linear and attentive heads"""
    augmented: bool = False
    """whether heads learn from augmented views, as `augment` makes them, for which the encoder runs at each step;
    else from the centre of the grids"""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """how augmented views are made"""
    label_fractions: tuple[float, ...] = ()
    """further measures of linear and knn with fractions of the labels, such as 0.01 and 0.1, class by class"""
    shots: tuple[int, ...] = ()
    """likewise with so many labels a class"""
    label_seeds: int = 3
    """choices of these labels: seed, seed + 1, …"""
    features_folder: str | None = None
    """where files of features are kept and found again, by runs that share it; None: in the run folder"""
    batch_size: int = 256
    """images per forward pass"""
    mixed_precision: Literal["auto", "no", "bf16"] = "auto"
    """precision of an encoder's pass, as in a training; auto: bf16 on a GPU"""

    def __post_init__(self):
        super().__post_init__()
        for name in self.features:
            require(self, "features", name in FEATURES, f"has {name!r}; known: {', '.join(FEATURES)}")
        require(self, "features", "mtm" not in self.features or self.weights, "has mtm: --weights is needed")
        if "pixels" in self.features and not (self.images and self.eval_images):
            raise UserError("the feature pixels needs --images and --eval_images")
        require(self, "protocols", self.protocols, "must name one at least")
        require(self, "held_out", 0 < self.held_out < 1, "must lie in (0, 1)")
        known = self.inverse_regularisation and all(each > 0 for each in self.inverse_regularisation)
        require(self, "inverse_regularisation", known, "must have values above 0")
        valid = self.neighbours and all(each >= 1 for each in self.neighbours)
        require(
            self, "neighbours", valid, "must have values of at least 1; to leave k-NN out, leave it out of protocols"
        )
        require(self, "label_fractions", all(0 < each < 1 for each in self.label_fractions), "must lie in (0, 1)")
        require(self, "shots", all(each >= 1 for each in self.shots), "must be at least 1")
        for name in ("logistic_iterations", "label_seeds", "batch_size"):
            require(self, name, getattr(self, name) >= 1, "must be at least 1")


def probe(config: ProbeConfig) -> None:
    """Probe each kind of feature, write results.csv."""
    accelerator = make_accelerator(config.mixed_precision)
    probe_features(config, accelerator)
    accelerator.end_training()


def probe_features(config: ProbeConfig, accelerator: "Accelerator", *, metrics: Sequence[str] = ("accuracy",)) -> None:
    """What `probe` does, within a stage that goes on afterwards; a finished run is not measured again.

    Args:
        config: a ProbeConfig.
        accelerator: of its precision.
        metrics: what is noted of each probe of an encoder: accuracy, mean_per_class.
    """
    train_set, test_set = open_train_and_test(config)
    store = train_set.store
    if config.augmented:
        check_geometry(config.augment, store)
    if config.weights is None and "random" in config.features:
        fitting_view(config.view, store.grid, config.encoder.patch_size, store.geometry)
    known = fingerprints(train_set, test_set)
    known["data"] |= _further_fingerprints(config)
    unread = () if "pixels" in config.features else ("images", "eval_images")
    run = open_run(config, accelerator, stage="finetune.probe", may_change=("features_folder", *unread), **known)
    if run.finished:
        accelerator.print(f"{run.path}: finished before, nothing to do")
        return
    run.begin()
    probing = Probing(config, accelerator, train_set, test_set, metrics)
    for name in config.features:
        probing.measure(name)
    if accelerator.is_main_process:
        write_results(run.path, probing.results)
        run.finish(probing.summary())
        for line in probing.lines():
            print(line)


def _further_fingerprints(config):
    """Of the weights and of the images of pixels; those that no feature reads may be gone."""
    weights, pixels = config.weights, "pixels" in config.features
    folders = {"images": config.images, "eval_images": config.eval_images} if pixels else {}
    return {
        "weights": weights and weights_fingerprint(model_folder(weights)),
        **{name: source_fingerprint(open_image_folder(folder)) for name, folder in folders.items()},
    }


def cli() -> None:
    """Run the stage from the command line."""
    run_command(probe, ProbeConfig, recipes="probe")


if __name__ == "__main__":
    cli()
