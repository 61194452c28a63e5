"""Fine-tune a pre-trained encoder on labelled tokens, or train the same classifier from scratch.

    seitpp finetune --store stores/train --eval_store stores/test --weights runs/mtm --output_dir runs/finetune
    seitpp finetune --store stores/train --eval_store stores/test --output_dir runs/scratch     (no weights)
    accelerate launch -m seitpp.finetune.train --config demo …

Several learning rates are compared on a part of the training set that is held out for it; the test set is read once,
by the runs with the chosen rate, one for each seed.
"""

import math
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F

from seitpp.finetune.classifier import Classifier, classifier_from_pretraining, predict, save_classifier
from seitpp.finetune.labelled import fingerprints, open_train_and_test, split_labelled
from seitpp.mtm.augmentation.augment import Augment, AugmentConfig
from seitpp.mtm.encoder import EncoderConfig, fitting_view
from seitpp.runtime.command import run_command
from seitpp.runtime.config import require
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.results import Result, write_results
from seitpp.runtime.run_folder import open_run
from seitpp.tokens.loader import TrainingBatches, evaluation_batches
from seitpp.tokens.remote import CacheConfig
from seitpp.training.batched_draws import BatchedDraws
from seitpp.training.config import TrainConfig
from seitpp.training.loop import train
from seitpp.training.optimizer import make_adamw, parameter_groups
from seitpp.training.schedule import make_schedule


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(TrainConfig):
    """Fine-tune a pre-trained encoder on labelled tokens, or train from scratch."""

    store: str
    """token store with labels to learn from"""
    eval_store: str
    """token store to measure on"""
    cache: CacheConfig = field(default_factory=CacheConfig)
    """how stores behind a URL are read"""
    labels: str | None = None
    """CSV with columns key,label: another task on the same stores; rows it does not name are left out"""
    task: str = "classification"
    """what the tables call this task"""
    method: str | None = None
    """what the tables call this training; None: "fine-tuned from MTM" or "from scratch" """
    weights: str | None = None
    """run or weights of seitpp.mtm.pretrain; None: from scratch"""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """shape of an encoder from scratch; with `weights` theirs counts"""
    view: tuple[int, int] | None = None
    """tokens (h, w) that an encoder from scratch sees; None: all. With `weights` theirs counts"""
    seeds: int = 1
    """runs that differ in their seed only: seed, seed + 1, …"""
    blr_candidates: tuple[float, ...] = ()
    """base learning rates to choose from on the held-out part; none: `blr` as it is"""
    held_out: float = 0.2
    """share of the training set that the learning rate is chosen on"""
    layer_decay: float = 1.0
    """learning rate of a layer relative to the one above"""
    drop_path: float = 0.0
    """stochastic depth of the last block"""
    token_dropout: float | None = None
    """dropout of token embeddings, from scratch or not; None: what the encoder's configuration says"""
    label_smoothing: float = 0.1
    """of the loss"""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """how views are made"""

    def __post_init__(self):
        super().__post_init__()
        require(self, "seeds", self.seeds >= 1, "must be at least 1")
        require(self, "held_out", 0 < self.held_out < 1, "must lie in (0, 1)")
        require(self, "lr", self.lr is None or not self.blr_candidates, "and blr_candidates exclude each other")
        require(self, "blr_candidates", all(blr > 0 for blr in self.blr_candidates), "must be above 0")
        require(self, "layer_decay", self.layer_decay > 0, "must be above 0")
        for name in ("drop_path", "token_dropout", "label_smoothing"):
            require(self, name, 0 <= (getattr(self, name) or 0) < 1, "must lie in [0, 1)")

    @property
    def method_name(self):
        """What the tables call this training."""
        return self.method or ("fine-tuned from MTM" if self.weights else "from scratch")


def main(config):
    """Choose the learning rate, train each seed, write results.csv."""
    accelerator = make_accelerator(config.mixed_precision)
    train_set, test_set = open_train_and_test(config)
    run = open_run(config, accelerator, stage="finetune.train", **fingerprints(train_set, test_set))
    if run.finished:
        accelerator.print(f"{run.path}: finished before, nothing to do")
        return
    blr, tried = config.blr, {}
    if len(config.blr_candidates) > 1:
        learned, judged = split_labelled(train_set, config.held_out, seed=config.seed)
        for candidate in config.blr_candidates:
            each = replace(config, blr=candidate, output_dir=str(run.path / "choice" / f"blr-{candidate:g}"))
            tried[candidate] = _train_once(each, learned, judged, title=f"blr {candidate:g}")
        # By cross-entropy: of a hundred images one is a point of accuracy, so that accuracies tie or differ by chance.
        blr = min(tried, key=lambda candidate: tried[candidate].get("cross_entropy", math.inf))
    elif config.blr_candidates:
        blr = config.blr_candidates[0]
    results = []
    for seed in range(config.seed, config.seed + config.seeds):
        each = replace(config, blr=blr, seed=seed, output_dir=str(run.path / f"seed-{seed}"))
        measures = _train_once(each, train_set, test_set, title=f"{config.method_name}, seed {seed}")
        results += [
            Result(
                task=config.task, method=config.method_name, metric=metric, seed=seed, value=measures[metric],
                train_images=len(train_set.rows), test_images=len(test_set.rows),
            )
            for metric in ("accuracy", "cross_entropy")
        ]  # fmt: skip
    if accelerator.is_main_process:
        write_results(run.path, results)
        accuracy = [result.value for result in results if result.metric == "accuracy"]
        run.finish({"accuracy": sum(accuracy) / len(accuracy), "blr": blr, "held_out": tried})
        print(f"{config.task}, {config.method_name}: accuracy {sum(accuracy) / len(accuracy):.3f} (blr {blr:g})")
    accelerator.end_training()


