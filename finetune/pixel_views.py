"""Batches of pixels with labels, their augmented views, and what a classifier answers to them.

What differs from tokens: pixels always get a random resized crop (bicubic, without a filter against aliasing) and a
flip, which on small token grids do not pay; TokenAdapt, ColorAdapt, noise and edits of ids have no counterpart. CutMix
and Mixup are the same, patch by patch.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from seitpp.finetune.answers import answers_to
from seitpp.finetune.classifier import Classifier
from seitpp.finetune.evaluate import measures_of
from seitpp.mtm.augmentation.augment import AugmentConfig
from seitpp.mtm.augmentation.mixing import Mixing
from seitpp.mtm.encoder import patch_grid_of
from seitpp.runtime.errors import UserError
from seitpp.tokenadapt.geometry import sample_geometry, warp
from seitpp.tokenizers.sources.decode_ahead import decoded_batches
from seitpp.tokenizers.sources.decoding.resize import Resize
from seitpp.tokenizers.sources.images import ImageBatches, to_float
from seitpp.tokenizers.sources.jpegs.jpeg_file import JpegImages
from seitpp.tokenizers.sources.pixels import quiet_decoding
from seitpp.tokenizers.sources.source import ImageSource
from seitpp.tokenizers.sources.tolerant_reader import TolerantReader
from seitpp.tokens.to_device import moved
from seitpp.tokens.views import centre
from seitpp.training.random_streams import Draws

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True, eq=False)
class PixelBatch:
    """Pixels and what belongs to them, all on one device.

    Attributes:
        pixels: (b, 3, height, width) float32 in [0, 1].
        positions: place of each sample in the whole global batch, (b,) int64.
        labels: (b,) int64.
    """

    pixels: Tensor
    positions: Tensor
    labels: Tensor


class PixelBatches:
    """Shuffled batches of JPEGs as a function of the step, decoded by threads (small sets once), in bounded memory.

    Fewer images than a step takes come several times in a pass, each time in another view.

    Args:
        jpegs: JpegImages.
        size: (height, width) of the pixels.
        batch_size: samples of one process and micro-step.
        seed, device, accum_iter, rank, world_size: as for TrainingBatches.
    """

    def __init__(
        self, jpegs: JpegImages, size: tuple[int, int], batch_size: int, *, seed: int,
        device: torch.device | str = "cpu", accum_iter: int = 1, rank: int = 0, world_size: int = 1,
    ):  # fmt: skip
        self.rows = rows_of_a_step(len(jpegs), batch_size * accum_iter * world_size)
        self.labels = jpegs.labels
        self.batches = ImageBatches(
            TolerantReader(jpegs, size, "squash"), self.rows, batch_size, seed=seed, device=device,
            accum_iter=accum_iter, rank=rank, world_size=world_size,
        )  # fmt: skip

    def __call__(self, step: int, micro: int = 0) -> PixelBatch:
        """The PixelBatch of this process for an optimizer step and micro-step."""
        pixels, positions = self.batches(step, micro)
        chosen, _ = self.batches.order.at(step, micro)
        labels = torch.from_numpy(self.labels[self.rows[chosen]].astype(np.int64))
        return PixelBatch(pixels, positions, moved(labels, pixels.device))


def rows_of_a_step(count: int, global_batch: int) -> np.ndarray:
    """Rows of a pass, (n,) int64: each once, or as often as a step needs it."""
    return np.tile(np.arange(count), math.ceil(global_batch / count) if count < global_batch else 1)


class PixelViews:
    """Random resized crops and flips on the device, mixed patch by patch where the configuration says so.

    Args:
        config: an AugmentConfig: its `geometry` (crop and flip) and `mix` count.
        view: (height, width) of the views, pixels.
        patch_size: pixels a side of a patch.
        device: where it runs.
    """

    def __init__(
        self, config: AugmentConfig, *, view: Sequence[int], patch_size: int, device: torch.device | str
    ) -> None:
        self.geometry = replace(config.geometry, affine=0.0)
        self.view = tuple(view)
        self.mixing = None
        if config.mix.cutmix + config.mix.mixup > 0:
            self.mixing = Mixing(
                config.mix, mixup=config.mix.mixup, pairing=config.partners, view=patch_grid_of(view, patch_size),
                device=device,
            )  # fmt: skip

    @torch.no_grad()
    def mixed(self, pixels: Tensor, labels: Tensor, draws: Draws, /, *, classes: int) -> tuple[Tensor, Tensor]:
        """Views, (b, 3, h', w'), and labels, (b,), or where samples are mixed the share of each class, (b, classes).

        Raises: UserError for a batch that leaves a sample without a partner.
        """
        height, width = pixels.shape[-2:]
        geometry = sample_geometry(self.geometry, draws, width / height)
        views = warp(pixels, geometry, self.view, mode="bicubic").clamp(0, 1)
        if self.mixing is None:
            return views, labels
        if len(labels) % 2:
            raise UserError(f"mixing works on pairs of samples: --batch_size {len(labels)} must be even")
        mix = self.mixing.sample(draws)
        return mix.maps(views), mix.targets(labels, classes)


def evaluate_on_pixels(
    classifier: Classifier, images: ImageSource, targets: np.ndarray, *, size: tuple[int, int], resize: Resize,
    batch_size: int, accelerator: "Accelerator",
) -> Iterator[tuple[str, float]]:  # fmt: skip
    """Accuracy and cross-entropy (nats) on images, each once; memory is that of some batches.

    Args:
        classifier: a Classifier of pixels in evaluation mode.
        images: an ImageSource.
        targets: their classes, (n,) int64.
        size: (height, width) in which they are read; the classifier sees the centre.
        resize: what is done with images of another shape.
        batch_size: images at a time.
        accelerator: accelerate.Accelerator; each process measures a part.
    Yields: ("accuracy", fraction), ("cross_entropy", nats).
    Raises: UserError that names an image that can't be decoded.
    """
    rank, world = accelerator.process_index, accelerator.num_processes
    rows = range(rank * len(images) // world, (rank + 1) * len(images) // world)

    def views() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        with quiet_decoding(), ThreadPoolExecutor(max_workers=4) as threads:
            for pixels, done, skipped in decoded_batches(images, rows, size, batch_size, threads, resize=resize):
                for row, reason in skipped:
                    raise UserError(f"{images.where(row)} can't be decoded ({reason}): mend it or remove it")
                places = torch.tensor(done, device=accelerator.device)
                labels = moved(torch.from_numpy(targets[done]), accelerator.device)
                yield centre(to_float(moved(pixels, accelerator.device)), classifier.encoder.view), labels, places

    yield from measures_of(answers_to(classifier, views(), targets, accelerator=accelerator))
