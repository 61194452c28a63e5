"""Fine-tune a pre-trained encoder on labelled tokens, or train the same classifier from scratch.

    seitpp finetune --store stores/train --eval_store stores/test --weights runs/mtm --output_dir runs/finetune
    seitpp finetune --store stores/train --eval_store stores/test --output_dir runs/scratch     (no weights)
    accelerate launch -m seitpp.finetune.train --config demo …

Several learning rates are compared on a part of the training set that is held out for it; the test set is read by
the runs with the chosen rate alone, one for each seed. `--eval_every 50` measures on the way, too, for a curve: results
are those of the last step, whatever the curve did before.
"""

import math
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from seitpp.finetune.classifier import (
    StemName,
    save_classifier,
)
from seitpp.finetune.evaluate import Evaluator, evaluate_classifier
from seitpp.finetune.labelled import LabelledRows, fingerprints, open_train_and_test, row_counts, split_labelled
from seitpp.finetune.load import model_folder
from seitpp.finetune.multi_label import evaluate_multi_label
from seitpp.finetune.objective import Loss, make_step
from seitpp.finetune.sampling import Sampling, rows_of_a_pass
from seitpp.finetune.start import origin_of, start_classifier
from seitpp.mtm.augmentation.augment import Augment, AugmentConfig
from seitpp.mtm.augmentation.augment import fingerprints as augment_fingerprints
from seitpp.mtm.encoder import EncoderConfig
from seitpp.mtm.stems import StemAdapter
from seitpp.runtime.command import run_command
from seitpp.runtime.config import require
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.fingerprints import weights_fingerprint
from seitpp.runtime.intervals import said_accuracy
from seitpp.runtime.locations import Location
from seitpp.runtime.results import Result, write_results
from seitpp.runtime.run_folder import RunFolder, open_run
from seitpp.tokens.loader import TrainingBatches
from seitpp.tokens.reading import ReadsLabels, ReadsStores
from seitpp.tokens.remote import CacheConfig
from seitpp.training.best_weights import Better
from seitpp.training.config import TrainConfig
from seitpp.training.fit import batch_layout, fit
from seitpp.training.optimizer import parameter_groups

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(TrainConfig, ReadsStores, ReadsLabels):
    """Fine-tune a pre-trained encoder on labelled tokens, or train from scratch."""

    store: Location
    """token store with labels to learn from"""
    eval_store: Location
    """token store to measure on"""
    cache: CacheConfig = field(default_factory=CacheConfig)
    """how stores behind a URL are read"""
    dataset: str = "classification"
    """name of this data set and task in results"""
    weights: Location | None = None
    """run or weights of seitpp.mtm.pretrain, or of a classifier that was trained on other labels; None: from scratch"""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """shape of an encoder from scratch; with `weights` theirs counts"""
    stem: StemName = "patches"
    """how a classifier from scratch reads tokens. patches: ids, as SeiT++; adapter: embeddings of the codebook, as
    SeiT; with `weights` theirs counts"""
    learned_positions: bool = False
    """whether positions of a classifier from scratch are trained, as in the published ones; with `weights` theirs
    counts"""
    view: tuple[int, int] | None = None
    """tokens (h, w) that the encoder sees; None: those that `weights` see, from scratch all. Positions of weights are
    interpolated"""
    multi_label: bool = False
    """whether rows have several labels (the store's column `labels`); measured as mean average precision"""
    seeds: int = 1
    """runs that differ in their seed only: seed, seed + 1, …"""
    blr_candidates: tuple[float, ...] = ()
    """base learning rates to choose from on the held-out part; none: `blr` as it is"""
    held_out: float = 0.2
    """fraction of the training set that the learning rate is chosen on"""
    layer_decay: float = 1.0
    """learning rate of a layer relative to the one above"""
    embeddings_with_head: bool = False
    """whether the table of token embeddings learns at the head's rate and not at the stem's, as in the published
    fine-tuning, by mistake"""
    drop_path: float = 0.0
    """stochastic depth of the last block"""
    token_dropout: float | None = None
    """dropout of token embeddings, from scratch or not; None: what the encoder's configuration says"""
    loss: Loss = "cross_entropy"
    """what is learned; binary: each class for itself"""
    label_smoothing: float = 0.1
    """of the loss"""
    sampling: Sampling = "uniform"
    """how often rows are drawn; class_balanced: every class as often"""
    grad_checkpointing: bool = False
    """whether blocks are computed again in the backward pass: a third more time, for a fraction of the memory"""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """how views are made"""
    eval_every: int | None = 0
    """steps between evaluations; there is always one at the end. 0: only that; None: with every checkpoint"""

    @property
    def trainings(self) -> int:
        """One for each candidate of the learning rate, where there are several, and one for each seed."""
        return self.seeds + (len(self.blr_candidates) if len(self.blr_candidates) > 1 else 0)

    def __post_init__(self):
        super().__post_init__()
        require(self, "seeds", self.seeds >= 1, "must be at least 1")
        require(self, "held_out", 0 < self.held_out < 1, "must lie in (0, 1)")
        require(self, "lr", self.lr is None or not self.blr_candidates, "and blr_candidates exclude each other")
        require(self, "blr_candidates", all(blr > 0 for blr in self.blr_candidates), "must be above 0")
        require(self, "layer_decay", self.layer_decay > 0, "must be above 0")
        require(self, "loss", self.loss == "binary" or not self.multi_label, "must be binary with multi_label")
        balanced = self.sampling == "class_balanced"
        require(self, "sampling", not (balanced and self.multi_label), "= class_balanced needs one label a row")
        for name in ("drop_path", "token_dropout", "label_smoothing"):
            require(self, name, 0 <= (getattr(self, name) or 0) < 1, "must lie in [0, 1)")


