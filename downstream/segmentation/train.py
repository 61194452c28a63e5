"""Train a segmentation model on a segmentation store, and measure it on whole images.

    seitpp segmentation --store stores/train --eval_store stores/val --weights runs/mtm --output_dir runs/upernet
    seitpp segmentation --store stores/train --eval_store stores/val --output_dir runs/scratch     (no weights)
    seitpp segmentation --store stores/train --eval_store stores/val --weights runs/mtm --head.kind linear …
    accelerate launch -m seitpp.downstream.segmentation.train --config upernet_160k …

Logits of an image's windows are averaged where they overlap, and compared at the image's own size. The run folder gets
results.csv; each seed's folder per_class.csv, segmentation.png and a summary that names all that numbers depend on.
`--train false` measures a trained segmenter (--weights) as it is: with flips, or on another store.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from seitpp.downstream.segmentation.baseline import majority_logits, token_majority
from seitpp.downstream.segmentation.batches import WindowBatches
from seitpp.downstream.segmentation.evaluation import confusion_over, logits_of
from seitpp.downstream.segmentation.heads import HeadConfig
from seitpp.downstream.segmentation.objective import make_step
from seitpp.downstream.segmentation.pictures import window_picture
from seitpp.downstream.segmentation.scores import MEASURES, Confusion, write_per_class
from seitpp.downstream.segmentation.segmenter import Segmenter, save_segmenter
from seitpp.downstream.segmentation.shared_batch_norm import share_batch_norm
from seitpp.downstream.segmentation.start import is_segmenter, start_of, start_segmenter
from seitpp.downstream.segmentation.views import ViewsConfig, WindowViews, load_window_adapt
from seitpp.downstream.segmentation.views import fingerprints as view_fingerprints
from seitpp.downstream.segmentation.windows import IGNORE, SegmentationRows, open_segmentation
from seitpp.finetune.classifier import StemName
from seitpp.finetune.load import model_folder
from seitpp.mtm.encoder import EncoderConfig
from seitpp.runtime.command import run_command
from seitpp.runtime.config import require
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.errors import UserError
from seitpp.runtime.fingerprints import weights_fingerprint
from seitpp.runtime.locations import Location
from seitpp.runtime.progress import Progress
from seitpp.runtime.results import Result, write_results
from seitpp.runtime.run_folder import RunFolder, open_run
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.loader import TrainingBatches
from seitpp.tokens.reading import ReadsStores
from seitpp.tokens.remote import CacheConfig
from seitpp.training.best_weights import Better
from seitpp.training.config import TrainConfig
from seitpp.training.fit import batch_layout, fit
from seitpp.training.optimizer import parameter_groups

if TYPE_CHECKING:
    from accelerate import Accelerator

_OWN = "as they came, at the images' own size; logits are brought to it, bilinear"
_WINDOWS = "of the stored windows, put together and brought to the images' own size, nearest pixel, as answers are"
PROTOCOLS = {"upernet": "upernet", "linear": "linear_segmentation"}


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig(TrainConfig, ReadsStores):
    """Train a segmentation model on windows of tokens and label maps."""

    store: Location
    """segmentation store to learn from, of seitpp tokenize --targets masks"""
    eval_store: Location
    """segmentation store to measure on, whole images"""
    cache: CacheConfig = field(default_factory=CacheConfig)
    """how stores behind a URL are read"""
    dataset: str = "segmentation"
    """name of this data set in results"""
    weights: Location | None = None
    """run or weights of seitpp.mtm.pretrain, of a classifier or of a segmentation; None: from scratch. Positions are
    carried to the grid of a window"""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """shape of an encoder from scratch; with `weights` theirs counts"""
    stem: StemName = "patches"
    """how an encoder from scratch reads tokens. patches: ids, as SeiT++; adapter: embeddings of the codebook, as
    SeiT"""
    learned_positions: bool = False
    """whether positions of an encoder from scratch are trained"""
    head: HeadConfig = field(default_factory=HeadConfig)
    """what reads the encoder's features"""
    augment: ViewsConfig = field(default_factory=ViewsConfig)
    """how training views are made"""
    class_weights: tuple[float, ...] = ()
    """weight of each class in the loss, in the store's order; none: all alike"""
    train: bool = True
    """whether anything is trained; false: `weights`, a segmenter, is measured as it is"""
    seeds: int = 1
    """runs that differ in their seed only: seed, seed + 1, …"""
    layer_decay: float = 0.65
    """learning rate of a layer relative to the one above"""
    drop_path: float = 0.1
    """stochastic depth of the last block"""
    token_dropout: float | None = None
    """dropout of token embeddings; None: what the encoder's configuration says"""
    grad_checkpointing: bool = False
    """whether blocks are computed again in the backward pass: a third more time, for a fraction of the memory"""
    flip: bool = False
    """whether an image and its mirror image are averaged when measured: through TokenAdapt where `augment` names one,
    else by mirrored ids, which is less exact"""
    eval_batch_size: int = 16
    """windows per forward pass when measuring"""
    baseline: bool = False
    """whether each token's commonest class is measured too, which takes a pass over all label maps"""
    tokenizer: Location | None = None
    """run or weights of the stores' tokenizer, to show tokens decoded; None: pictures are without"""
    pictures: int = 8
    """windows of the measured store that are drawn; 0: none"""
    batch_size: int = 16
    """windows per process and backward pass"""
    eval_every: int | None = 0
    """steps between evaluations; there is always one at the end. 0: only that; None: with every checkpoint"""

    @property
    def trainings(self) -> int:
        """One for each seed."""
        return self.seeds

    def __post_init__(self):
        super().__post_init__()
        require(self, "seeds", self.seeds >= 1, "must be at least 1")
        require(self, "layer_decay", self.layer_decay > 0, "must be above 0")
        require(self, "drop_path", 0 <= self.drop_path < 1, "must lie in [0, 1)")
        require(self, "token_dropout", 0 <= (self.token_dropout or 0) < 1, "must lie in [0, 1)")
        require(self, "class_weights", all(weight >= 0 for weight in self.class_weights), "must not be below 0")
        require(self, "class_weights", not self.class_weights or any(self.class_weights), "must not be all 0")
        require(self, "eval_batch_size", self.eval_batch_size >= 1, "must be at least 1")
        require(self, "pictures", self.pictures >= 0, "must be at least 0")
        require(self, "train", self.train or self.weights, "= false needs --weights: a trained segmenter")
        require(self, "seeds", self.train or self.seeds == 1, "is for training")
        require(self, "batch_size", self.batch_size >= 2 or not self.train, "must be at least 2: heads have batch norm")


