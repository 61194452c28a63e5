"""Train a VQ tokenizer on your own images.

    python -m seitpp.tokenizers.train --images photos --output_dir runs/tokenizer
    accelerate launch -m seitpp.tokenizers.train --config demo --images photos --output_dir runs/tokenizer

The loss is the mean squared error of pixels plus the commitment of the encoder to its codes (van den Oord et al.
2017, eq. 3). The first part of the steps runs unquantised; then the codes start as k-means centres of encoder
outputs, follow them by exponential moving averages (ibid., appendix A.1), and codes that nobody uses start again at
an encoder output of the batch (Dhariwal et al. 2020, Jukebox), drawn in proportion to its distance to its code.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from accelerate.utils import broadcast
from einops import rearrange
from torch import nn

from seitpp.runtime.command import run_command
from seitpp.runtime.config import require
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.pictures import image_grid
from seitpp.runtime.run_folder import open_run
from seitpp.tokenizers.kmeans import kmeans, weighted_choice
from seitpp.tokenizers.networks.vq import VQConfig, VQTokenizer
from seitpp.tokenizers.reconstruction import measure_reconstruction
from seitpp.tokenizers.sources.images import ImageBatches, read_all, split_rows
from seitpp.tokenizers.sources.source import open_source
from seitpp.tokens.codebook import embed, nearest_code
from seitpp.training.config import TrainConfig
from seitpp.training.loop import train
from seitpp.training.optimizer import make_adamw, parameter_groups
from seitpp.training.random_streams import Draws
from seitpp.training.schedule import make_schedule


@dataclass(frozen=True, kw_only=True)
class TrainTokenizerConfig(TrainConfig):
    """Train a VQ tokenizer on a folder of images."""

    images: str
    """folder of images, in class folders or not; .tar files, hfds/NAME or torch/NAME, as for seitpp tokenize"""
    model: VQConfig = field(default_factory=VQConfig)
    """shape of the tokenizer"""
    held_out: float = 0.05
    """share of the images that PSNR is measured on"""
    unquantised: float = 0.2
    """share of the steps before the codebook starts"""
    commitment: float = 0.25
    """weight of the encoder's distance to its codes"""
    ema_decay: float = 0.95
    """of the codes' moving averages"""
    dead_below: float = 0.05
    """a code used less often a step than this, on average, starts again"""
    flat_weight: float = 0.02
    """how much a patch of one colour counts for the codebook; the most detailed count 1. Where flat patches count as
    much, half of the codes go to the shades of a background, and tokens of like patches differ by chance"""
    blr: float = 0.024
    """base learning rate, for an effective batch of 256"""

    def __post_init__(self):
        super().__post_init__()
        require(self, "held_out", 0 < self.held_out < 1, "must lie in (0, 1)")
        require(self, "unquantised", 0 <= self.unquantised < 1, "must lie in [0, 1)")


class EMACodebook(nn.Module):
    """Moves a tokenizer's codes: k-means start, moving averages, revival of dead codes.

    Args:
        tokenizer: the VQTokenizer whose codebook it owns.
        decay: of the averages.
        dead_below: average uses a step below which a code starts again.
    """

    def __init__(self, tokenizer, *, decay, dead_below):
        super().__init__()
        codes, width = tokenizer.codebook.shape
        self.decay = decay
        self.dead_below = dead_below
        self.register_buffer("uses", torch.ones(codes))
        self.register_buffer("sums", torch.zeros(codes, width))

    @torch.no_grad()
    def start(self, tokenizer, latents, weights, seed):
        """Set the codes to k-means centres of the main process's `latents`, (n, c), that count by `weights`, (n,)."""
        centres = broadcast(kmeans(latents, weights, len(self.uses), seed=seed))
        tokenizer.codebook.copy_(centres)
        self.sums.copy_(centres)
        self.uses.fill_(1.0)

    @torch.no_grad()
    def update(self, tokenizer, latents, ids, weights, draws, accelerator):
        """Follow the latents of a batch.

        Args:
            tokenizer: the VQTokenizer.
            latents: (n, c).
            ids: their codes, (n,).
            weights: how much each counts, (n,).
            draws: Draws that revived codes choose their latent by.
            accelerator: sums are taken over all its processes.
        """
        uses = torch.zeros_like(self.uses).index_add_(0, ids, weights)
        sums = torch.zeros_like(self.sums).index_add_(0, ids, latents * weights[:, None])
        uses, sums = accelerator.reduce(uses), accelerator.reduce(sums)
        self.uses.lerp_(uses, 1.0 - self.decay)
        self.sums.lerp_(sums, 1.0 - self.decay)
        dead = self.uses < self.dead_below
        distance = (latents - F.embedding(ids, tokenizer.codebook)).square().sum(dim=1)
        choice = weighted_choice(weights * distance, draws.uniform("revive", len(self.uses))[0])
        replacement = broadcast(latents[choice])
        self.sums.copy_(torch.where(dead[:, None], replacement, self.sums))
        self.uses.copy_(torch.where(dead, torch.ones_like(self.uses), self.uses))
        tokenizer.codebook.copy_(self.sums / self.uses[:, None].clamp_min(1e-12))


