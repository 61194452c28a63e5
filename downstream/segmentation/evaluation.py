"""Measure a segmenter on a segmentation store: whole images at their own size, each once, over all processes."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from seitpp.downstream.segmentation.scores import Confusion, count_pixels
from seitpp.downstream.segmentation.segmenter import Segmenter
from seitpp.downstream.segmentation.stitching import LogitsAt, label_maps
from seitpp.downstream.segmentation.windows import SegmentationRows
from seitpp.runtime.progress import Progress
from seitpp.tokenadapt.geometry import warp
from seitpp.tokenadapt.model import TokenAdapt, adapt_ids
from seitpp.tokens.codebook import embed

if TYPE_CHECKING:
    from accelerate import Accelerator


def confusion_over(
    logits_at: LogitsAt, rows: SegmentationRows, *, batch_size: int, accelerator: "Accelerator",
    progress: Progress | None = None,
) -> Confusion:  # fmt: skip
    """The confusion matrix of all images; a process has each `world_size`-th, with all of its windows.

    Memory is that of a batch of windows, of one image's logits and of the matrix.

    Args:
        logits_at: answers for windows.
        rows: SegmentationRows.
        batch_size: windows at a time.
        accelerator: accelerate.Accelerator.
        progress: shows how many images are done.
    Returns: the same on every process.
    """
    classes = len(rows.classes)
    counts = np.zeros((classes, classes), np.int64)
    mine = range(accelerator.process_index, rows.images, accelerator.num_processes)
    for image, labels in label_maps(logits_at, rows, mine, batch_size=batch_size, device=accelerator.device):
        counts += count_pixels(rows.truth(image), labels, classes)
        if progress is not None:
            progress.update(min(rows.images, image + 1))
    if accelerator.num_processes > 1:
        total: Any = accelerator.reduce(torch.from_numpy(counts).to(accelerator.device))
        counts = total.cpu().numpy()
    return Confusion(counts)


def logits_of(
    segmenter: Segmenter, rows: SegmentationRows, *, accelerator: "Accelerator", flip: bool = False,
    token_adapt: TokenAdapt | None = None,
) -> LogitsAt:  # fmt: skip
    """What a segmenter answers to windows of a store, in the accelerator's precision.

    Args:
        segmenter: a Segmenter in evaluation mode.
        rows: SegmentationRows.
        accelerator: accelerate.Accelerator.
        flip: average with the answer to the flipped window, flipped back. Flipped tokens are those of a flipped image
            through TokenAdapt, nearly; without it ids change their places alone, and what each shows stays as it was.
        token_adapt: for flips; None: ids are flipped.
    """
    store, device = rows.store, accelerator.device
    turned = _flipped(token_adapt, store.codebook.to(device) if token_adapt is not None else None)

    @torch.no_grad()
    def logits_at(which: np.ndarray) -> Tensor:
        ids = store.ids(which, device)
        with accelerator.autocast():
            logits = segmenter(ids).float()
            if flip:
                logits = (logits + segmenter(turned(ids)).float().flip(-1)) / 2
        return logits

    return logits_at


def _flipped(token_adapt: TokenAdapt | None, codebook: Tensor | None) -> Callable[[Tensor], Tensor]:
    if token_adapt is None or codebook is None:
        return lambda ids: ids.flip(-1)
    mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0], device=codebook.device))

    def turned(ids: Tensor) -> Tensor:
        def mirrored(features: Tensor) -> Tensor:
            return warp(features, mirror.expand(len(ids), 3, 3), token_adapt.map_size)

        return adapt_ids(token_adapt, embed(ids, codebook), mirrored)

    return turned
