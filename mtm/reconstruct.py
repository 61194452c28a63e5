"""Hide a part of stored images and let a pre-trained model fill it, at once and in steps: a picture and its accuracy.

    python -m seitpp.mtm.reconstruct --store stores/test --weights runs/mtm --tokenizer runs/tokenizer --out picture.png
    python -m seitpp.mtm.reconstruct … --mask centre --ratio 0.25 --steps 12 --temperature 1

Rows of the picture: decoded ids, the same with the hidden part grey, filled in one pass, filled by iterative decoding.
One-dimensional tokens are hidden anywhere (--mask random); what is hidden has no place, so there is no grey row.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from einops import rearrange, repeat
from torch import Tensor

from seitpp.mtm.generate import generate
from seitpp.mtm.masking import Masks, make_masks, patch_count
from seitpp.mtm.model import MaskedTokenModel, describe_model, load_model
from seitpp.mtm.pictures import completion_rows
from seitpp.runtime.command import run_command
from seitpp.runtime.config import require, require_seed
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.errors import UserError
from seitpp.runtime.locations import Location
from seitpp.runtime.ownership import refuse_foreign_file
from seitpp.runtime.pictures import image_grid, is_image_grid
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.one_dimensional import refuse_geometry
from seitpp.tokens.reading import ReadsStores
from seitpp.tokens.remote import CacheConfig
from seitpp.tokens.store import open_store
from seitpp.tokens.views import centre
from seitpp.training.random_streams import Draws

BATCH = 32


@dataclass(frozen=True, kw_only=True)
class ReconstructConfig(ReadsStores):
    """Hide a part of stored images and let a pre-trained model fill it."""

    store: Location
    """token store, a folder or a URL"""
    weights: Location
    """run of seitpp.mtm.pretrain or its weights/"""
    tokenizer: Location
    """run or weights of the store's tokenizer"""
    out: Location
    """the PNG"""
    mask: Literal["right", "centre", "random"] = "right"
    """what is hidden: columns at the right, a rectangle in the middle, or patches anywhere"""
    ratio: float = 0.5
    """fraction of the model's view that is hidden: patches rounded up, columns and rectangles to the nearest"""
    steps: int = 8
    """passes of iterative decoding"""
    temperature: float = 0.0
    """of the ids that a pass draws; 0: the likeliest, which most often is right; 1: as varied as the store"""
    choice_noise: float = 0.0
    """noise on the confidence by which patches are kept, falling to none; MaskGIT's 4.5 makes for more variety"""
    images: int = 12
    """images in the picture"""
    measured: int = 256
    """images that the accuracy is measured on, spaced evenly over the store; the picture shows some of them"""
    seed: int = 0
    """seed of all random streams"""
    cache: CacheConfig = field(default_factory=CacheConfig)
    """how a store behind a URL is read"""

    def __post_init__(self):
        require(self, "ratio", 0 < self.ratio <= 1, "must lie in (0, 1]")
        require(self, "steps", self.steps >= 1, "must be at least 1")
        require(self, "temperature", self.temperature >= 0, "must not be below 0")
        require(self, "choice_noise", self.choice_noise >= 0, "must not be below 0")
        require(self, "images", self.images >= 1, "must be at least 1")
        require(self, "measured", self.measured >= self.images, "must not be below images")
        require_seed(self)