def finetune(config: FinetuneConfig) -> None:
    """Choose the learning rate, train each seed, write results.csv."""
    accelerator = make_accelerator(config.mixed_precision)
    finetune_seeds(config, accelerator)
    accelerator.end_training()


def finetune_seeds(config: FinetuneConfig, accelerator: "Accelerator", *, evaluator: Evaluator | None = None) -> None:
    """What `finetune` does, within a stage that goes on afterwards; a finished run is not trained again.

    Args:
        config: a FinetuneConfig.
        accelerator: of its precision.
        evaluator: what is measured; None: accuracy and cross-entropy, or of several labels a row what suits them.
    """
    train_set, test_set = open_train_and_test(config)
    run = open_run(config, accelerator, stage="finetune.train", **_inputs(config, train_set, test_set))
    if run.finished:
        accelerator.print(f"{run.path}: finished before, nothing to do")
        return
    blr, tried = choose_blr(config, train_set, run.path / "choice", within=run)
    results = []
    for seed in range(config.seed, config.seed + config.seeds):
        each = replace(config, blr=blr, seed=seed, output_dir=str(run.path / f"seed-{seed}"))
        measures = fit_classifier(
            each, train_set, test_set, title=f"{config.dataset}, seed {seed}", within=run, evaluator=evaluator
        )
        results += [
            Result(
                dataset=config.dataset, metric=metric, value=value, seed=seed, protocol="finetune",
                **origin_of(config.weights), **row_counts(train_set, test_set), run=config.output_dir,
            )
            for metric, value in measures.items() if not metric.endswith("_ema")
        ]  # fmt: skip
    run.begin()
    if accelerator.is_main_process:
        write_results(run.path, results)
        measure = best_by(config).measure
        values = [result.value for result in results if result.metric == measure]
        mean = sum(values) / len(values)
        run.finish({measure: mean, "blr": blr, "held_out": tried})
        name, images = measure.replace("_", " "), results[0].test_images
        said = said_accuracy(values, images) if measure == "accuracy" else f"{mean:.3f} on {images:,} test images"
        print(f"{config.dataset}: {name} {said}; blr {blr:g}")


def best_by(config: FinetuneConfig) -> Better:
    """The number of an evaluation by which weights are the best."""
    return Better("mean_average_precision" if config.multi_label else "accuracy", larger=True)


def choose_blr(
    config: FinetuneConfig, train_set: LabelledRows, folder: Path, *, within: RunFolder | None = None
) -> tuple[float, dict[float, dict[str, float]]]:
    """The base learning rate of least cross-entropy on a held-out part of the training set.

    By cross-entropy: of a hundred images one is a point of accuracy, so that accuracies tie or differ by noise.

    Args:
        config: a FinetuneConfig with `blr_candidates`; with one or none nothing is trained.
        train_set: LabelledRows to divide.
        folder: for a run folder of each candidate.
        within: the run that they are a part of.
    Returns: (blr, {candidate: what was measured}).
    """
    candidates = config.blr_candidates or (config.blr,)
    if len(candidates) == 1:
        return candidates[0], {}
    fit_set, validation_set = split_labelled(train_set, config.held_out, seed=config.seed)
    tried = {}
    for candidate in candidates:
        each = replace(config, blr=candidate, output_dir=str(folder / f"blr-{candidate:g}"))
        tried[candidate] = fit_classifier(each, fit_set, validation_set, title=f"blr {candidate:g}", within=within)
    entropy = "binary_cross_entropy" if config.multi_label else "cross_entropy"
    return min(tried, key=lambda candidate: tried[candidate].get(entropy, math.inf)), tried