def segmentation(config: SegmentationConfig) -> None:
    """Train each seed, measure it, write results.csv."""
    accelerator = make_accelerator(config.mixed_precision)
    rows, test_rows = _open_stores(config)
    run = open_run(config, accelerator, stage="downstream.segmentation", **_inputs(config, rows, test_rows))
    if run.finished:
        accelerator.print(f"{run.path}: finished before, nothing to do")
        return
    protocol, origin = PROTOCOLS[config.head.kind], start_of(config.weights, config.head)
    results = []
    if config.baseline and not config.dry_run:
        logits_at = majority_logits(token_majority(rows), test_rows)
        measured = _measure(config, logits_at, test_rows, accelerator, title="baseline").measures()
        results += _results(config, measured, "token_majority", {"init": "", "augmentation": ""}, rows, test_rows)
    for seed in range(config.seed, config.seed + config.seeds):
        each = replace(config, seed=seed, output_dir=str(run.path / f"seed-{seed}"))
        measured = fit_segmenter(each, rows, test_rows, title=f"{config.dataset}, seed {seed}", within=run)
        results += _results(each, measured, protocol, origin, rows, test_rows, run=config.output_dir)
    if accelerator.is_main_process:
        write_results(run.path, results)
        run.finish({**_means(results, protocol), **_facts(config, test_rows)})
        print(f"{run.path}: mIoU {_means(results, protocol)['miou']:.4f} on {test_rows.images} images")
    accelerator.end_training()