def _train_once(config, train_set, test_set, *, title):
    """One training in a run folder of its own: {"accuracy", "cross_entropy"} on `test_set`."""
    accelerator = make_accelerator(config.mixed_precision)
    device = accelerator.device
    store = train_set.store
    fingerprint = store.tokenizer["fingerprint"]
    run = open_run(config, accelerator, stage="finetune.train/once", **fingerprints(train_set, test_set))
    if run.finished:
        return run.summary
    torch.manual_seed(config.seed)
    classifier = _build(config, store, len(train_set.classes))
    view = classifier.encoder.view
    augment = Augment(config.augment, store=store, view=view, device=device, autocast=accelerator.autocast)
    schedule = make_schedule(config, samples=len(train_set.rows), world_size=accelerator.num_processes)
    groups = parameter_groups(
        classifier,
        weight_decay=config.weight_decay,
        layer_of=classifier.layer_of,
        layer_decay=config.layer_decay,
        layers=classifier.layers,
    )
    model, optimizer = accelerator.prepare(classifier, make_adamw(groups, config))
    batches = TrainingBatches(
        store, config.batch_size, seed=config.seed, device=device, accum_iter=config.accum_iter,
        rank=accelerator.process_index, world_size=accelerator.num_processes, rows=train_set.rows,
        labels=train_set.labels,
    )  # fmt: skip

    chance = BatchedDraws(config.seed)

    def step(batch, index):
        draws = chance.at(index, batch.positions)
        views, targets = augment.mixed(batch.ids, batch.labels, draws, classes=len(train_set.classes))
        logits = model(views)
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=config.label_smoothing)
        dominant = targets if targets.ndim == 1 else targets.argmax(1)
        return loss, {"accuracy": (logits.argmax(1) == dominant).float().mean()}

    measures = train(
        accelerator, run, model=model, optimizer=optimizer, schedule=schedule, batch_at=batches, step=step,
        title=title, evaluate=lambda: evaluate_classifier(classifier, test_set, config.batch_size, device),
    )  # fmt: skip
    if accelerator.is_main_process:
        save_classifier(run.weights, classifier, tokenizer=fingerprint, class_names=train_set.classes)
        run.finish(measures)
    accelerator.wait_for_everyone()
    return measures


def _build(config, store, classes):
    """The classifier from pre-trained weights, or from scratch."""
    if config.weights is not None:
        classifier, fingerprint = classifier_from_pretraining(
            config.weights, classes=classes, drop_path=config.drop_path, token_dropout=config.token_dropout
        )
        store.check_tokenizer(fingerprint, f"the model in {config.weights}")
        return classifier
    encoder = config.encoder
    if config.token_dropout is not None:
        encoder = replace(encoder, token_dropout=config.token_dropout)
    classifier = Classifier(
        encoder, view=fitting_view(config.view, store.grid, config.encoder.patch_size),
        codebook_size=store.codebook_size, embedding_dim=store.codebook.shape[1], classes=classes,
        drop_path=config.drop_path,
    )  # fmt: skip
    classifier.encoder.start_from(store.codebook, config.encoder)
    return classifier


def evaluate_classifier(classifier, labelled, batch_size, device):
    """Accuracy and cross-entropy (nats) on labelled rows; every process measures all of them.

    Args:
        classifier: a Classifier in evaluation mode.
        labelled: LabelledRows.
        batch_size: rows at a time.
        device: where it runs.
    """
    batches = evaluation_batches(labelled.store, batch_size, device=device, rows=labelled.rows, labels=labelled.labels)
    logits, labels = predict(classifier, batches)
    measures = {
        "accuracy": float((logits.argmax(1) == labels).double().mean()),
        "cross_entropy": float(F.cross_entropy(logits, labels)),
    }
    return {name: value for name, value in measures.items() if math.isfinite(value)}


def cli():
    """Run the stage from the command line."""
    run_command(main, FinetuneConfig, recipes="finetune")


if __name__ == "__main__":
    cli()
