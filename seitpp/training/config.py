"""What every training can be told: how long and how fast, at which precision, what is kept."""

import math
from dataclasses import dataclass
from typing import Literal

from seitpp.runtime.config import StageConfig, require


@dataclass(frozen=True, kw_only=True)
class TrainConfig(StageConfig):
    """A stage that trains. The effective batch is batch_size x accum_iter x processes."""

    batch_size: int = 64
    """samples per process and backward pass"""
    accum_iter: int = 1
    """backward passes per optimizer step"""
    epochs: float = 100
    """passes over the training set; ignored where `steps` is given"""
    steps: int | None = None
    """optimizer steps of the whole training, instead of `epochs`"""
    blr: float = 1.5e-4
    """base learning rate, which `lr_scaling` makes the peak learning rate of"""
    lr_scaling: Literal["linear", "sqrt"] = "linear"
    """linear: lr = blr x effective batch / 256; sqrt: lr = blr x sqrt(effective batch) / 8, as the published
    fine-tuning"""
    lr: float | None = None
    """absolute peak learning rate, instead of `blr`"""
    min_lr: float = 0.0
    """learning rate at the end"""
    lr_decay: Literal["cosine", "poly"] = "cosine"
    """how the learning rate falls after the warm-up. cosine: half a cosine; poly: (1 - progress) to the power of
    `poly_power`, as is usual in semantic segmentation"""
    poly_power: float = 1.0
    """exponent of poly; 1: a straight line"""
    warmup_epochs: float = 0.0
    """linear warm-up, in epochs; ignored where `warmup_steps` is given"""
    warmup_steps: int | None = None
    """linear warm-up in optimizer steps, instead of `warmup_epochs`"""
    weight_decay: float = 0.05
    """AdamW's decay of matrices; vectors (biases, gains) and embeddings are not decayed"""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's averages of the gradient and of its square"""
    clip_grad: float | None = None
    """largest norm of the gradient; None: not clipped"""
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """precision of the forward pass; auto: bf16 on a GPU; on a CPU float32, in products bf16 where
    it has units for it"""
    ema_decay: float | None = None
    """decay of an exponential moving average (EMA) of the weights, with a warm-up; it is evaluated too, and left as
    weights_ema/. None: none"""
    compile: bool = False
    """whether torch.compile makes the passes of transformer blocks, those of TokenAdapt too, and the draws; it pays
    after minutes, on GPUs"""
    shrink_batch: bool = False
    """whether batch_size halves and accum_iter doubles until a step fits into memory; the effective batch stays"""
    eval_every: int | None = None
    """steps between evaluations; there is always one at the end. 0: only that; None: with every checkpoint"""
    eval_every_epochs: int | None = None
    """epochs between evaluations, instead of `eval_every`"""
    log_every: int = 20
    """steps between lines of metrics.jsonl"""
    save_every: int = 500
    """steps between checkpoints; one is always saved at the end and on Ctrl-C or SIGTERM"""
    keep_checkpoints: int = 2
    """how many of the newest checkpoints are kept, besides the best by evaluation where the stage has one"""
    dry_run: bool = False
    """say what the training would be, take a few steps for its time and memory, write nothing, and end"""
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ("tensorboard",)
    """who gets the numbers of metrics.jsonl too, and pictures; wandb and trackio are extras of seitpp"""

    @property
    def trainings(self) -> int:
        """How many trainings a command makes, one after the other."""
        return 1

    def __post_init__(self):
        super().__post_init__()
        for name in ("batch_size", "accum_iter", "log_every", "save_every", "keep_checkpoints"):
            require(self, name, getattr(self, name) >= 1, "must be at least 1")
        require(self, "epochs", self.epochs > 0, "must be above 0")
        require(self, "warmup_epochs", self.warmup_epochs >= 0, "must not be below 0")
        require(self, "warmup_steps", self.warmup_steps is None or self.warmup_steps >= 0, "must not be below 0")
        require(self, "clip_grad", self.clip_grad is None or self.clip_grad > 0, "must be above 0")
        require(self, "steps", self.steps is None or self.steps >= 1, "must be at least 1")
        require(self, "ema_decay", self.ema_decay is None or 0 < self.ema_decay < 1, "must lie in (0, 1)")
        require(self, "eval_every", self.eval_every is None or self.eval_every >= 0, "must not be below 0")
        every = self.eval_every_epochs
        require(self, "eval_every_epochs", every is None or every >= 1, "must be at least 1")
        rate = "blr" if self.lr is None else "lr"
        require(self, rate, getattr(self, rate) > 0, "must be above 0")
        peak = math.inf if self.lr is None else self.lr  # that of `blr` is known with the number of processes only
        require(self, "min_lr", 0 <= self.min_lr <= peak, "must lie in [0, lr]")
        require(self, "poly_power", self.poly_power > 0, "must be above 0")
        require(self, "weight_decay", self.weight_decay >= 0, "must not be below 0")
        require(self, "betas", all(0 <= beta < 1 for beta in self.betas), "must lie in [0, 1)")
