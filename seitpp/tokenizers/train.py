"""Train a VQ tokenizer on your own images.

    python -m seitpp.tokenizers.train --images photos --output_dir runs/tokenizer
    accelerate launch -m seitpp.tokenizers.train --config demo --images photos --output_dir runs/tokenizer

The loss is the mean squared error of pixels plus the commitment of the encoder to its codes (van den Oord et al.
2017, eq. 3). The first part of the steps runs unquantised; then the codes start as k-means centres of encoder
outputs, follow them by exponential moving averages (ibid., appendix A.1), and codes that nobody uses start again at
an encoder output of the batch (Dhariwal et al. 2020, Jukebox), drawn in proportion to its distance to its code.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from seitpp.runtime.command import run_command
from seitpp.runtime.config import require
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.locations import Location
from seitpp.runtime.pictures import grid_pixels, image_grid
from seitpp.runtime.run_folder import open_run
from seitpp.tokenizers.ema_codebook import EMACodebook, patch_weights
from seitpp.tokenizers.networks.vq import VQConfig, VQTokenizer
from seitpp.tokenizers.reconstruction import measure_reconstruction
from seitpp.tokenizers.sources.decoding.resize import Resize
from seitpp.tokenizers.sources.images import ImageBatches, read_rows, say_left_out, split_rows
from seitpp.tokenizers.sources.pixels import quiet_decoding
from seitpp.tokenizers.sources.source import open_source, source_fingerprint
from seitpp.tokenizers.sources.tolerant_reader import TolerantReader
from seitpp.tokens.codebook import embed, nearest_code
from seitpp.training.announce import say_result
from seitpp.training.config import TrainConfig
from seitpp.training.fit import Step, batch_layout, fit
from seitpp.training.fsdp import refuse_sharding
from seitpp.training.random_streams import Draws
from seitpp.training.schedule import make_schedule

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True, kw_only=True)
class TrainTokenizerConfig(TrainConfig):
    """Train a VQ tokenizer on a folder of images."""

    images: Location
    """folder of images, in class folders or not; .tar files, hfds/NAME or torch/NAME, as for seitpp tokenize"""
    model: VQConfig = field(default_factory=VQConfig)
    """shape of the tokenizer"""
    resize: Resize = "crop"
    """what is done with images of another shape, here and wherever the tokenizer is used: crop keeps the centre, pad
    adds a white border, squash changes the aspect"""
    held_out: float = 0.05
    """fraction of the images that PSNR is measured on"""
    max_skipped: float = 0.001
    """fraction of the images that may fail to decode before the training ends with an error; it goes on without them"""
    unquantised: float = 0.2
    """fraction of the steps before the codebook starts"""
    commitment: float = 0.25
    """weight of the encoder's distance to its codes"""
    codebook_decay: float = 0.95
    """of the codes' moving averages"""
    dead_below: float = 0.05
    """a code used less often a step than this, on average, starts again"""
    flat_weight: float = 0.02
    """how much a patch of one colour counts for the codebook; the most detailed count 1. Where flat patches count as
    much, half of the codes go to the shades of a background, and tokens of like patches differ by chance"""
    blr: float = 0.024
    """base learning rate, for an effective batch of 256"""
    eval_every: int | None = 2500
    """steps between evaluations; there is always one at the end. 0: only that; None: with every checkpoint"""

    def __post_init__(self):
        super().__post_init__()
        require(self, "held_out", 0 < self.held_out < 1, "must lie in (0, 1)")
        require(self, "max_skipped", 0 <= self.max_skipped <= 1, "must lie in [0, 1]")
        require(self, "unquantised", 0 <= self.unquantised < 1, "must lie in [0, 1)")


