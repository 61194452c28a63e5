"""Perturbations of images within a budget: FGSM, PGD, and random ones to compare with. Nothing here knows a model.

Images are (b, 3, height, width) in [0, 1], budgets are largest changes of a pixel (L-infinity) on the same scale.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

KINDS = ("random", "fgsm", "pgd")
"""random: the control, a corner of the budget that is drawn without looking at any model."""
Gradient = Callable[[Tensor], Tensor]
"""Images to the gradient of what an attack is to raise, of the same shape; no image's depends on another."""


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One attack.

    Attributes:
        kind: one of KINDS.
        budget: in 255ths, a whole number: what is attacked is a file of 8 bits.
        steps: of PGD.
        step_size: of PGD, as a multiple of budget / steps.
        restarts: how often it begins elsewhere; the worst end counts. FGSM begins at the image, so once.
    """

    kind: str
    budget: int
    steps: int = 10
    step_size: float = 2.5
    restarts: int = 1

    @property
    def name(self) -> str:
        """What results call it: "random_eps4", "fgsm_eps4", "pgd10_eps4", with three restarts "pgd10x3_eps4"."""
        steps = str(self.steps) if self.kind == "pgd" else ""
        again = f"x{self.restarts}" if self.restarts > 1 and self.kind != "fgsm" else ""
        return f"{self.kind}{steps}{again}_eps{self.budget}"

    @property
    def starts(self) -> int:
        """How many times it is run on an image."""
        return 1 if self.kind == "fgsm" or self.budget == 0 else self.restarts

    def __call__(self, images: Tensor, gradient: Gradient, start: Tensor) -> Tensor:
        """Attack images.

        Args:
            images: (b, 3, height, width) in [0, 1].
            gradient: of what it is to raise.
            start: random numbers, uniform in [-1, 1), of the images' shape.
        Returns: images within the budget and in [0, 1], of any precision; `eight_bit` makes them files again.
        """
        budget = self.budget / 255
        if self.kind == "random":
            return perturbed(images, start, budget)
        if self.kind == "fgsm":
            return perturbed(images, gradient(images), budget)
        size = self.step_size * budget / self.steps
        return projected_descent(images, gradient, budget, steps=self.steps, step_size=size, start=start)


def perturbed(images: Tensor, direction: Tensor, budget: float) -> Tensor:
    """One step to a corner of the budget: images + budget * sign(direction), in [0, 1].

    With the loss's gradient as direction it is FGSM.
    Source: Goodfellow et al. 2015 (arXiv 1412.6572), section 4.
    """
    return (images + budget * direction.sign()).clamp(0.0, 1.0)


def projected_descent(
    images: Tensor, gradient: Gradient, budget: float, *, steps: int, step_size: float, start: Tensor
) -> Tensor:
    """PGD: steps along the sign of the gradient, each brought back into the budget.

    Args:
        images: (b, 3, height, width) in [0, 1].
        gradient: of what is to be raised.
        budget: largest change of a pixel.
        steps: how many.
        step_size: change of a pixel by a step.
        start: where it begins, in [-1, 1], as a share of the budget.
    Returns: the images after the last step.
    Source: Madry et al. 2018 (arXiv 1706.06083), section 2.1 and its random start.
    """
    low, high = (images - budget).clamp(min=0.0), (images + budget).clamp(max=1.0)
    moved = (images + budget * start).clamp(low, high)
    for _ in range(steps):
        moved = (moved + step_size * gradient(moved).sign()).clamp(low, high)
    return moved


def eight_bit(images: Tensor) -> Tensor:
    """Pixels as a file holds them: [0, 1] to uint8, rounded. A budget of whole 255ths is not exceeded by it."""
    return (images * 255.0).round().to(torch.uint8)