def fit_segmenter(
    config: SegmentationConfig, rows: SegmentationRows, test_rows: SegmentationRows, *, title: str,
    within: RunFolder | None = None,
) -> dict[str, float]:  # fmt: skip
    """Train one segmenter in a run folder of its own, and measure it; a finished run is not trained again.

    Args:
        config: a SegmentationConfig; its `seed` counts, its `seeds` does not.
        rows: SegmentationRows to learn from.
        test_rows: SegmentationRows to measure on.
        title: what the progress line calls this training.
        within: the run that this one is a part of.
    Returns: {"miou", "pixel_accuracy", "mean_class_accuracy"} of the last evaluation.
    """
    accelerator = make_accelerator(config.mixed_precision)
    run = open_run(
        config, accelerator, stage="downstream.segmentation/once", within=within, **_inputs(config, rows, test_rows)
    )
    if run.finished:
        return {name: run.summary[name] for name in MEASURES}
    torch.manual_seed(config.seed)
    segmenter = start_segmenter(
        rows.store, rows.classes, config.head, weights=config.weights, encoder=config.encoder, stem=config.stem,
        learned_positions=config.learned_positions, token_dropout=config.token_dropout, drop_path=config.drop_path,
    )  # fmt: skip
    segmenter.encoder.grad_checkpointing = config.grad_checkpointing
    mirror = None
    if config.flip and config.augment.token_adapt:
        mirror = load_window_adapt(config.augment.token_adapt, rows.store, accelerator.device)
    measured: list[Confusion] = []

    def answers(model: Any) -> Any:
        return logits_of(model, test_rows, accelerator=accelerator, flip=config.flip, token_adapt=mirror)

    def evaluate(model: Any) -> dict[str, float]:
        measured.append(_measure(config, answers(model), test_rows, accelerator, title="measure"))
        return measured[-1].measures()

    if config.train:
        segmenter = _fit(config, run, accelerator, segmenter, rows, evaluate, title)
        # where weights are averaged too, these are measured last
        confusion = measured[-1 if config.ema_decay is None else -2]
    else:
        segmenter = segmenter.to(accelerator.device).eval()
        run.begin()
        evaluate(segmenter)
        confusion = measured[-1]
    if accelerator.is_main_process:
        write_per_class(run.path / "per_class.csv", confusion, rows.classes)
        if config.pictures:
            tokenizer = _tokenizer(config, rows, accelerator.device)
            picture = run.path / "segmentation.png"
            window_picture(picture, answers(segmenter), test_rows, count=config.pictures, tokenizer=tokenizer)
    run.finish({**confusion.measures(), **_facts(config, test_rows)})
    accelerator.wait_for_everyone()
    return confusion.measures()


def _fit(config, run, accelerator, segmenter: Any, rows, evaluate, title) -> Segmenter:
    if accelerator.num_processes > 1:  # the few windows of one are no batch
        segmenter = share_batch_norm(segmenter, accelerator.device)
        accelerator.print(f"{title}: batch norm over the windows of all {accelerator.num_processes} processes")
    views = WindowViews(
        config.augment, store=rows.store, device=accelerator.device, autocast=accelerator.autocast,
        compiled=config.compile,
    )  # fmt: skip

    def batches(config: TrainConfig) -> WindowBatches:
        make = partial(TrainingBatches, **batch_layout(config, accelerator))
        return WindowBatches(rows, make, accum_iter=config.accum_iter)

    def save(folder: Path, model: Any) -> None:
        save_segmenter(
            folder, model, tokenizer=rows.store.tokenizer["fingerprint"], mask_classes=rows.classes,
            windows=rows.told, origin=start_of(config.weights, config.head),
        )  # fmt: skip

    fitted = fit(
        run, accelerator, segmenter, title=title, samples=len(rows), batches=batches,
        step=make_step(
            views, auxiliary=config.head.auxiliary, class_weights=config.class_weights, seed=config.seed,
            compiled=config.compile, mean_over_processes=partial(accelerator.reduce, reduction="mean"),
        ),
        evaluate=evaluate, best_by=Better("miou", larger=True),
        groups=parameter_groups(
            segmenter, weight_decay=config.weight_decay, layer_decay=config.layer_decay, layers=segmenter.layers,
            layer_of=segmenter.layer_of,
        ),
        save=save,
    )  # fmt: skip
    trained: Any = fitted.model
    return trained