@quiet_decoding()
def main(config: TrainTokenizerConfig) -> None:
    """Train, measure on held-out images, write weights and a picture of reconstructions."""
    accelerator = make_accelerator(config.mixed_precision)
    refuse_sharding(accelerator, "train-tokenizer")
    images = open_source(config.images)
    data = {"images": source_fingerprint(images)} if accelerator.is_main_process else {}
    run = open_run(config, accelerator, stage="tokenizers.train", data=data, may_be_mended=("images",))
    if run.finished:
        accelerator.print(f"{run.path}: finished before, nothing to do")
        return
    train_rows, held_out_rows = split_rows(len(images), config.held_out, config.seed)
    torch.manual_seed(config.seed)
    model = TrainedTokenizer(config)
    reader = TolerantReader(images, config.model.image_size, config.resize, max_skipped=config.max_skipped)
    held_out = read_rows(reader, held_out_rows[:256]).to(accelerator.device)

    def batches(config):
        return ImageBatches(reader, train_rows, **batch_layout(config, accelerator))

    def evaluate(model):
        return measure_reconstruction(model.tokenizer, held_out, accelerator)

    def rows(tokenizer, images):
        return [images, tokenizer.decode(tokenizer.encode(images))]

    def save(folder, model):
        model.tokenizer.standardise()
        model.tokenizer.save(folder)

    steps = make_schedule(config, samples=len(train_rows), world_size=accelerator.num_processes).total_steps
    step = make_step(config, model, batches(config), round(config.unquantised * steps), accelerator)
    fitted = fit(
        run, accelerator, model, title="tokenizer", samples=len(train_rows), batches=batches, step=step,
        largest_step=quantised_step, save=save, evaluate=evaluate,
        pictures=lambda model: {"reconstructions": grid_pixels(rows(model.tokenizer, held_out[:6]))},
    )  # fmt: skip
    if accelerator.is_main_process:
        tokenizer: Any = fitted.model.tokenizer
        image_grid(rows(tokenizer, held_out[:16]), run.path / "reconstructions.png")
        described = {"codebook_size": config.model.codebook_size, "fingerprint": tokenizer.fingerprint}
        run.finish({**fitted.measures, **described})
        say_left_out(run.path, reader)
        say_result(
            "tokenizer", fitted.measures,
            following=(
                "seitpp", "tokenize", "--images", config.images, "--tokenizer", str(run.path), "--output_dir", "STORE"
            ),
        )  # fmt: skip
    accelerator.end_training()


def make_step(
    config: TrainTokenizerConfig,
    trained: "TrainedTokenizer",
    batches: ImageBatches,
    quantised_from: int,
    accelerator: "Accelerator",
) -> Step:
    """The step: reconstruct images, from `quantised_from` on through the codebook, which follows.

    Args:
        config: weights of the losses and of flat patches.
        trained: the module, not prepared: its codebook is moved here, not by the optimizer.
        batches: of whose pixels the codes start.
        quantised_from: the first step with a codebook.
        accelerator: accelerate.Accelerator.
    """
    tokenizer, codebook = trained.tokenizer, trained.codebook

    def step(model, batch, index):
        pixels, positions = batch
        if index == quantised_from:
            with torch.no_grad():
                sample = torch.cat([batches(index + extra)[0] for extra in range(8)])
                latents = rearrange(tokenizer.latents(sample), "b c h w -> (b h w) c")
            codebook.start(tokenizer, latents, patch_weights(sample, tokenizer.grid, config.flat_weight), config.seed)
        reconstruction, latents, ids = model(pixels, index >= quantised_from)
        error = F.mse_loss(reconstruction, pixels)
        loss, numbers = error, {"mse": error}
        if ids is not None:
            flat, ids = rearrange(latents, "b c h w -> (b h w) c"), ids.flatten()
            commitment = F.mse_loss(flat, F.embedding(ids, tokenizer.codebook))
            loss = loss + config.commitment * commitment
            numbers["commitment"] = commitment
            draws = Draws(config.seed, index, torch.zeros_like(positions[:1]))
            weights = patch_weights(pixels, tokenizer.grid, config.flat_weight)
            codebook.update(tokenizer, flat.detach(), ids, weights, draws, accelerator)
        return loss, numbers

    return step


def quantised_step(
    model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor], index: int
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """A step through the codebook, which stays as it is: the most memory that a step takes."""
    reconstruction, latents, _ = model(batch[0], True)
    return F.mse_loss(reconstruction, batch[0]) + latents.square().mean(), {}


class TrainedTokenizer(nn.Module):
    """One forward pass for training, so that DDP sees every parameter; the codebook's averages ride along.

    Args:
        config: a TrainTokenizerConfig.
    """

    def __init__(self, config: TrainTokenizerConfig):
        super().__init__()
        self.tokenizer = VQTokenizer.untrained(config.model)
        self.tokenizer.resize = config.resize
        self.tokenizer.codebook.requires_grad_(False)
        self.codebook = EMACodebook(self.tokenizer, decay=config.codebook_decay, dead_below=config.dead_below)

    def forward(self, pixels: torch.Tensor, quantised: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """(reconstruction, latents (b, c, h, w), ids (b, h, w) or None before the codebook has started)."""
        latents = self.tokenizer.latents(pixels)
        if not quantised:
            return self.tokenizer.pixels(latents), latents, None
        ids = nearest_code(latents.detach(), self.tokenizer.codebook, self.tokenizer.lookup)
        straight_through = latents + (embed(ids, self.tokenizer.codebook) - latents).detach()
        return self.tokenizer.pixels(straight_through), latents, ids


def cli() -> None:
    """Run the stage from the command line."""
    run_command(main, TrainTokenizerConfig, recipes="train_tokenizer")


if __name__ == "__main__":
    cli()
