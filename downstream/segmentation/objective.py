"""What a segmenter learns from: the cross-entropy of every labelled pixel of augmented views."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seitpp.downstream.segmentation.views import WindowViews
from seitpp.downstream.segmentation.windows import IGNORE
from seitpp.training.batched_draws import BatchedDraws


def pixel_loss(
    logits: Tensor, masks: Tensor, weights: Tensor | None = None,
    mean_over_processes: Callable[[Tensor], Tensor] = lambda count: count,
) -> Tensor:  # fmt: skip
    """Mean cross-entropy over the labelled pixels of a batch, nats; 0 where there are none.

    Args:
        logits: (b, k, h, w) float; they are enlarged to the label maps, bilinear, as is usual.
        masks: (b, H, W) uint8, IGNORE where unknown.
        weights: of the classes, (k,); None: all alike. The mean is weighted then.
        mean_over_processes: of a number. Where each process divides by it, not by its own pixels, the mean of their
            losses is that of all their pixels.
    """
    targets = masks.long()
    enlarged = F.interpolate(logits.float(), size=masks.shape[1:], mode="bilinear", align_corners=False)
    total = F.cross_entropy(enlarged, targets, weight=weights, ignore_index=IGNORE, reduction="sum")
    known = targets != IGNORE
    if weights is None:
        counted = known.sum().float()
    else:
        counted = torch.where(known, weights[targets.clamp(max=len(weights) - 1)], 0.0).sum()
    return total / mean_over_processes(counted).clamp(min=1e-6)


def pixel_accuracy(logits: Tensor, masks: Tensor) -> Tensor:
    """Share of labelled pixels that are right, at the logits' resolution: a number to watch, not to report."""
    targets = F.interpolate(masks[:, None].float(), size=logits.shape[2:], mode="nearest")[:, 0]
    known = targets != IGNORE
    return ((logits.argmax(1) == targets) & known).sum() / known.sum().clamp(min=1)


def make_step(
    views: WindowViews, *, auxiliary: float, class_weights: tuple[float, ...], seed: int, compiled: bool,
    mean_over_processes: Callable[[Tensor], Tensor] = lambda count: count,
) -> Callable[[Any, Any, int], tuple[Tensor, dict[str, Tensor]]]:  # fmt: skip
    """The step of a training on WindowBatches.

    Args:
        views: makes augmented views.
        auxiliary: weight of the auxiliary head's loss.
        class_weights: of the classes; (): all alike.
        seed: of the run.
        compiled: whether draws are compiled.
        mean_over_processes: see `pixel_loss`.
    """
    streams = BatchedDraws(seed, compiled=compiled)

    def step(model: Any, batch: Any, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        ids, masks = views(batch.ids, batch.masks, streams.at(index, batch.positions))
        weights = torch.tensor(class_weights, device=ids.device) if class_weights else None
        logits, second = model(ids)
        loss = pixel_loss(logits, masks, weights, mean_over_processes)
        numbers = {"pixel_accuracy": pixel_accuracy(logits.detach(), masks)}
        if second is not None:
            loss = loss + auxiliary * pixel_loss(second, masks, weights, mean_over_processes)
        return loss, numbers

    return step