def _open_stores(config: SegmentationConfig) -> tuple[SegmentationRows, SegmentationRows]:
    """The stores of training and of evaluation, checked to belong together."""
    how = {"cache": config.cache, "verify_shards": config.verify_shards}
    rows = open_segmentation(config.store, **how)
    test_rows = open_segmentation(config.eval_store, fingerprint=rows.store.tokenizer["fingerprint"], **how)
    rows.store.check_alike(test_rows.store)
    if test_rows.classes != rows.classes:
        raise UserError(f"{config.eval_store} has other classes of pixels than {config.store}: make both alike")
    if config.class_weights and len(config.class_weights) != len(rows.classes):
        raise UserError(
            f"--class_weights names {len(config.class_weights)} weights, {config.store} has {len(rows.classes)} classes"
        )
    if not config.train and not is_segmenter(config.weights):
        raise UserError(f"{config.weights} is no segmenter: --train false needs a run of seitpp segmentation")
    _tokenizer(config, rows, "cpu")
    return rows, test_rows


def _tokenizer(config, rows, device):
    if config.tokenizer is None or not config.pictures:
        return None
    tokenizer = load_tokenizer(config.tokenizer, device, fingerprint=rows.store.tokenizer["fingerprint"])
    rows.store.check_tokenizer(tokenizer.fingerprint, f"the tokenizer {config.tokenizer}")
    return tokenizer


def _measure(
    config: SegmentationConfig, logits_at: Any, rows: SegmentationRows, accelerator: "Accelerator", *, title: str
) -> Confusion:
    with Progress(rows.images, title, enabled=accelerator.is_main_process) as progress:
        return confusion_over(
            logits_at, rows, batch_size=config.eval_batch_size, accelerator=accelerator, progress=progress
        )


def _inputs(config, rows, test_rows):
    """`inputs` and `data` of the RunFolder of a segmentation."""
    weights = config.weights and weights_fingerprint(model_folder(config.weights))
    stores = {"store": rows.store.fingerprint, "eval_store": test_rows.store.fingerprint}
    return {
        "inputs": {"tokenizer": rows.store.tokenizer["fingerprint"]},
        "data": {**stores, "weights": weights, **view_fingerprints(config.augment)},
        "may_change": ("eval_batch_size", "tokenizer", "pictures"),
    }


def _facts(config: SegmentationConfig, rows: SegmentationRows) -> dict[str, Any]:
    """What the measured numbers depend on."""
    mirrored = "tokenadapt" if config.augment.token_adapt else "ids"
    return {
        "images": rows.images,
        "windows": len(rows),
        "window_size": list(rows.size),
        "window_stride": list(rows.told["stride"]),
        "short_side": rows.told["short_side"],
        "mask_resolution": _OWN if rows.keeps_truth else _WINDOWS,
        "ignored_label": IGNORE,
        "test_time_augmentation": f"flip ({mirrored})" if config.flip else "none",
    }


def _results(config, measured, protocol, origin, rows, test_rows, run=None):
    return [
        Result(
            dataset=config.dataset, metric=metric, value=value, seed=config.seed, protocol=protocol, **origin,
            train_images=rows.images, test_images=test_rows.images, tokenizer=rows.store.tokenizer["fingerprint"],
            run=run or config.output_dir,
        )
        for metric, value in measured.items()
    ]  # fmt: skip


def _means(results, protocol):
    """Mean over seeds of each measure of a protocol."""
    values: dict[str, list[float]] = {}
    for each in results:
        if each.protocol == protocol:
            values.setdefault(each.metric, []).append(each.value)
    return {metric: sum(found) / len(found) for metric, found in values.items()}


def cli() -> None:
    """Run the stage from the command line."""
    run_command(segmentation, SegmentationConfig, recipes="segmentation")


if __name__ == "__main__":
    cli()