def fit_classifier(
    config: FinetuneConfig,
    train_set: LabelledRows,
    test_set: LabelledRows,
    *,
    title: str,
    within: RunFolder | None = None,
    evaluator: Evaluator | None = None,
) -> dict[str, float]:
    """Train one classifier in a run folder of its own; a finished run is not trained again.

    Args:
        config: a FinetuneConfig; its `seed` and `blr` count, its `seeds` and `blr_candidates` do not.
        train_set: LabelledRows to learn from.
        test_set: LabelledRows to measure on.
        title: what the progress line calls this training.
        within: the run that this one is a part of.
        evaluator: what is measured; None: what suits the labels.
    Returns: the last evaluation on `test_set`: {"accuracy", "cross_entropy"}, or {"mean_average_precision",
        "binary_cross_entropy"} where rows have several labels; with `_ema` beside where weights are averaged.
    """
    accelerator = make_accelerator(config.mixed_precision)
    store, classes = train_set.store, train_set.classes
    run = open_run(
        config, accelerator, stage="finetune.train/once", within=within, **_inputs(config, train_set, test_set)
    )
    if run.finished:
        return run.summary
    torch.manual_seed(config.seed)
    classifier = start_classifier(
        store, classes, weights=config.weights, encoder=config.encoder, stem=config.stem, view=config.view,
        learned_positions=config.learned_positions, token_dropout=config.token_dropout, drop_path=config.drop_path,
    )  # fmt: skip
    classifier.encoder.grad_checkpointing = config.grad_checkpointing
    augment = Augment(
        config.augment, store=store, view=classifier.encoder.view, device=accelerator.device,
        autocast=accelerator.autocast, compiled=config.compile,
        as_embeddings=isinstance(classifier.encoder.stem, StemAdapter),
    )  # fmt: skip
    rows = rows_of_a_pass(train_set, config.sampling, seed=config.seed)

    def batches(config):
        return TrainingBatches(store, **batch_layout(config, accelerator), rows=rows, labels=train_set.labels)

    def evaluate(model):
        measure = evaluator or (evaluate_multi_label if config.multi_label else evaluate_classifier)
        return dict(measure(model, test_set, batch_size=run.config.batch_size, accelerator=accelerator))

    counts = row_counts(train_set, test_set)
    origin = {
        **origin_of(config.weights),
        **{name: counts[name] for name in ("label_fraction", "budget_bytes", "train_images")},
    }
    fitted = fit(
        run, accelerator, classifier, title=title, samples=len(rows), batches=batches,
        step=make_step(
            augment, classes=len(classes), loss=config.loss, smoothing=config.label_smoothing, seed=config.seed,
            compiled=config.compile,
        ),
        evaluate=evaluate, best_by=best_by(config),
        groups=parameter_groups(
            classifier, weight_decay=config.weight_decay, layer_decay=config.layer_decay, layers=classifier.layers,
            layer_of=partial(classifier.layer_of, embeddings_with_head=config.embeddings_with_head),
        ),
        save=partial(
            save_classifier, tokenizer=store.tokenizer["fingerprint"], class_names=classes, origin=origin
        ),
    )  # fmt: skip
    run.finish(fitted.measures)
    accelerator.wait_for_everyone()
    return fitted.measures


def _inputs(config, train_set, test_set):
    """`inputs` and `data` of the RunFolder of a fine-tuning."""
    known = fingerprints(train_set, test_set)
    known["data"] |= {"weights": config.weights and weights_fingerprint(model_folder(config.weights))}
    known["data"] |= augment_fingerprints(config.augment)
    return known


def cli() -> None:
    """Run the stage from the command line."""
    run_command(finetune, FinetuneConfig, recipes="finetune")


if __name__ == "__main__":
    cli()