def main(config):
    """Train, measure on held-out images, write weights and a picture of reconstructions."""
    accelerator = make_accelerator(config.mixed_precision)
    run = open_run(config, accelerator, stage="tokenizers.train")
    if run.finished:
        accelerator.print(f"{run.path}: finished before, nothing to do")
        return
    images = open_source(config.images)
    train_rows, held_out_rows = split_rows(len(images), config.held_out, config.seed)
    torch.manual_seed(config.seed)
    tokenizer = VQTokenizer.untrained(config.model)
    tokenizer.codebook.requires_grad_(False)
    codebook = EMACodebook(tokenizer, decay=config.ema_decay, dead_below=config.dead_below)
    schedule = make_schedule(config, samples=len(train_rows), world_size=accelerator.num_processes)
    optimizer = make_adamw(parameter_groups(tokenizer, weight_decay=config.weight_decay), config)
    batches = ImageBatches(
        images, train_rows, config.model.image_size, config.batch_size, seed=config.seed, device=accelerator.device,
        accum_iter=config.accum_iter, rank=accelerator.process_index, world_size=accelerator.num_processes,
    )  # fmt: skip
    trained = _Trained(tokenizer, codebook)
    model, optimizer = accelerator.prepare(trained, optimizer)
    quantised_from = round(config.unquantised * schedule.total_steps)

    def step(batch, index):
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

    held_out = read_all(images, held_out_rows[:256], config.model.image_size).to(accelerator.device)
    measures = train(
        accelerator, run, model=model, optimizer=optimizer, schedule=schedule, batch_at=batches, step=step,
        title="tokenizer", evaluate=lambda: measure_reconstruction(tokenizer, held_out),
        eval_every=5 * config.save_every,
    )  # fmt: skip
    if accelerator.is_main_process:
        tokenizer.eval().standardise()
        tokenizer.save(run.weights)
        picture = held_out[:16]
        image_grid([picture, tokenizer.decode(tokenizer.encode(picture))], run.path / "reconstructions.png")
        run.finish({**measures, "codebook_size": config.model.codebook_size, "fingerprint": tokenizer.fingerprint})
    accelerator.end_training()


def patch_weights(images, grid, flat_weight):
    """How much each patch counts for the codebook, by the deviation of its pixels.

    Args:
        images: (b, 3, H, W) in [0, 1].
        grid: (h, w) of the patches.
        flat_weight: weight of a patch of one colour, relative to one of deviation 1/2, the largest there is.
    Returns: (b * h * w,) float32 of mean 1.
    """
    patches = rearrange(images, "b c (h p) (w q) -> (b h w) c (p q)", h=grid[0], w=grid[1])
    weights = flat_weight + (1.0 - flat_weight) * 2.0 * patches.std(dim=2, unbiased=False).amax(dim=1)
    return weights / weights.mean()


class _Trained(nn.Module):
    """One forward pass for training, so that DDP sees every parameter; the codebook's averages ride along."""

    def __init__(self, tokenizer, codebook):
        super().__init__()
        self.tokenizer = tokenizer
        self.codebook = codebook

    def forward(self, pixels, quantised):
        latents = self.tokenizer.latents(pixels)
        if not quantised:
            return self.tokenizer.pixels(latents), latents, None
        ids = nearest_code(latents.detach(), self.tokenizer.codebook, self.tokenizer.lookup)
        straight_through = latents + (embed(ids, self.tokenizer.codebook) - latents).detach()
        return self.tokenizer.pixels(straight_through), latents, ids


def cli():
    """Run the stage from the command line."""
    run_command(main, TrainTokenizerConfig, recipes="train_tokenizer")


if __name__ == "__main__":
    cli()
