"""What a measured step of training on tokens begins with."""

from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.synthetic import VIEW, make_token_adapt
from seitpp.mtm.augmentation.augment import Augment
from seitpp.runtime.devices import make_accelerator
from seitpp.tokenadapt.model import TokenAdaptConfig
from seitpp.tokens.loader import TrainingBatches
from seitpp.tokens.store import open_store
from seitpp.training.batched_draws import BatchedDraws


@dataclass
class TokenStep:
    """What steps of pre-training and of fine-tuning share: tokens, their augmentation with TokenAdapt, and chance.

    Args:
        folder: of the store; TokenAdapt is written beside it.
        batch_size: samples.
        asked: precision, as `mixed_precision` in TrainConfig.
        quick: whether models are tiny.
        compiled: as `compile` in TrainConfig.
    """

    folder: Path
    batch_size: int
    asked: str
    quick: bool
    compiled: bool

    def open_inputs(self, augment):
        """Choose the device and make all that comes before the model; `augment` is an AugmentConfig."""
        self.accelerator = make_accelerator(self.asked)
        self.device, self.precision = self.accelerator.device, self.accelerator.mixed_precision
        self.adapt_shape = TokenAdaptConfig(width=64) if self.quick else TokenAdaptConfig()
        self.adapt = make_token_adapt(self.folder / "tokenadapt", self.adapt_shape)
        store = open_store(self.folder / "store")
        augment = replace(augment, token_adapt=str(self.folder / "tokenadapt"))
        self.augment = Augment(
            augment, store=store, view=VIEW, device=self.device, autocast=self.accelerator.autocast,
            compiled=self.compiled,
        )  # fmt: skip
        self.batches = TrainingBatches(store, self.batch_size, seed=0, device=self.device)
        self.chance = BatchedDraws(0, compiled=self.compiled)
