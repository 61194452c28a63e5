"""What tells methods apart in results, and what kind each is."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import pandas as pd

Kind = Literal["pretrained", "scratch", "frozen", "baseline"]
KEY = ("protocol", "init", "augmentation", "label_fraction", "budget_bytes", "storage", "label")
"""Columns of `seitpp.report.found_results.all_results` that tell methods apart."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """How accuracies came about, in identifiers of `seitpp.runtime.results.Result`.

    Attributes:
        protocol: how labels were learned: "finetune", "linear", "knn10", "linear_grid", "majority", …
        init: where the network or the features come from: "scratch", "mtm", "classifier", "random", "pixels", …
        augmentation: of pre-training.
        label_fraction: fraction of the labels that was learned from.
        budget_bytes: of the training tokens; None: not limited.
        storage: how the training images were stored; "": as tokens.
        run: label of the run that measured it, where several measured the same; else "".
    """

    protocol: str
    init: str
    augmentation: str = ""
    label_fraction: float = 1.0
    budget_bytes: int | None = None
    storage: str = ""
    run: str = ""

    @property
    def kind(self) -> Kind:
        """Pre-trained or from scratch, and then trained on labels; a probe of pre-trained features; or a baseline."""
        if self.protocol == "finetune":
            return "scratch" if self.init == "scratch" else "pretrained"
        return "frozen" if self.init == "mtm" else "baseline"

    @property
    def control(self) -> "Method":
        """The same protocol on an encoder that was never trained."""
        return replace(self, init="random", augmentation="")

    @property
    def standing(self) -> tuple[Any, ...]:
        """What methods are sorted by, the main one first: all of it is known before anything is measured.

        All labels before a part of them, no budget before one, tokens before other storage, fine-tuning before probes,
        MTM before other starts, and the pre-training with most augmentations (SeiT++'s) before those with fewer.
        """
        augmentations = [part for part in self.augmentation.split("+") if part]
        return (
            -self.label_fraction, self.budget_bytes is not None, -(self.budget_bytes or 0), self.storage,
            self.protocol != "finetune", self.init != "mtm", self.init, -len(augmentations), self.augmentation,
            self.run,
        )  # fmt: skip

    def same_labels(self, other: "Method") -> bool:
        """Whether both learned from the same fraction of the labels, within the same budget, stored the same way."""
        own, others = ((each.label_fraction, each.budget_bytes, each.storage) for each in (self, other))
        return own == others


def method_of(row: Any) -> Method:
    """The Method of a row (named tuple) that has the columns of KEY."""
    return Method(
        protocol=row.protocol, init=row.init, augmentation=row.augmentation, label_fraction=float(row.label_fraction),
        budget_bytes=None if pd.isna(row.budget_bytes) else int(row.budget_bytes), storage=row.storage,
        run=row.label,
    )  # fmt: skip
