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
from seitpp.runtime.config import flattened, require
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import replacing
from seitpp.runtime.fingerprints import weights_fingerprint
from seitpp.runtime.locations import Location
from seitpp.runtime.pictures import grid_pixels, image_grid
from seitpp.runtime.run_folder import open_run
from seitpp.runtime.weights import save_weights
from seitpp.tokenadapt.geometry import GeometryConfig, around_view, sample_geometry, warp
from seitpp.tokenadapt.measure import METHODS, agreement_table, eval_agreement, transformed_ids
from seitpp.tokenadapt.model import TokenAdapt, TokenAdaptConfig, load_token_adapt
from seitpp.tokenizers.sources.decoding.resize import Resize, resize_of
from seitpp.tokenizers.sources.images import ImageBatches, read_rows, say_left_out, split_rows
from seitpp.tokenizers.sources.pixels import quiet_decoding
from seitpp.tokenizers.sources.source import open_source, source_fingerprint
from seitpp.tokenizers.sources.tolerant_reader import TolerantReader
from seitpp.tokenizers.tokenizer import Tokenizer, load_tokenizer
from seitpp.tokens.code_factors import factors_of
from seitpp.tokens.codebook import embed
from seitpp.tokens.one_dimensional import refuse_geometry
from seitpp.tokens.views import centre, centre_pixels, put
from seitpp.training.announce import say_result
from seitpp.training.batched_draws import BatchedDraws
from seitpp.training.config import TrainConfig
from seitpp.training.fit import Step, batch_layout, fit
from seitpp.training.random_streams import Draws


@dataclass(frozen=True, kw_only=True)
class TrainTokenAdaptConfig(TrainConfig):
    """Train TokenAdapt's f and g for a tokenizer."""

    images: Location
    """folder of images, .tar files, hfds/NAME or torch/NAME, as for seitpp.tokenizers.tokenize"""
    tokenizer: Location
    """run folder or weights of the tokenizer"""
    resize: Resize | None = None
    """what is done with images of another shape: crop, pad or squash, as for the stores that TokenAdapt is used on;
    None: what the tokenizer says"""
    model: TokenAdaptConfig = field(default_factory=TokenAdaptConfig)
    """shape of f and g"""
    geometry: GeometryConfig = field(default_factory=GeometryConfig)
    """how views are drawn"""
    view: tuple[int, int] | None = None
    """tokens (h, w) of the views, for trainings that see fewer than are stored; None: all. The papers see 28 x 28 of
    32 x 32"""
    max_skipped: float = 0.001
    """fraction of the images that may fail to decode before the training ends with an error; it goes on without them"""
    init_weights: Location | None = None
    """run or weights of an earlier TokenAdapt of the same tokenizer, shape and view that this training starts from;
    None: from scratch"""
    unchanged: float = 0.1
    """fraction of samples that learn the identity"""
    held_out: float = 0.05
    """fraction of the images that token agreement is measured on"""
    blr: float = 8e-3
    """base learning rate, for an effective batch of 256"""
    eval_every: int | None = 0
    """steps between evaluations; there is always one at the end. 0: only that; None: with every checkpoint"""

    def __post_init__(self):
        super().__post_init__()
        require(self, "max_skipped", 0 <= self.max_skipped <= 1, "must lie in [0, 1]")
        require(self, "unchanged", 0 <= self.unchanged < 1, "must lie in [0, 1)")
        require(self, "held_out", 0 < self.held_out < 1, "must lie in (0, 1)")


@quiet_decoding()
def main(config: TrainTokenAdaptConfig) -> None:
    """Train f and g, then measure token agreement on held-out images."""
    accelerator = make_accelerator(config.mixed_precision)
    tokenizer = load_tokenizer(config.tokenizer, accelerator.device, resize=config.resize)
    refuse_geometry(tokenizer, f"the tokenizer {config.tokenizer}", {"TokenAdapt": "take a tokenizer of a grid"})
    images = open_source(config.images)
    inputs = {"tokenizer": tokenizer.fingerprint}
    data = {"images": source_fingerprint(images)} if accelerator.is_main_process else {}
    data |= {"init_weights": config.init_weights and weights_fingerprint(config.init_weights)}
    how = {"inputs": inputs, "data": data, "may_be_mended": ("images",)}
    run = open_run(config, accelerator, stage="tokenadapt.train", **how)
    if run.finished:
        accelerator.print(f"{run.path}: finished before, nothing to do")
        return
    train_rows, held_out_rows = split_rows(len(images), config.held_out, config.seed)
    model = make_model(config, tokenizer)
    resize = resize_of(tokenizer.preprocessing)
    reader = TolerantReader(images, tokenizer.image_size, resize, max_skipped=config.max_skipped)
    held_out = read_rows(reader, held_out_rows[:256]).to(accelerator.device)

    def evaluate(model):
        return eval_agreement(model, tokenizer, held_out, config.geometry, seed=config.seed, accelerator=accelerator)

    def save(folder, model):
        save_weights(folder, model.state_dict(), {**model.described, "tokenizer": tokenizer.fingerprint})

    def batches(config):
        return ImageBatches(reader, train_rows, **batch_layout(config, accelerator))

    fitted = fit(
        run, accelerator, model, title="TokenAdapt", samples=len(train_rows), batches=batches,
        step=make_step(config, tokenizer, model.view, model.map_size), save=save, evaluate=evaluate,
        pictures=lambda model: {"views": grid_pixels(_view_rows(model, tokenizer, held_out[:6], config))},
    )  # fmt: skip
    if accelerator.is_main_process:
        table = agreement_table(fitted.model, tokenizer, held_out, config.geometry, seed=config.seed)
        with replacing(run.path / "agreement.csv") as temporary:
            table.to_csv(temporary, index=False)
        image_grid(_view_rows(fitted.model, tokenizer, held_out[:12], config), run.path / "views.png")
        together = table[table.geometry == "all"].set_index("method")
        agreement = {f"agreement, {method}": float(together.agreement[method]) for method in METHODS}
        run.finish({**fitted.measures, **agreement})
        say_left_out(run.path, reader)
        say_result(
            "TokenAdapt", fitted.measures,
            following=(
                "seitpp", "pretrain", "--store", "STORE", "--augment.token_adapt", str(run.path), "--output_dir", "RUN"
            ),
        )  # fmt: skip
    accelerator.end_training()


