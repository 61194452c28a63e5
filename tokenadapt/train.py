"""Train TokenAdapt's f and g for a tokenizer, on images.

    python -m seitpp.tokenadapt.train --images photos --tokenizer runs/tokenizer --output_dir runs/tokenadapt
    accelerate launch -m seitpp.tokenadapt.train --config demo --images photos --tokenizer runs/tokenizer --output_dir …

For an image x and a geometry A drawn for it, the loss is the cross-entropy between g(A(f(embeddings of x's ids)))
and the ids of A(x); one `warp` is applied to pixels and to f's map. Nobody published this training; the loss is the
one that SeiT++ (arXiv 2312.10105, section 3.2) describes.
"""

from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F

from seitpp.runtime.command import run_command
from seitpp.runtime.config import require
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import replacing
from seitpp.runtime.pictures import image_grid
from seitpp.runtime.run_folder import open_run
from seitpp.runtime.weights import save_weights
from seitpp.tokenadapt.geometry import GeometryConfig, around_view, sample_geometry, warp
from seitpp.tokenadapt.measure import METHODS, agreement_table, transformed_ids
from seitpp.tokenadapt.model import TokenAdapt, TokenAdaptConfig
from seitpp.tokenizers.sources.images import ImageBatches, read_all, split_rows
from seitpp.tokenizers.sources.source import open_source
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.codebook import embed
from seitpp.tokens.views import centre, centre_pixels, put
from seitpp.training.batched_draws import BatchedDraws
from seitpp.training.config import TrainConfig
from seitpp.training.loop import train
from seitpp.training.optimizer import make_adamw, parameter_groups
from seitpp.training.random_streams import Draws
from seitpp.training.schedule import make_schedule


@dataclass(frozen=True, kw_only=True)
class TrainTokenAdaptConfig(TrainConfig):
    """Train TokenAdapt's f and g for a tokenizer."""

    images: str
    """folder of images, .tar files, hfds/NAME or torch/NAME, as for seitpp.tokenizers.tokenize"""
    tokenizer: str
    """run folder or weights of the tokenizer"""
    model: TokenAdaptConfig = field(default_factory=TokenAdaptConfig)
    """shape of f and g"""
    geometry: GeometryConfig = field(default_factory=GeometryConfig)
    """how views are drawn"""
    view: tuple[int, int] | None = None
    """tokens (h, w) of the views, for trainings that see fewer than are stored; None: all. The papers see 28 x 28 of
    32 x 32"""
    unchanged: float = 0.1
    """share of samples that learn the identity"""
    held_out: float = 0.05
    """share of the images that token agreement is measured on"""
    blr: float = 8e-3
    """base learning rate, for an effective batch of 256"""

    def __post_init__(self):
        super().__post_init__()
        require(self, "unchanged", 0 <= self.unchanged < 1, "must lie in [0, 1)")
        require(self, "held_out", 0 < self.held_out < 1, "must lie in (0, 1)")


def main(config):
    """Train f and g, then measure token agreement on held-out images."""
    accelerator = make_accelerator(config.mixed_precision)
    device = accelerator.device
    tokenizer = load_tokenizer(config.tokenizer, device)
    inputs = {"tokenizer": tokenizer.fingerprint}
    run = open_run(config, accelerator, stage="tokenadapt.train", inputs=inputs)
    if run.finished:
        accelerator.print(f"{run.path}: finished before, nothing to do")
        return
    images = open_source(config.images)
    train_rows, held_out_rows = split_rows(len(images), config.held_out, config.seed)
    torch.manual_seed(config.seed)
    view = tuple(config.view or tokenizer.grid)
    if any(not 0 < part <= whole for part, whole in zip(view, tokenizer.grid, strict=True)):
        raise UserError(
            f"a view of {view} tokens does not fit into the tokenizer's grid of {tokenizer.grid}: set --view"
        )
    token_adapt = TokenAdapt(
        config.model, grid=tokenizer.grid, view=view, codebook_size=tokenizer.codebook_size,
        embedding_dim=tokenizer.codebook.shape[1],
    )  # fmt: skip
    schedule = make_schedule(config, samples=len(train_rows), world_size=accelerator.num_processes)
    optimizer = make_adamw(parameter_groups(token_adapt, weight_decay=config.weight_decay), config)
    model, optimizer = accelerator.prepare(token_adapt, optimizer)
    batches = ImageBatches(
        images, train_rows, tokenizer.image_size, config.batch_size, seed=config.seed, device=device,
        accum_iter=config.accum_iter, rank=accelerator.process_index, world_size=accelerator.num_processes,
    )  # fmt: skip
    aspect = tokenizer.image_size[1] / tokenizer.image_size[0]

    chance = BatchedDraws(config.seed)

    def step(batch, index):
        pixels, positions = batch
        draws = chance.at(index, positions)
        geometry = sample_geometry(config.geometry, draws, aspect)
        still = draws.uniform("unchanged", 1)[:, 0] < config.unchanged
        geometry = torch.where(still[:, None, None], torch.eye(3, device=device), geometry)
        with torch.no_grad():
            embeddings = embed(tokenizer.encode(pixels), tokenizer.codebook)
            shown = warp(pixels, around_view(geometry, tokenizer.grid, view), tokenizer.image_size)
            targets = centre(tokenizer.encode(shown), view)
        logits = model(embeddings, partial(warp, geometry=geometry, size=token_adapt.map_size))
        return F.cross_entropy(logits.float(), targets), {"agreement": (logits.argmax(1) == targets).float().mean()}

    train(
        accelerator, run, model=model, optimizer=optimizer, schedule=schedule, batch_at=batches, step=step,
        title="TokenAdapt",
    )  # fmt: skip
    if accelerator.is_main_process:
        described = {**token_adapt.described, "tokenizer": tokenizer.fingerprint}
        save_weights(run.weights, token_adapt.state_dict(), described)
        token_adapt.eval()
        held_out = read_all(images, held_out_rows[:256], tokenizer.image_size).to(device)
        table = agreement_table(token_adapt, tokenizer, held_out, config.geometry, seed=config.seed)
        with replacing(run.path / "agreement.csv") as temporary:
            table.to_csv(temporary, index=False)
        _picture(run.path / "views.png", token_adapt, tokenizer, held_out[:12], config)
        together = table[table.geometry == "all"].set_index("method")
        run.finish({f"agreement, {method}": float(together.agreement[method]) for method in METHODS})
    accelerator.end_training()


@torch.no_grad()
def _picture(path, model, tokenizer, images, config):
    """Rows: the images, their transformed views, then what each of METHODS makes of their tokens."""
    draws = Draws(config.seed, 0, torch.arange(len(images), device=images.device))
    geometry = sample_geometry(config.geometry, draws, images.shape[3] / images.shape[2])
    shown = warp(images, around_view(geometry, model.grid, model.view), tokenizer.image_size)
    views, around = [shown], tokenizer.encode(shown)
    for method in METHODS:
        ids = transformed_ids(method, model, tokenizer, images, geometry)
        views.append(tokenizer.decode(put(around, ids)))
    views = [centre_pixels(view, model.grid, model.view) for view in views]
    image_grid([F.interpolate(images, views[0].shape[2:], mode="area"), *views], path)


def cli():
    """Run the stage from the command line."""
    run_command(main, TrainTokenAdaptConfig, recipes="tokenadapt")


if __name__ == "__main__":
    cli()
