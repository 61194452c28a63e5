"""Pre-train a ViT on a token store by masked token modelling, without labels.

python -m seitpp.mtm.pretrain --store stores/train --output_dir runs/mtm                            (one process)
accelerate launch -m seitpp.mtm.pretrain --config vit_base --store stores/train --output_dir …      (as configured)
python -m seitpp.mtm.pretrain --config debug --store stores/train --output_dir runs/debug           (a CPU minute)
"""

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from seitpp.mtm.augmentation.augment import Augment, AugmentConfig, fingerprints
from seitpp.mtm.baselines import frequency_baselines
from seitpp.mtm.cost import training_flops
from seitpp.mtm.encoder import fitting_view
from seitpp.mtm.masking import MaskConfig, make_masks, sample_masks
from seitpp.mtm.model import MaskedTokenModel, ModelConfig, save_model
from seitpp.mtm.pictures import completed_rows, completion_picture
from seitpp.mtm.start import start_from_weights
from seitpp.runtime.command import run_command
from seitpp.runtime.config import require
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.errors import UserError
from seitpp.runtime.fingerprints import weights_fingerprint
from seitpp.runtime.locations import Location
from seitpp.runtime.pictures import grid_pixels
from seitpp.runtime.run_folder import RunFolder, open_run
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.loader import TrainingBatches, evaluation_batches
from seitpp.tokens.reading import ReadsStores
from seitpp.tokens.remote import CacheConfig
from seitpp.tokens.store import TokenStore, open_store
from seitpp.tokens.views import centre
from seitpp.training.announce import say_result
from seitpp.training.batched_draws import BatchedDraws
from seitpp.training.best_weights import Better
from seitpp.training.config import TrainConfig
from seitpp.training.fit import Hook, Step, batch_layout, fit
from seitpp.training.random_streams import Draws

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TrainConfig, ReadsStores):
    """Pre-train a ViT on a token store by masked token modelling."""

    store: Location
    """token store to train on, a folder or a URL; labels are not read"""
    eval_store: Location | None = None
    """token store that masked-token cross-entropy is measured on; None: not measured"""
    tokenizer: Location | None = None
    """run or weights of the store's tokenizer, for pictures of completions; None: no pictures. Another run of the
    command may name it, or leave it out"""
    cache: CacheConfig = field(default_factory=CacheConfig)
    """how a store behind a URL is read"""
    view: tuple[int, int] | None = None
    """tokens (h, w) that the model sees of each grid; None: all. The papers see 28 x 28 of 32 x 32"""
    init_weights: Location | None = None
    """run or weights of an earlier pre-training of the same tokenizer and shape that this one starts from, with its
    positions interpolated to the view; None: from scratch"""
    model: ModelConfig = field(default_factory=ModelConfig)
    """shape of the model"""
    mask: MaskConfig = field(default_factory=MaskConfig)
    """mask ratios"""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """how views are made"""
    eval_mask_ratio: float = 0.6
    """fraction of patches hidden when cross-entropy is measured, and in pictures of completions"""

    preview_every: int = 0
    """epochs between pictures of completions during the training (previews/); 0: none. They need `tokenizer`"""

    def __post_init__(self):
        super().__post_init__()
        require(self, "preview_every", self.preview_every >= 0, "must not be below 0")
        require(self, "preview_every", not self.preview_every or self.tokenizer, "needs --tokenizer")
        fits = self.mask.mask_ratio_min <= self.eval_mask_ratio <= 1
        require(self, "eval_mask_ratio", fits, "must lie in [mask_ratio_min, 1]")


