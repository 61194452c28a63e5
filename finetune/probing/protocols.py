"""One run of probes: every kind of feature by every protocol that fits it. Each process does its part of all."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from seitpp.finetune.labelled import LabelledRows, row_counts, rows_by_class, split_labelled
from seitpp.finetune.probing.encoders import feature_origin, open_encoder
from seitpp.finetune.probing.feature_file import FeatureRecipe, feature_file
from seitpp.finetune.probing.feature_set import FeatureSet
from seitpp.finetune.probing.features import (
    FrozenEncoder,
    Layout,
    bag_of_tokens,
    encoder_recipe,
    majority_accuracy,
    pixels,
)
from seitpp.finetune.probing.few_labels import label_fraction, labels_per_class
from seitpp.finetune.probing.head_training import HeadSources, ViewSet, probe_with_heads
from seitpp.finetune.probing.heads import AttentiveHeads, Head, Heads, HeadsConfig, LinearHeads
from seitpp.finetune.probing.logistic import choose_strength, fit_logistic, measure_answers
from seitpp.finetune.probing.nearest import measure_neighbours
from seitpp.mtm.augmentation.augment import Augment
from seitpp.runtime.intervals import said_accuracy
from seitpp.runtime.processes import Processes
from seitpp.runtime.results import Result

if TYPE_CHECKING:
    from accelerate import Accelerator

    from seitpp.finetune.probe import ProbeConfig


class Probing:
    """What a run reads, and what it has chosen and measured so far.

    Args:
        config: a ProbeConfig.
        accelerator: accelerate.Accelerator.
        train_set: LabelledRows to learn from.
        test_set: LabelledRows to measure on.
        metrics: what is noted of each probe of an encoder: accuracy, and mean_per_class besides where it is asked for.

    Attributes:
        results: list of Result.
    """

    def __init__(
        self, config: "ProbeConfig", accelerator: "Accelerator", train_set: LabelledRows, test_set: LabelledRows,
        metrics: Sequence[str] = ("accuracy",),
    ):  # fmt: skip
        self.config, self.accelerator, self.team = config, accelerator, Processes(accelerator)
        self.train_set, self.test_set = train_set, test_set
        self.metrics = tuple(metrics)
        self.results: list[Result] = []
        self._strengths: dict[str, Any] = {}
        self._heads: dict[str, Any] = {}

    def measure(self, name: str) -> None:
        """Measure one kind of feature: a name of FEATURES."""
        stores = self.train_set.store, self.test_set.store
        if name == "majority":
            value = majority_accuracy(self.train_set.targets, self.test_set.targets)
            self._note("majority", {"accuracy": value}, self.train_set, {"init": ""})
        elif name == "bag-of-tokens":
            self._linear(*self._feature_sets([bag_of_tokens(each) for each in stores], name), {"init": name})
        elif name == "pixels":
            folders = (str(self.config.images), str(self.config.eval_images))
            recipes = [pixels(folder, each) for folder, each in zip(folders, stores, strict=True)]
            self._linear(*self._feature_sets(recipes, name), {"init": name})
        else:
            self._encoder(name)

    def summary(self) -> dict[str, Any]:
        """What was chosen, of what, and what came of it."""
        whole = [each for each in self._accuracies if each.train_images == len(self.train_set.rows)]
        return {
            "seed": self.config.seed,
            "C": {name: each["choice"] for name, each in self._strengths.items()},
            "logistic": self._strengths,
            "heads": self._heads,
            "accuracy": [[each.protocol, each.init, each.value] for each in whole],
            "few_labels": [
                {"protocol": protocol, "init": init, "train_images": images, **spread}
                for (protocol, init, images), spread in self._few_labels_measured().items()
            ],
        }

    def lines(self) -> Iterator[str]:
        """What is printed: a line a method, with mean and deviation where there are several seeds."""
        dataset, measured_on = self.config.dataset, len(self.test_set.rows)
        for protocol, init, value in self.summary()["accuracy"]:
            method = " of ".join(filter(None, (protocol, init)))
            yield f"{dataset}, {method}: accuracy {said_accuracy([value], measured_on)}"
        for (protocol, init, images), spread in self._few_labels_measured().items():
            yield (
                f"{dataset}, {protocol} of {init}, {images} labels: accuracy {spread['mean']:.3f} ± "
                f"{spread['std']:.3f} on {measured_on:,} test images ({spread['seeds']} choices of labels)"
            )

    @property
    def _accuracies(self):
        return [each for each in self.results if each.metric == "accuracy"]

    def _few_labels_measured(self):
        """{(protocol, init, training images): mean and deviation over choices of labels}."""
        groups: dict[tuple[str, str, int], list[float]] = {}
        for each in self._accuracies:
            if each.train_images != len(self.train_set.rows):
                groups.setdefault((each.protocol, each.init, each.train_images), []).append(each.value)
        return {
            key: {
                "mean": statistics.mean(values),
                "std": statistics.stdev(values) if len(values) > 1 else 0.0,
                "seeds": len(values),
            }
            for key, values in groups.items()
        }

    def _note(self, protocol, measured, learned_from, origin, *, seed=None, part=1.0):
        counts = row_counts(self.train_set, self.test_set)
        counts |= {"train_images": len(learned_from.rows), "label_fraction": counts["label_fraction"] * part}
        self.results += [
            Result(
                dataset=self.config.dataset, metric=metric, value=measured[metric], protocol=protocol,
                seed=self.config.seed if seed is None else seed, **origin, **counts, run=self.config.output_dir,
            )
            for metric in self.metrics if metric in measured
        ]  # fmt: skip

    def _feature_sets(self, recipes: list[FeatureRecipe], name: str) -> list[FeatureSet]:
        """The features of both stores, in files."""
        folder = self.config.features_folder or Path(self.config.output_dir) / "features"
        how: Any = {"batch_size": self.config.batch_size, "team": self.team, "title": f"features, {name}"}
        return [
            FeatureSet(feature_file(folder, recipe, rows=len(each.store), **how), each)
            for recipe, each in zip(recipes, (self.train_set, self.test_set), strict=True)
        ]

    def _divided(self, labelled):
        """(part to learn from, part to choose on) of training rows."""
        return split_labelled(labelled, self.config.held_out, seed=self.config.seed)

    def _divided_where_possible(self, labelled):
        """The same; with one label a class nothing can be set apart, and the second part is empty."""
        if all(len(rows) < 2 for _, rows in rows_by_class(labelled)):
            return labelled, labelled.part(labelled.rows[:0])
        return self._divided(labelled)

    def _encoder(self, name):
        config, store = self.config, self.train_set.store
        torch.manual_seed(config.seed)  # a random encoder is drawn
        encoder, origin = open_encoder(name, config, store), feature_origin(name, config.weights)
        frozen = FrozenEncoder(
            encoder, store, device=self.accelerator.device, autocast=self.accelerator.autocast
        )  # fmt: skip
        heads = config.heads.within(len(encoder.blocks))
        if set(config.protocols) != {"attentive"}:
            layout = heads.layout if "linear_grid" in config.protocols else Layout()
            recipes = [
                encoder_recipe(frozen, each.store, layout, precision=self.accelerator.mixed_precision)
                for each in (self.train_set, self.test_set)
            ]
            train, test = self._feature_sets(recipes, name)
            self._means(*(replace(each, features=layout.pick(each.features)) for each in (train, test)), origin)
            if "linear_grid" in config.protocols:
                self._linear_grid(name, frozen, train, test, heads, origin)
        if "attentive" in config.protocols:
            self._attentive(name, frozen, heads, origin)

    def _means(self, train, test, origin):
        """What reads the last block's mean over patches: with all labels, then with few."""
        self._simple(train, test, origin)
        whole, config = train.labelled, self.config
        ways: list[tuple[Callable[..., LabelledRows], float | None]]
        ways = [(partial(label_fraction, whole, each), each) for each in config.label_fractions]
        ways += [(partial(labels_per_class, whole, each), None) for each in config.shots]
        for choose, fraction in ways:
            for seed in range(config.seed, config.seed + config.label_seeds):
                part = train.part(choose(seed=seed))
                if len(part) < len(train):
                    self._simple(part, test, origin, seed=seed, part=fraction or len(part) / len(train))

    def _simple(self, train, test, origin, **noted):
        if "linear" in self.config.protocols:
            self._linear(train, test, origin, **noted)
        if "knn" in self.config.protocols:
            ks = [each for each in self.config.neighbours if each <= len(train)] or [min(self.config.neighbours)]
            for k, measured in measure_neighbours(train, test, ks, accelerator=self.accelerator).items():
                self._note(f"knn{k}", measured, train.labelled, origin, **noted)

    def _linear(self, train, test, origin, **noted):
        config = self.config
        how: Any = {
            "accelerator": self.accelerator, "solver": config.logistic_solver, "iterations": config.logistic_iterations
        }  # fmt: skip
        parts = [train.part(each) for each in self._divided_where_possible(train.labelled)]
        best, tried = choose_strength(*parts, config.inverse_regularisation, **how)
        if not noted:
            self._strengths[origin["init"]] = {"choice": best, "held_out": tried}
        measured = measure_answers(fit_logistic(train, best, **how), test, accelerator=self.accelerator)
        self._note("linear", measured, train.labelled, origin, **noted)

    def _linear_grid(self, name, frozen, train, test, heads, origin):
        fit_part, held_out = (train.part(each) for each in self._divided(self.train_set))
        sources = HeadSources(fit_part, held_out, train, test)
        if self.config.augmented:
            made = partial(frozen.pooled, layout=heads.layout)
            views = partial(ViewSet, frozen, features=made, augment=self._augment(frozen))
            sources = replace(sources, fit_part=views(labelled=fit_part.labelled), train=views(labelled=self.train_set))
        make = partial(
            LinearHeads, layout=heads.layout, classes=len(self.train_set.classes), moments=fit_part.moments()
        )
        self._with_heads("linear_grid", name, make, heads.linear_grid(), sources, heads, frozen, origin)

    def _attentive(self, name, frozen, heads, origin):
        plain = partial(ViewSet, frozen, features=frozen.patches)
        views = partial(plain, augment=self._augment(frozen))
        fit_part, held_out = self._divided(self.train_set)
        sources = HeadSources(
            views(labelled=fit_part), plain(labelled=held_out), views(labelled=self.train_set),
            plain(labelled=self.test_set),
        )  # fmt: skip
        make = partial(
            AttentiveHeads, width=frozen.encoder.width, classes=len(self.train_set.classes),
            attention_heads=heads.attention_heads,
        )  # fmt: skip
        self._with_heads("attentive", name, make, heads.attentive_grid(), sources, heads, frozen, origin)

    def _with_heads(
        self, protocol: str, name: str, make: Callable[[Sequence[Head]], Heads], grid: Sequence[Head],
        sources: HeadSources, heads: HeadsConfig, frozen: FrozenEncoder, origin: dict[str, str],
    ):  # fmt: skip
        config = self.config
        protocol = f"{protocol}_augmented" if config.augmented else protocol
        folder = Path(config.output_dir) / "choice" / f"{protocol}-{name}"
        made_of = {**frozen.described, "augment": asdict(config.augment) if config.augmented else None}
        measured, chosen = probe_with_heads(
            folder, make, grid, sources, heads, accelerator=self.accelerator, made_of=made_of,
            title=f"{protocol}, {name}", seed=config.seed, mixed_precision=config.mixed_precision,
            resume="none" if config.resume == "none" else "auto",
        )  # fmt: skip
        self._heads[f"{protocol}, {name}"] = chosen
        self._note(protocol, measured, self.train_set, origin)

    def _augment(self, frozen):
        """What makes augmented views; None: nothing does."""
        if not self.config.augmented:
            return None
        return Augment(
            self.config.augment, store=self.train_set.store, view=frozen.view, device=self.accelerator.device,
            autocast=self.accelerator.autocast,
        )  # fmt: skip
