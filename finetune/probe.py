"""Linear probe and k-NN on frozen features, with the simple baselines that they must beat.

    seitpp probe --store stores/train --eval_store stores/test --weights runs/mtm --output_dir runs/probe

Logistic regression (scikit-learn) on standardised features; its regularisation is chosen on a held-out part of the
training set, never on the test set.
"""

import warnings
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from seitpp.finetune.features import FEATURES, majority_accuracy, make_features
from seitpp.finetune.labelled import LabelledRows, fingerprints, open_train_and_test, row_counts, split_labelled
from seitpp.mtm.encoder import EncoderConfig
from seitpp.mtm.model import augmentation_of
from seitpp.runtime.command import run_command
from seitpp.runtime.config import StageConfig, require
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.errors import UserError
from seitpp.runtime.fingerprints import weights_fingerprint
from seitpp.runtime.locations import Location
from seitpp.runtime.progress import Progress
from seitpp.runtime.results import Result, write_results
from seitpp.runtime.run_folder import RunFolder
from seitpp.tokenizers.sources.images import open_image_folder
from seitpp.tokenizers.sources.source import source_fingerprint
from seitpp.tokens.reading import ReadsStores
from seitpp.tokens.remote import CacheConfig


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(StageConfig, ReadsStores):
    """Linear probe and k-NN on frozen features."""

    store: Location
    """token store with labels to learn from"""
    eval_store: Location
    """token store to measure on"""
    cache: CacheConfig = field(default_factory=CacheConfig)
    """how stores behind a URL are read"""
    labels: Location | None = None
    """CSV with columns key,label: another task on the same stores"""
    dataset: str = "classification"
    """name of this data set and task in results"""
    weights: Location | None = None
    """run or weights of seitpp.mtm.pretrain; needed for the feature `mtm`"""
    features: tuple[str, ...] = ("mtm",)
    """what to probe: mtm (the pre-trained encoder), random (the same encoder at its start), bag-of-tokens, pixels
    (16 x 16), majority (no features: the commonest class)"""
    images: Location | None = None
    """folder that `store` was made of; needed for the feature `pixels`"""
    eval_images: Location | None = None
    """folder that `eval_store` was made of; needed for the feature `pixels`"""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """shape of a random encoder where no weights are given"""
    view: tuple[int, int] | None = None
    """tokens (h, w) that such an encoder sees; None: all"""
    inverse_regularisation: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    """values of C to choose from"""
    held_out: float = 0.2
    """fraction of the training set that C is chosen on"""
    neighbours: int = 10
    """k of k-NN (cosine); 0: no k-NN"""
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


def probe(config: ProbeConfig) -> None:
    """Probe each kind of feature, write results.csv."""
    accelerator = make_accelerator(config.mixed_precision)
    if not accelerator.is_main_process:
        return
    train_set, test_set = open_train_and_test(config)
    known = fingerprints(train_set, test_set)
    known["data"] |= _further_fingerprints(config)
    unread = () if "pixels" in config.features else ("images", "eval_images")
    run = RunFolder(config, stage="finetune.probe", may_change=unread, **known)
    if run.finished:
        print(f"{run.path}: finished before, nothing to do")
        return
    fit_set, validation_set = split_labelled(train_set, config.held_out, seed=config.seed)
    results, chosen = [], {}

    def note(protocol, value, **origin):
        results.append(
            Result(
                dataset=config.dataset, metric="accuracy", value=value, seed=config.seed, protocol=protocol,
                **origin, **row_counts(train_set, test_set), run=config.output_dir,
            )
        )  # fmt: skip

    with Progress(len(config.features), "probe") as progress:
        for index, name in enumerate(config.features):
            if name == "majority":
                note("majority", majority_accuracy(train_set.targets, test_set.targets), init="")
            else:
                torch.manual_seed(config.seed)
                features = make_features(name, config, train_set, test_set, accelerator.device, accelerator.autocast)
                chosen[name], accuracy = linear_probe(features, fit_set, validation_set, train_set, test_set, config)
                origin = {"init": name, "augmentation": augmentation_of(config.weights) if name == "mtm" else ""}
                note("linear", accuracy, **origin)
                if config.neighbours and name in ("mtm", "random"):
                    accuracy = nearest_neighbours(features, train_set, test_set, config.neighbours)
                    note(f"knn{config.neighbours}", accuracy, **origin)
            progress.update(index + 1, f"{name} {results[-1].value:.3f}")
    run.begin()
    write_results(run.path, results)
    run.finish({"C": chosen, "accuracy": [[each.protocol, each.init, each.value] for each in results]})
    for each in results:
        print(f"{each.dataset}: accuracy {each.value:.3f} ({' of '.join(filter(None, (each.protocol, each.init)))})")
    accelerator.end_training()


def _further_fingerprints(config):
    """Of the weights and of the images of pixels; those that no feature reads may be gone."""
    weights, pixels = config.weights, "pixels" in config.features
    folders = {"images": config.images, "eval_images": config.eval_images} if pixels else {}
    return {
        "weights": weights and weights_fingerprint(weights),
        **{name: source_fingerprint(open_image_folder(folder)) for name, folder in folders.items()},
    }


def linear_probe(
    features: tuple[np.ndarray, np.ndarray],
    fit_set: LabelledRows,
    validation_set: LabelledRows,
    train_set: LabelledRows,
    test_set: LabelledRows,
    config: ProbeConfig,
) -> tuple[float, float]:
    """Choose C on the held-out part, fit on all labelled training rows.

    Args:
        features: (rows, d) arrays of the training and of the test store.
        fit_set: part of the training set to fit on.
        validation_set: the rest of it, to choose C on.
        train_set: LabelledRows.
        test_set: LabelledRows.
        config: a ProbeConfig.
    Returns: (C, accuracy on the test set).
    """
    train_features, test_features = features
    scores = {
        value: _fit(train_features[fit_set.rows], fit_set.targets, value).score(
            train_features[validation_set.rows], validation_set.targets
        )
        for value in config.inverse_regularisation
    }
    best = max(scores, key=scores.get)
    model = _fit(train_features[train_set.rows], train_set.targets, best)
    return best, accuracy_score(test_set.targets, model.predict(test_features[test_set.rows]))


def nearest_neighbours(
    features: tuple[np.ndarray, np.ndarray], train_set: LabelledRows, test_set: LabelledRows, k: int
) -> float:
    """Accuracy of a vote of the k most similar training rows, by cosine, weighted by similarity."""
    train_features, test_features = (_directions(each) for each in features)
    similarity = test_features[test_set.rows] @ train_features[train_set.rows].T
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    votes = np.zeros((len(nearest), len(train_set.classes)))
    weights = np.take_along_axis(similarity, nearest, axis=1)
    np.add.at(votes, (np.arange(len(nearest))[:, None], train_set.targets[nearest]), weights)
    return float((votes.argmax(1) == test_set.targets).mean())


def _directions(features):
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def _fit(features, targets, inverse_regularisation):
    model = make_pipeline(StandardScaler(), LogisticRegression(C=inverse_regularisation, max_iter=300))
    with warnings.catch_warnings():  # 300 iterations are plenty for a baseline; a last digit is not worth a warning
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(features, targets)


def cli() -> None:
    """Run the stage from the command line."""
    run_command(probe, ProbeConfig, recipes="probe")


if __name__ == "__main__":
    cli()
