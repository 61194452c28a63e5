"""Train the same classifier on the images of a token store, kept as JPEGs within a number of bytes.

    seitpp train-on-jpegs --store stores/train --images photos/train --eval_store stores/test \
        --eval_images photos/test --storage jpeg75 --budget 0.3GB --output_dir runs/jpegs
    accelerate launch -m seitpp.finetune.pixels --config demo --blr_candidates '[]' --blr 0.002 …

What tokens are compared with: the encoder, its patches and positions, objective, steps, batches and seeds are those of
`seitpp finetune` with the same recipe; its stem reads pixels. Training sees what came out of the JPEGs; the test images
are read in full quality, and where training images were scaled down, these are scaled down and up again. The store says
which images there are, in which order a seed takes them, and what they are labelled. JPEGs lie in seed-0/jpegs.arrow.
"""

from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from seitpp.finetune.classifier import Classifier, save_classifier
from seitpp.finetune.labelled import LabelledRows, fingerprints, open_train_and_test, row_counts
from seitpp.finetune.objective import make_step
from seitpp.finetune.pixel_views import PixelBatches, PixelViews, evaluate_on_pixels, rows_of_a_step
from seitpp.finetune.train import FinetuneConfig, best_by
from seitpp.mtm.encoder import fitting_view
from seitpp.runtime.command import run_command
from seitpp.runtime.config import require
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.errors import UserError
from seitpp.runtime.intervals import said_accuracy
from seitpp.runtime.locations import Location
from seitpp.runtime.processes import Processes
from seitpp.runtime.progress import Progress
from seitpp.runtime.results import Result, write_results
from seitpp.runtime.run_folder import RunFolder, open_run
from seitpp.tokenizers.sources.decoding.resize import Resize, resize_of
from seitpp.tokenizers.sources.jpegs.jpeg_file import JpegImages, has_jpegs, write_jpegs
from seitpp.tokenizers.sources.jpegs.storage import Encoder, choose_form, forms_of
from seitpp.tokenizers.sources.scaled import ScaledImages
from seitpp.tokenizers.sources.selected import SelectedImages, images_of_keys
from seitpp.tokenizers.sources.source import open_source, source_fingerprint
from seitpp.tokens.one_dimensional import refuse_geometry
from seitpp.tokens.store import TokenStore
from seitpp.tokens.subset import parse_bytes, rank_rows
from seitpp.training.fit import Fitted, batch_layout, fit
from seitpp.training.optimizer import parameter_groups
from seitpp.training.rehearsal import place_for

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True, kw_only=True)
class PixelsConfig(FinetuneConfig):
    """Train on the images of a token store, kept as JPEGs within a number of bytes."""

    images: Location
    """what `store` was made of, as for seitpp tokenize"""
    eval_images: Location
    """what `eval_store` was made of, likewise"""
    storage: str = "jpeg75"
    """how training images are kept: jpeg75 (quality), jpeg75_side32 (shorter side in pixels), jpeg_fit (all images, at
    the quality that fits the budget), jpeg75_side_fit (all images, at the side that fits)"""
    budget: str | None = None
    """bytes of JPEGs, labels and keys, such as 0.3GB or 500kB (10^9 and 10^3 bytes); None: all images"""
    image_size: tuple[int, int] | None = None
    """(height, width) in which images are read; None: what the store says its tokenizer takes"""

    def __post_init__(self):
        super().__post_init__()
        require(self, "weights", self.weights is None, "must be left out: it trains from scratch")
        require(self, "stem", self.stem == "patches", "must be left out: this stem reads pixels")
        require(self, "multi_label", not self.multi_label, "must be left out")
        require(self, "sampling", self.sampling == "uniform", "must be uniform")
        advice = "is for seitpp finetune: give --blr_candidates '[]' and --blr"
        require(self, "blr_candidates", not self.blr_candidates, advice)
        forms_of(self.storage, (256, 256))
        require(self, "storage", self.budget or not self.storage.endswith("_fit"), "needs --budget")
        if self.budget is not None:
            parse_bytes(self.budget)

    @property
    def budget_bytes(self) -> int | None:
        """Bytes that may be kept; None: not limited."""
        return None if self.budget is None else parse_bytes(self.budget)


@dataclass(frozen=True)
class PixelSet:
    """The labelled rows of a token store as images.

    Attributes:
        labelled: LabelledRows.
        images: of each of its rows.
    """

    labelled: LabelledRows
    images: SelectedImages

    @cached_property
    def targets(self) -> np.ndarray:
        """Class of each image, (n,) int64."""
        return self.labelled.targets


