"""What a classifier learns from: the loss of augmented views against labels, mixed ones included."""

from collections.abc import Callable
from typing import Any, Literal, Protocol

import torch.nn.functional as F
from torch import Tensor

from seitpp.training.batched_draws import BatchedDraws
from seitpp.training.random_streams import Draws

Loss = Literal["cross_entropy", "binary"]
"""cross_entropy: over classes that exclude each other, against probabilities where samples are mixed; binary: each
class for itself (arXiv 2110.00476), which rows with several labels need."""


class Views(Protocol):
    """What makes the views of a batch: `seitpp.mtm.augmentation.augment.Augment` of tokens, and others."""

    def mixed(self, inputs: Tensor, labels: Tensor, draws: Draws, /, *, classes: int) -> tuple[Tensor, Tensor]:
        """(views, targets): labels, (b,), or the share of each class, (b, classes), where samples are mixed."""
        ...


def loss_of(kind: Loss, logits: Tensor, targets: Tensor, *, smoothing: float) -> Tensor:
    """The loss of a batch, nats.

    Args:
        kind: which.
        logits: (b, classes) float32.
        targets: labels, (b,) int64, or the share of each class, (b, classes).
        smoothing: fraction of a target that is spread over all classes.
    """
    if kind == "cross_entropy":
        return F.cross_entropy(logits, targets, label_smoothing=smoothing)
    classes = logits.shape[1]
    shares = F.one_hot(targets, classes) if targets.ndim == 1 else targets
    return F.binary_cross_entropy_with_logits(logits, (1 - smoothing) * shares.float() + smoothing / classes)


def make_step(
    augment: Views, *, classes: int, loss: Loss, smoothing: float, seed: int, compiled: bool, inputs: str = "ids"
) -> Callable[[Any, Any, int], tuple[Tensor, dict[str, Tensor]]]:
    """The step of a training: classify augmented views, with mixed labels where samples are mixed.

    Args:
        augment: makes the views.
        classes: how many.
        loss: which.
        smoothing: of the targets.
        seed: of the run.
        compiled: whether draws are compiled.
        inputs: which part of a batch views are made of.
    """
    streams = BatchedDraws(seed, compiled=compiled)

    def step(model: Any, batch: Any, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        draws = streams.at(index, batch.positions)
        views, targets = augment.mixed(getattr(batch, inputs), batch.labels, draws, classes=classes)
        logits = model(views).float()
        value = loss_of(loss, logits, targets, smoothing=smoothing)
        if batch.labels.ndim == 2:
            return value, {}
        dominant = targets if targets.ndim == 1 else targets.argmax(1)
        return value, {"accuracy": (logits.argmax(1) == dominant).float().mean()}

    return step