def make_model(config: TrainTokenAdaptConfig, tokenizer: Tokenizer) -> TokenAdapt:
    """The TokenAdapt that a training starts with, a function of `config.seed` and of `init_weights`.

    Raises: UserError if the view does not fit into the tokenizer's grid, or weights are of another one or shape.
    """
    view = tuple(config.view or tokenizer.grid)
    if any(not 0 < part <= whole for part, whole in zip(view, tokenizer.grid, strict=True)):
        raise UserError(
            f"a view of {view} tokens does not fit into the tokenizer's grid of {tokenizer.grid}: set --view"
        )
    torch.manual_seed(config.seed)
    model = TokenAdapt(
        config.model, grid=tokenizer.grid, view=view, codebook_size=tokenizer.codebook_size,
        embedding_dim=tokenizer.codebook.shape[1],
    )  # fmt: skip
    if config.init_weights is not None:
        _start_from_weights(model, config.init_weights, tokenizer)
    return model


def _start_from_weights(model, weights, tokenizer):
    old, fingerprint = load_token_adapt(weights)
    if fingerprint != tokenizer.fingerprint:
        raise UserError(
            f"--init_weights {weights} belongs to tokenizer {fingerprint[:12]}, not to this one, "
            f"{tokenizer.fingerprint[:12]}: their ids mean different things"
        )
    there, here = flattened(old.described), flattened(model.described)
    different = [f"{name} = {there[name]}" for name in there if there[name] != here.get(name)]
    if different:
        raise UserError(f"--init_weights {weights} is a TokenAdapt of another shape: it has {', '.join(different)}")
    model.load_state_dict(old.state_dict())


def make_step(config: TrainTokenAdaptConfig, tokenizer: Tokenizer, view: tuple, map_size: tuple) -> Step:
    """The step: predict the ids of transformed images from the ids of the images.

    Args:
        config: says how geometries are drawn, and which fraction of the samples learns the identity.
        tokenizer: makes the ids of images and of transformed images.
        view: (h', w') of the ids that are predicted.
        map_size: (height, width) of the features between f and g.
    """
    aspect = tokenizer.image_size[1] / tokenizer.image_size[0]
    streams = BatchedDraws(config.seed, compiled=config.compile)

    def step(model, batch, index):
        pixels, positions = batch
        draws = streams.at(index, positions)
        geometry = sample_geometry(config.geometry, draws, aspect)
        still = draws.uniform("unchanged", 1)[:, 0] < config.unchanged
        geometry = torch.where(still[:, None, None], torch.eye(3, device=pixels.device), geometry)
        with torch.no_grad():
            embeddings = embed(tokenizer.encode(pixels), tokenizer.codebook)
            shown = warp(pixels, around_view(geometry, tokenizer.grid, view), tokenizer.image_size)
            targets = centre(tokenizer.encode(shown), view)
        logits = model(embeddings, partial(warp, geometry=geometry, size=map_size))
        factors = factors_of(tokenizer.codebook_size)
        numbers = zip(factors.parts(logits.float(), 1), factors.of(targets), strict=True)
        loss = torch.stack([F.cross_entropy(part, number) for part, number in numbers]).sum()
        return loss, {"agreement": (factors.likeliest(logits, 1) == targets).float().mean()}

    return step


@torch.no_grad()
def _view_rows(model, tokenizer, images, config):
    """Rows: the images, their transformed views, then what each of METHODS makes of their tokens."""
    draws = Draws(config.seed, 0, torch.arange(len(images), device=images.device))
    geometry = sample_geometry(config.geometry, draws, images.shape[3] / images.shape[2])
    shown = warp(images, around_view(geometry, model.grid, model.view), tokenizer.image_size)
    views, around = [shown], tokenizer.encode(shown)
    for method in METHODS:
        ids = transformed_ids(method, model, tokenizer, images, geometry)
        views.append(tokenizer.decode(put(around, ids)))
    views = [centre_pixels(view, model.grid, model.view) for view in views]
    return [F.interpolate(images, views[0].shape[2:], mode="area"), *views]


def cli() -> None:
    """Run the stage from the command line."""
    run_command(main, TrainTokenAdaptConfig, recipes="tokenadapt")


if __name__ == "__main__":
    cli()
