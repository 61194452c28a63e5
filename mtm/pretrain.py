"""Pre-train a ViT on a token store by masked token modelling, without labels.

python -m seitpp.mtm.pretrain --store stores/train --output_dir runs/mtm                            (one process)
accelerate launch -m seitpp.mtm.pretrain --config vit_base --store stores/train --output_dir …      (as configured)
python -m seitpp.mtm.pretrain --config debug --store stores/train --output_dir runs/debug           (a CPU minute)
"""

import math
from dataclasses import dataclass, field
from functools import partial

import torch

from seitpp.mtm.augmentation.augment import Augment, AugmentConfig
from seitpp.mtm.baselines import frequency_baselines
from seitpp.mtm.cost import take_memory, training_flops
from seitpp.mtm.encoder import fitting_view
from seitpp.mtm.masking import MaskConfig, make_masks, sample_masks
from seitpp.mtm.model import MaskedTokenModel, ModelConfig, save_model
from seitpp.mtm.pictures import completion_picture
from seitpp.runtime.command import run_command
from seitpp.runtime.config import require
from seitpp.runtime.devices import compile_in_place, make_accelerator
from seitpp.runtime.errors import UserError
from seitpp.runtime.run_folder import open_run
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.loader import TrainingBatches, evaluation_batches
from seitpp.tokens.remote import CacheConfig
from seitpp.tokens.store import open_store
from seitpp.tokens.views import centre
from seitpp.training.batched_draws import BatchedDraws
from seitpp.training.config import TrainConfig
from seitpp.training.ema import averaged
from seitpp.training.fsdp import WholeModel
from seitpp.training.loop import train
from seitpp.training.micro_batch import shrink_to_memory
from seitpp.training.optimizer import make_adamw, parameter_groups
from seitpp.training.random_streams import Draws
from seitpp.training.schedule import make_schedule


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TrainConfig):
    """Pre-train a ViT on a token store by masked token modelling."""

    store: str
    """token store to train on, a folder or a URL; labels are not read"""
    eval_store: str | None = None
    """token store that masked-token cross-entropy is measured on; None: not measured"""
    tokenizer: str | None = None
    """run or weights of the store's tokenizer, for pictures of completions; None: no pictures. Another run of the
    command may name it, or leave it out"""
    cache: CacheConfig = field(default_factory=CacheConfig)
    """how a store behind a URL is read"""
    view: tuple[int, int] | None = None
    """tokens (h, w) that the model sees of each grid; None: all. The papers see 28 x 28 of 32 x 32"""
    model: ModelConfig = field(default_factory=ModelConfig)
    """shape of the model"""
    mask: MaskConfig = field(default_factory=MaskConfig)
    """mask ratios"""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """how views are made"""
    eval_mask_ratio: float = 0.6
    """share of patches hidden when cross-entropy is measured"""

    preview_every: int = 0
    """epochs between pictures of completions during the training (previews/); 0: none. They need `tokenizer`"""
    ema_decay: float | None = None
    """decay of a moving average of the weights, with a warm-up; measured too, and left as weights_ema/. None: none"""
    compile: bool = False
    """whether torch.compile makes the passes of the model; it pays after minutes, on GPUs"""
    shrink_batch: bool = False
    """whether batch_size halves and accum_iter doubles until a step fits into memory; the effective batch stays"""

    def __post_init__(self):
        super().__post_init__()
        require(self, "preview_every", self.preview_every >= 0, "must not be below 0")
        require(self, "preview_every", not self.preview_every or self.tokenizer, "needs --tokenizer")
        require(self, "ema_decay", self.ema_decay is None or 0 < self.ema_decay < 1, "must lie in (0, 1)")
        fits = self.mask.mask_ratio_min <= self.eval_mask_ratio <= 1
        require(self, "eval_mask_ratio", fits, "must lie in [mask_ratio_min, 1]")