@dataclass(frozen=True, kw_only=True)
class PixelShape:
    """How pixels belong to tokens.

    Attributes:
        size: (height, width) in which images are read.
        view: (height, width) that the encoder sees.
        patch_size: pixels a side of a patch.
        resize: what is done with images of another shape.
    """

    size: tuple[int, int]
    view: tuple[int, int]
    patch_size: int
    resize: Resize


def train_on_pixels(config: PixelsConfig) -> None:
    """Keep the JPEGs and train a classifier of each seed, write results.csv."""
    accelerator = make_accelerator(config.mixed_precision)
    processes = Processes(accelerator)
    train_set, test_set, shape = processes.agree(lambda: open_pixels(config))
    known = fingerprints(train_set.labelled, test_set.labelled)
    for name, each in (("images", train_set), ("eval_images", test_set)):
        known["data"][name] = source_fingerprint(each.images) if processes.is_main else None
    run = open_run(config, accelerator, stage="finetune.pixels", **known)
    if run.finished:
        accelerator.print(f"{run.path}: finished before, nothing to do")
        return
    results = []
    for seed in range(config.seed, config.seed + config.seeds):
        each = replace(config, seed=seed, output_dir=str(run.path / f"seed-{seed}"))
        measures, kept = fit_on_pixels(each, train_set, test_set, shape, accelerator, processes, known, within=run)
        counts = {**row_counts(train_set.labelled, test_set.labelled), "tokenizer": ""}
        counts |= {"train_images": kept, "label_fraction": kept / len(train_set.labelled.store)}
        results += [
            Result(
                dataset=config.dataset, metric=metric, value=value, seed=seed, protocol="finetune", init="scratch",
                storage=config.storage, run=config.output_dir, **{**counts, "budget_bytes": config.budget_bytes},
            )
            for metric, value in measures.items() if not metric.endswith("_ema")
        ]  # fmt: skip
    run.begin()
    if accelerator.is_main_process:
        write_results(run.path, results)
        values = [result.value for result in results if result.metric == "accuracy"]
        run.finish({"accuracy": sum(values) / len(values)})
        print(f"{config.dataset}, {config.storage}: accuracy {said_accuracy(values, results[0].test_images)}, "
              f"learned from {results[0].train_images:,} images")  # fmt: skip
    accelerator.end_training()


def open_pixels(config: PixelsConfig) -> tuple[PixelSet, PixelSet, PixelShape]:
    """The images to learn from and to measure on, and how they become patches; no image is decoded.

    Raises: UserError if stores and images do not belong together, or pixels can't be divided as tokens are.
    """
    train_set, test_set = open_train_and_test(config)
    sets = [
        PixelSet(each, _images_of(each, images))
        for each, images in ((train_set, config.images), (test_set, config.eval_images))
    ]
    return sets[0], sets[1], shape_of(config, train_set.store)


def _images_of(labelled: LabelledRows, images: str) -> SelectedImages:
    keys = labelled.store.keys()
    wanted = [keys[row] for row in labelled.rows]
    return images_of_keys(open_source(images), wanted, where=images, store=labelled.store.folder)


def shape_of(config: PixelsConfig, store: TokenStore) -> PixelShape:
    """Patches of pixels that show what the patches of a store's tokens show.

    Raises: UserError if the store does not say the size of its images, or tokens are no squares of whole pixels.
    """
    advice = "give stores of a grid's tokens (storage-curve: --jpegs '[]')"
    refuse_geometry(store, store.folder, {"patches of pixels that show what its tokens show": advice})
    preprocessing = store.manifest["preprocessing"]
    given = config.image_size or preprocessing.get("image_size")
    if given is None:
        raise UserError(f"{store.folder} does not say the size of its images: give --image_size '[256, 256]'")
    size = (int(given[0]), int(given[1]))
    sides = {side / tokens for side, tokens in zip(size, store.grid, strict=True)}
    side = int(sides.pop())
    if sides or side * store.grid[0] != size[0]:
        raise UserError(
            f"{store.folder}: {store.grid} tokens do not divide images of {size} into squares of whole pixels: "
            f"give another --image_size"
        )
    view = fitting_view(config.view, store.grid, config.encoder.patch_size)
    return PixelShape(
        size=size, view=(view[0] * side, view[1] * side), patch_size=side * config.encoder.patch_size,
        resize=resize_of(preprocessing),
    )  # fmt: skip


