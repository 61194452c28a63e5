"""Right answers counted class by class, from which accuracy and the mean over the classes follow."""

from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange, repeat
from torch import Tensor

if TYPE_CHECKING:
    from accelerate import Accelerator


class Hits:
    """Rows and right answers of each class, for several ways to answer at once.

    Args:
        classes: how many there are.
        ways: how many ways to answer are counted.
        device: torch.device of targets and answers.
    """

    def __init__(self, classes: int, ways: int, device: torch.device):
        self._rows = torch.zeros(classes, dtype=torch.int64, device=device)
        self._right = torch.zeros(ways, classes, dtype=torch.int64, device=device)

    def add(self, answers: Tensor, targets: Tensor) -> None:
        """Count a batch.

        Args:
            answers: (b, ways) int64.
            targets: (b,) int64.
        """
        right = (answers == targets[:, None]).to(torch.int64)
        self._rows.scatter_add_(0, targets, torch.ones_like(targets))
        self._right.scatter_add_(1, repeat(targets, "b -> w b", w=len(self._right)), rearrange(right, "b w -> w b"))

    def measures(self, accelerator: "Accelerator") -> list[dict[str, float]]:
        """Of each way, over all processes: {"accuracy", "mean_per_class"}, fractions.

        The mean is over the classes that have rows.
        """
        rows: Any = self._rows
        right: Any = self._right
        if accelerator.num_processes > 1:
            rows, right = accelerator.reduce(rows), accelerator.reduce(right)
        there, total = rows > 0, int(rows.sum())
        fractions = right[:, there].double() / rows[there]
        return [
            {"accuracy": int(each.sum()) / total, "mean_per_class": float(share.mean())}
            for each, share in zip(right, fractions, strict=True)
        ]