def main(config: ReconstructConfig) -> None:
    """Fill, measure, write the picture."""
    if Path(config.out).is_dir():
        raise UserError(f"--out {config.out} is a folder: name a file in it, such as {config.out}/picture.png")
    refuse_foreign_file(config.out, is_image_grid, "a picture", "choose another --out, or move it elsewhere")
    store = open_store(config.store, config.cache, verify_shards=config.verify_shards)
    if config.mask != "random":
        refuse_geometry(store, config.store, {f"hiding what lies at the {config.mask}": "--mask random"})
    device = make_accelerator("no").device
    model, fingerprint = load_model(config.weights, device)
    store.check_tokenizer(fingerprint, f"the model in {config.weights}", model.described["codebook_size"])
    grid = tuple(describe_model(config.weights)["grid"])
    if grid != tuple(store.grid):
        raise UserError(
            f"{config.weights} was trained on grids of {grid}, but those of {config.store} are {store.grid}"
        )
    tokenizer = load_tokenizer(config.tokenizer, device, fingerprint=store.tokenizer["fingerprint"])
    store.check_tokenizer(tokenizer.fingerprint, f"the one in {config.tokenizer}", tokenizer.codebook_size)
    if not len(store):
        raise UserError(f"{config.store} has no rows: there is nothing to fill")
    ids = store.ids(evenly(len(store), config.measured)).to(device)
    draws = Draws(config.seed, 0, torch.arange(len(ids), device=device))
    masked = hidden_patches(config.mask, config.ratio, model.encoder.patch_grid, draws)
    at_once, in_steps = fill(model, centre(ids, model.encoder.view), masked, draws, config)
    shown = evenly(len(ids), config.images)
    parts = [part[shown] for part in (ids, masked)]
    rows = completion_rows(model, tokenizer, *parts, [at_once[shown], in_steps[shown]])
    image_grid(rows, Path(config.out))
    print(report(model, centre(ids, model.encoder.view), masked, at_once, in_steps, config))


def evenly(count: int, wanted: int) -> list[int]:
    """At most `wanted` different indices below `count`, spaced evenly."""
    return [index * count // min(wanted, count) for index in range(min(wanted, count))]


def hidden_patches(kind: str, ratio: float, patch_grid: tuple[int, int], draws: Draws) -> Tensor:
    """Which patches are hidden.

    Args:
        kind: "right", "centre" or "random".
        ratio: fraction of the patches, above 0; at least one is hidden. Columns and rectangles are as near as whole
            patches come.
        patch_grid: (rows, columns) of patches.
        draws: the Draws of the batch.
    Returns: (b, n) bool, the same number in each row.
    """
    height, width = patch_grid
    if kind == "random":
        count = patch_count(ratio, height * width)
        noise = draws.uniform("mask", height * width)
        return make_masks(noise, masked_count=count, dropped_count=count).masked
    hidden = torch.zeros(height, width, dtype=torch.bool, device=draws.device)
    if kind == "right":
        hidden[:, width - max(1, round(ratio * width)) :] = True
    else:
        centre(hidden, [max(1, round(math.sqrt(ratio) * side)) for side in patch_grid])[:] = True
    return repeat(hidden, "h w -> b (h w)", b=len(draws))


def fill(
    model: MaskedTokenModel, ids: Tensor, masked: Tensor, draws: Draws, config: ReconstructConfig
) -> tuple[Tensor, Tensor]:
    """Hidden ids filled in one pass and in `config.steps`: two tensors like `ids`, (b, h, w)."""
    at_once, in_steps = [], []
    for start in range(0, len(ids), BATCH):
        part = slice(start, start + BATCH)
        count = int(masked[0].sum())
        at_once.append(model.complete(ids[part], Masks(masked[part], masked[part], count, count)))
        in_steps.append(
            generate(
                model, ids[part], masked[part], draws[part], steps=config.steps, temperature=config.temperature,
                choice_noise=config.choice_noise,
            )
        )  # fmt: skip
    return torch.cat(at_once), torch.cat(in_steps)


def report(
    model: MaskedTokenModel, ids: Tensor, masked: Tensor, at_once: Tensor, in_steps: Tensor, config: ReconstructConfig
) -> str:
    """A line: the fraction of hidden ids that are restored, and that of the id which is most frequent there."""
    hidden = rearrange(masked, "b n -> b n 1").expand(model.targets(ids).shape)
    wanted, once, steps = (model.targets(each)[hidden] for each in (ids, at_once, in_steps))
    right = [float((each == wanted).float().mean()) for each in (once, steps)]
    frequent = float((wanted == wanted.mode().values).float().mean())
    return (
        f"{config.out}: of {len(wanted)} hidden ids in {len(ids)} images one pass restores {right[0]:.1%}, "
        f"{config.steps} steps {right[1]:.1%}; the most frequent id is right for {frequent:.1%}"
    )


def cli() -> None:
    """Run the stage from the command line."""
    run_command(main, ReconstructConfig, recipes="reconstruct")


if __name__ == "__main__":
    cli()