def keep_jpegs(folder: Path, config: PixelsConfig, train_set: PixelSet, shape: PixelShape) -> None:
    """Write a seed's JPEGs, unless they are there: class by class in turn, as a subset takes rows."""
    if has_jpegs(folder):
        return
    encoder = Encoder(train_set.images, shape.size, shape.resize)
    ranked = rank_rows(np.arange(len(train_set.images)), train_set.targets, seed=config.seed)
    form = choose_form(config.storage, encoder, ranked, config.budget_bytes)
    with Progress(len(ranked), f"{config.storage}, seed {config.seed}") as progress:
        write_jpegs(
            folder, encoder, ranked, train_set.targets, train_set.labelled.classes, form, config.budget_bytes, progress
        )  # fmt: skip


def fit_on_pixels(
    config: PixelsConfig, train_set: PixelSet, test_set: PixelSet, shape: PixelShape, accelerator: "Accelerator",
    processes: Processes, known: dict[str, Any], *, within: RunFolder,
) -> tuple[dict[str, float], int]:  # fmt: skip
    """Keep the JPEGs of a seed and train one classifier on them, in a run folder of its own.

    Args:
        config: a PixelsConfig; its `seed` counts, its `seeds` does not.
        train_set: images to learn from.
        test_set: images to measure on.
        shape: of both.
        accelerator: accelerate.Accelerator.
        processes: the launch's.
        known: `inputs` and `data` of the run.
        within: the run that this one is a part of.
    Returns: (the last evaluation, as `seitpp.finetune.train.fit_classifier`; images that were learned from).
    """
    run = open_run(config, accelerator, stage="finetune.pixels/once", within=within, **known)
    if run.finished:
        return run.summary, len(JpegImages(run.path))
    if not config.dry_run:
        run.begin()
    with place_for(run.path, config, processes) as place:
        processes.from_main(lambda: keep_jpegs(place, config, train_set, shape))
        jpegs = JpegImages(place)
        fitted = _fit(run, config, jpegs, train_set, test_set, shape, accelerator)
    run.finish(fitted.measures)
    accelerator.wait_for_everyone()
    return fitted.measures, len(jpegs)


def _fit(
    run: RunFolder, config: PixelsConfig, jpegs: JpegImages, train_set: PixelSet, test_set: PixelSet,
    shape: PixelShape, accelerator: "Accelerator",
) -> Fitted:  # fmt: skip
    """Train a classifier on JPEGs."""
    classes = train_set.labelled.classes
    kept_in = (int(jpegs.described["size"][0]), int(jpegs.described["size"][1]))
    test_images = test_set.images if kept_in == shape.size else ScaledImages(test_set.images, kept_in)
    torch.manual_seed(config.seed)
    classifier = Classifier(
        replace(config.encoder, patch_size=shape.patch_size), view=shape.view, codebook_size=None, embedding_dim=3,
        classes=len(classes), stem="pixels", drop_path=config.drop_path, learned_positions=config.learned_positions,
    )  # fmt: skip
    classifier.encoder.grad_checkpointing = config.grad_checkpointing

    def evaluate(model):
        return dict(
            evaluate_on_pixels(
                model, test_images, test_set.targets, size=shape.size, resize=shape.resize,
                batch_size=run.config.batch_size, accelerator=accelerator,
            )
        )  # fmt: skip

    rows = rows_of_a_step(len(jpegs), config.batch_size * config.accum_iter * accelerator.num_processes)
    views = PixelViews(config.augment, view=shape.view, patch_size=shape.patch_size, device=accelerator.device)
    origin = {"init": "scratch", "augmentation": "", "budget_bytes": config.budget_bytes, "train_images": len(jpegs)}
    return fit(
        run, accelerator, classifier, title=f"{config.storage}, seed {config.seed}", samples=len(rows),
        batches=lambda config: PixelBatches(jpegs, shape.size, **batch_layout(config, accelerator)),
        step=make_step(
            views, classes=len(classes), loss=config.loss, smoothing=config.label_smoothing, seed=config.seed,
            compiled=config.compile, inputs="pixels",
        ),
        evaluate=evaluate, best_by=best_by(config),
        groups=parameter_groups(
            classifier, weight_decay=config.weight_decay, layer_decay=config.layer_decay, layers=classifier.layers,
            layer_of=classifier.layer_of,
        ),
        save=partial(save_classifier, tokenizer="pixels", class_names=classes, origin=origin),
    )  # fmt: skip


def cli() -> None:
    """Run the stage from the command line."""
    run_command(train_on_pixels, PixelsConfig, recipes="finetune")


if __name__ == "__main__":
    cli()