def main(config):
    """Pre-train, measure against frequency baselines, write weights and pictures."""
    accelerator = make_accelerator(config.mixed_precision)
    device = accelerator.device
    store = open_store(config.store, config.cache)
    fingerprint = store.tokenizer["fingerprint"]
    inputs = {"tokenizer": fingerprint, "codebook_size": store.codebook_size, "grid": list(store.grid)}
    eval_store = open_matching_store(config, store) if config.eval_store else None
    if config.tokenizer:
        store.check_tokenizer(load_tokenizer(config.tokenizer).fingerprint, f"the one in {config.tokenizer}")
    data = {"store": store.fingerprint, "eval_store": eval_store and eval_store.fingerprint}
    run = open_run(config, accelerator, stage="mtm.pretrain", inputs=inputs, data=data, may_change=["tokenizer"])
    if run.finished:
        accelerator.print(f"{run.path}: finished before, nothing to do")
        return
    view = fitting_view(config.view, store.grid, config.model.encoder.patch_size)
    schedule = make_schedule(config, samples=len(store), world_size=accelerator.num_processes)
    torch.manual_seed(config.seed)
    model = MaskedTokenModel(
        config.model, view=view, codebook_size=store.codebook_size, embedding_dim=store.codebook.shape[1]
    )
    model.encoder.start_from(store.codebook, config.model.encoder)
    flops = training_flops(model, config.mask)
    average, whole = averaged(model, config.ema_decay, accelerator), WholeModel(model, accelerator)
    augment = Augment(config.augment, store=store, view=view, device=device, autocast=accelerator.autocast)
    patches = math.prod(model.encoder.grid)
    if config.shrink_batch:
        if whole.sharded:
            raise UserError("--shrink_batch does not work with FSDP: set --batch_size and --accum_iter yourself")
        run.config = config = shrink_to_memory(
            config, accelerator, run, partial(take_memory, model, augment, store, config, accelerator)
        )
    optimizer = make_adamw(parameter_groups(model, weight_decay=config.weight_decay), config)
    trained, optimizer = accelerator.prepare(model, optimizer)
    if config.compile:
        compile_in_place(trained)
    batches = TrainingBatches(
        store, config.batch_size, seed=config.seed, device=device, accum_iter=config.accum_iter,
        rank=accelerator.process_index, world_size=accelerator.num_processes,
    )  # fmt: skip

    chance = BatchedDraws(config.seed)

    def step(batch, index):
        draws = chance.at(index, batch.positions)
        return trained(augment(batch.ids, draws), sample_masks(config.mask, draws, patches))

    def evaluate():
        if eval_store is None:
            return {}
        measures = evaluate_model(whole.of(trained), eval_store, config, accelerator)
        if average is not None:
            averages = evaluate_model(average.module, eval_store, config, accelerator)
            measures |= {f"{name}_ema": value for name, value in averages.items()}
        return measures

    def picture(path):
        pictured_model = whole.of(trained)
        if accelerator.is_main_process:
            pictured = eval_store or store
            ids = pictured.ids(range(0, len(pictured), max(1, len(pictured) // 12))[:12]).to(device)
            path.parent.mkdir(exist_ok=True)
            completion_picture(pictured_model, load_tokenizer(config.tokenizer, device), ids, path)

    # What knowing frequencies alone would pay, beside every loss. The main process is the one that logs.
    baselines = frequency_baselines(store, eval_store, view=view) if accelerator.is_main_process else {}

    def derived(means):
        gain = {"gain_over_unigram": baselines["unigram"] - means["cross_entropy"]} if baselines else {}
        return {"perplexity": _perplexity(means["cross_entropy"]), **gain}

    previews = (
        config.preview_every * schedule.steps_per_epoch,
        lambda index: picture(run.path / "previews" / f"epoch-{index // schedule.steps_per_epoch:04d}.png"),
    )
    measures = train(
        accelerator, run, model=trained, optimizer=optimizer, schedule=schedule, batch_at=batches, step=step,
        title="MTM", evaluate=evaluate, eval_every=config.save_every, best_by="eval_cross_entropy",
        occasions=[previews] if config.preview_every else [],
        derived=derived, average=average, flops_per_image=flops,
    )  # fmt: skip
    final = whole.of(trained)
    if accelerator.is_main_process:
        save_model(run.weights, final, tokenizer=fingerprint, grid=store.grid)
        if average is not None:
            save_model(run.path / "weights_ema", average.module, tokenizer=fingerprint, grid=store.grid)
    if config.tokenizer:
        picture(run.path / "completions.png")
    if accelerator.is_main_process:
        run.finish({**measures, **{f"{name}_baseline": value for name, value in baselines.items()}})
    accelerator.end_training()


def _perplexity(cross_entropy):
    return math.exp(min(cross_entropy, 700.0))  # a training that diverges must say so itself


@torch.no_grad()
def evaluate_model(model, store, config, accelerator):
    """Masked-token cross-entropy and accuracy on a store, at one ratio and with fixed masks, views uncut.

    Returns: {"eval_cross_entropy", "eval_accuracy", "eval_perplexity"}, over all masked tokens of all processes.
    """
    patches = math.prod(model.encoder.grid)
    sums = torch.zeros(3, device=accelerator.device)
    for batch in evaluation_batches(
        store, config.batch_size, device=accelerator.device, rank=accelerator.process_index,
        world_size=accelerator.num_processes,
    ):  # fmt: skip
        noise = Draws(config.seed, 0, batch.positions).uniform("evaluation mask", patches)
        masks = make_masks(
            noise,
            masked_count=math.ceil(config.eval_mask_ratio * patches),
            dropped_count=math.ceil(config.mask.mask_ratio_min * patches),
        )
        with accelerator.autocast():
            _, measures = model(centre(batch.ids, model.encoder.view), masks)
        sums += torch.stack([measures["cross_entropy"], measures["accuracy"], torch.ones_like(sums[0])]) * len(noise)
    sums = accelerator.reduce(sums)
    entropy, accuracy = (sums[:2] / sums[2]).tolist()
    return {"eval_cross_entropy": entropy, "eval_accuracy": accuracy, "eval_perplexity": _perplexity(entropy)}


def open_matching_store(config, store):
    """Open the evaluation store; it must be of the tokenizer, codes and grid of `store`, and not be empty."""
    other = open_store(config.eval_store, config.cache)
    other.check_tokenizer(store.tokenizer["fingerprint"], "the training store")
    here, there = ({"K": each.codebook_size, "grid": each.grid} for each in (other, store))
    if here != there:
        raise UserError(f"{config.eval_store} has {here}, the training store {there}: tokenise both alike")
    if not len(other):
        raise UserError(f"{config.eval_store} holds no rows to measure on: leave --eval_store out, or give another")
    return other


def cli():
    """Run the stage from the command line."""
    run_command(main, PretrainConfig, recipes="pretrain")


if __name__ == "__main__":
    cli()