def pretrain(config: PretrainConfig) -> None:
    """Pre-train, measure against frequency baselines, write weights and pictures."""
    accelerator = make_accelerator(config.mixed_precision)
    store, eval_store = open_stores(config)
    run = open_pretraining(config, accelerator, store, eval_store)
    if run.finished:
        accelerator.print(f"{run.path}: finished before, nothing to do")
        return
    model = make_model(config, store)
    augment = Augment(
        config.augment, store=store, view=model.encoder.view, device=accelerator.device,
        autocast=accelerator.autocast, compiled=config.compile,
    )  # fmt: skip
    step, largest_step = make_steps(config, augment, math.prod(model.encoder.patch_grid))
    picture = partial(_picture, config=config, store=eval_store or store, accelerator=accelerator)
    baselines: dict[str, float] = {}
    if accelerator.is_main_process and not config.dry_run:  # the main process is the one that logs
        baselines = frequency_baselines(store, eval_store, view=model.encoder.view)

    def preview(model, epoch):
        picture(model, run.path / "previews" / f"epoch-{epoch:04d}.png")

    fitted = fit(
        run, accelerator, model, title="MTM", samples=len(store),
        batches=lambda config: TrainingBatches(store, **batch_layout(config, accelerator)),
        step=step, largest_step=largest_step,
        save=partial(
            save_model, tokenizer=store.tokenizer["fingerprint"], grid=store.grid, augmentation=config.augment.name
        ),
        evaluate=eval_store and (lambda model: evaluate_model(model, eval_store, run.config, accelerator)),
        pictures=partial(_completions, config=config, store=eval_store or store) if config.tokenizer else None,
        best_by=Better("eval_cross_entropy"),
        hooks=[Hook(every=config.preview_every, call=preview)] if config.preview_every else [],
        derived=partial(_derived, unigram=baselines.get("unigram")),
        flops_per_image=training_flops(model, config.mask),
    )  # fmt: skip
    if config.tokenizer:
        picture(fitted.model, run.path / "completions.png")
    run.finish({**fitted.measures, **{f"{name}_baseline": value for name, value in baselines.items()}})
    if accelerator.is_main_process:
        stores = ("--store", config.store, "--eval_store", config.eval_store or "EVAL_STORE")
        say_result(
            "MTM", fitted.measures,
            following=("seitpp", "probe", *stores, "--weights", str(run.path), "--output_dir", "RUN"),
        )  # fmt: skip
    accelerator.end_training()


def open_stores(config: PretrainConfig) -> tuple[TokenStore, TokenStore | None]:
    """The training store, and the evaluation store where there is one; they and the tokenizer belong together."""
    store = open_store(config.store, config.cache, verify_shards=config.verify_shards)
    eval_store = open_matching_store(config, store) if config.eval_store else None
    if config.tokenizer:
        tokenizer = load_tokenizer(config.tokenizer, fingerprint=store.tokenizer["fingerprint"])
        store.check_tokenizer(tokenizer.fingerprint, f"the one in {config.tokenizer}", tokenizer.codebook_size)
    return store, eval_store


def open_pretraining(
    config: PretrainConfig, accelerator: "Accelerator", store: TokenStore, eval_store: TokenStore | None
) -> RunFolder:
    """The RunFolder of a pre-training on these stores."""
    inputs = {
        "tokenizer": store.tokenizer["fingerprint"], "codebook_size": store.codebook_size, "grid": list(store.grid)
    }  # fmt: skip
    data = {"store": store.fingerprint, "eval_store": eval_store and eval_store.fingerprint}
    data |= {"init_weights": config.init_weights and weights_fingerprint(config.init_weights)}
    data |= fingerprints(config.augment)
    return open_run(config, accelerator, stage="mtm.pretrain", inputs=inputs, data=data, may_change=["tokenizer"])


def make_model(config: PretrainConfig, store: TokenStore) -> MaskedTokenModel:
    """The model that a pre-training on a store starts with, a function of `config.seed` and of `init_weights`."""
    view = fitting_view(config.view, store.grid, config.model.encoder.patch_size, store.geometry)
    torch.manual_seed(config.seed)
    model = MaskedTokenModel(
        config.model, view=view, codebook_size=store.codebook_size, embedding_dim=store.codebook.shape[1]
    )
    model.encoder.stem.start_from(store.codebook, config.model.encoder)
    if config.init_weights is not None:
        start_from_weights(model, config.model, config.init_weights, store)
    return model


def make_steps(config: PretrainConfig, augment: Augment, patches: int) -> tuple[Step, Step]:
    """The step of a pre-training, and the same with everything masked, which takes the most memory, for `fit`."""
    streams = BatchedDraws(config.seed, compiled=config.compile)

    def step(model, batch, index, mask):
        draws = streams.at(index, batch.positions)
        return model(augment(batch.ids, draws), sample_masks(mask, draws, patches))

    most = replace(config.mask, mask_ratio_mean=config.mask.mask_ratio_max, mask_ratio_std=1e-6)
    return partial(step, mask=config.mask), partial(step, mask=most)


def _derived(means, unigram):
    """Perplexity, and what the model knows beyond the frequencies of tokens."""
    gain = {} if unigram is None else {"gain_over_unigram": unigram - means["cross_entropy"]}
    return {"perplexity": _perplexity(means["cross_entropy"]), **gain}


def _picture(model, path, *, config, store, accelerator):
    """Write how the model completes a dozen rows of a store; the main process does."""
    if accelerator.is_main_process:
        ids = store.ids(range(0, len(store), max(1, len(store) // 12))[:12]).to(accelerator.device)
        path.parent.mkdir(exist_ok=True)
        tokenizer = load_tokenizer(config.tokenizer, accelerator.device)
        completion_picture(model, tokenizer, ids, path, ratio=config.eval_mask_ratio)


def _completions(model, *, config, store):
    """For trackers, how the model completes half a dozen rows of a store."""
    device = next(model.parameters()).device
    ids = store.ids(range(0, len(store), max(1, len(store) // 6))[:6]).to(device)
    tokenizer = load_tokenizer(config.tokenizer, device)
    return {"completions": grid_pixels(completed_rows(model, tokenizer, ids, ratio=config.eval_mask_ratio))}


def _perplexity(cross_entropy):
    return math.exp(min(cross_entropy, 700.0))  # a training that diverges must say so itself


@torch.no_grad()
def evaluate_model(
    model: MaskedTokenModel, store: TokenStore, config: PretrainConfig, accelerator: "Accelerator"
) -> dict[str, float]:
    """Masked-token cross-entropy and accuracy on a store, at one ratio and with fixed masks, views uncut.

    Returns: {"eval_cross_entropy", "eval_accuracy", "eval_perplexity"}, over all masked tokens of all processes.
    """
    patches = math.prod(model.encoder.patch_grid)
    sums = torch.zeros(3, device=accelerator.device)
    for batch in evaluation_batches(
        store, config.batch_size, device=accelerator.device, rank=accelerator.process_index,
        world_size=accelerator.num_processes,
    ):  # fmt: skip
        noise = Draws(config.seed, 0, batch.positions).uniform("evaluation mask", patches)
        masked, dropped = config.mask.counts(config.eval_mask_ratio, patches)
        masks = make_masks(noise, masked_count=masked, dropped_count=dropped)
        with accelerator.autocast():
            _, measures = model(centre(batch.ids, model.encoder.view), masks)
        sums += torch.stack([measures["cross_entropy"], measures["accuracy"], torch.ones_like(sums[0])]) * len(noise)
    sums = accelerator.reduce(sums)
    entropy, accuracy = (sums[:2] / sums[2]).tolist()
    return {"eval_cross_entropy": entropy, "eval_accuracy": accuracy, "eval_perplexity": _perplexity(entropy)}


def open_matching_store(config: PretrainConfig, store: TokenStore) -> TokenStore:
    """Open the evaluation store; it must be of the tokenizer, codes and grid of `store`, and not be empty."""
    other = open_store(config.eval_store, config.cache, verify_shards=config.verify_shards)
    store.check_alike(other)
    if not len(other):
        raise UserError(f"{config.eval_store} holds no rows to measure on: leave --eval_store out, or give another")
    return other


def cli() -> None:
    """Run the stage from the command line."""
    run_command(pretrain, PretrainConfig, recipes="pretrain")


if __name__ == "__main__":
    cli()
