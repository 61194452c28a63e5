"""Pre-train a ViT on a token store by masked token modelling, without labels.

python -m mtm.pretrain --store stores/train --output_dir runs/mtm                            (one process)
accelerate launch -m mtm.pretrain --config vit_base --store stores/train --output_dir …      (as configured)
python -m mtm.pretrain --config debug --store stores/train --output_dir runs/debug           (a CPU minute)
"""

import math
from dataclasses import dataclass, field

import torch

from mtm.augment import Augment, AugmentConfig, centre
from mtm.baselines import frequency_baselines
from mtm.encoder import fitting_view
from mtm.masking import MaskConfig, make_masks, sample_masks
from mtm.model import MaskedTokenModel, ModelConfig, save_model
from mtm.pictures import completion_picture
from tokens.loader import TrainingBatches, evaluation_batches
from tokens.remote import CacheConfig
from tokens.store import open_store
from tokens.tokenizer import load_tokenizer
from training.chance import Draws
from training.command import run_command
from training.config import TrainConfig, require
from training.devices import make_accelerator
from training.loop import train
from training.optimizer import make_adamw, parameter_groups
from training.run_folder import open_run
from training.schedule import make_schedule


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TrainConfig):
    """Pre-train a ViT on a token store by masked token modelling."""

    store: str
    """token store to train on, a folder or a URL; labels are not read"""
    eval_store: str | None = None
    """token store that masked-token cross-entropy is measured on; None: not measured"""
    tokenizer: str | None = None
    """run or weights of the store's tokenizer, for pictures of completions; None: no pictures"""
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

    def __post_init__(self):
        super().__post_init__()
        fits = self.mask.mask_ratio_min <= self.eval_mask_ratio <= 1
        require(self, "eval_mask_ratio", fits, "must lie in [mask_ratio_min, 1]")


def main(config):
    """Pre-train, measure against frequency baselines, write weights and pictures."""
    accelerator = make_accelerator(config.mixed_precision)
    device = accelerator.device
    store = open_store(config.store, config.cache)
    fingerprint = store.tokenizer["fingerprint"]
    run = open_run(config, accelerator, stage="mtm.pretrain", inputs={"tokenizer": fingerprint})
    if run.finished:
        accelerator.print(f"{run.path}: finished before, nothing to do")
        return
    eval_store = open_matching_store(config, fingerprint) if config.eval_store else None
    view = fitting_view(config.view, store.grid, config.model.encoder.patch_size)
    torch.manual_seed(config.seed)
    model = MaskedTokenModel(
        config.model, view=view, codebook_size=store.codebook_size, embedding_dim=store.codebook.shape[1]
    )
    model.encoder.start_from(store.codebook, config.model.encoder)
    augment = Augment(config.augment, store=store, view=view, device=device)
    schedule = make_schedule(config, samples=len(store), world_size=accelerator.num_processes)
    optimizer = make_adamw(parameter_groups(model, weight_decay=config.weight_decay), config)
    trained, optimizer = accelerator.prepare(model, optimizer)
    batches = TrainingBatches(
        store, config.batch_size, seed=config.seed, device=device, accum_iter=config.accum_iter,
        rank=accelerator.process_index, world_size=accelerator.num_processes,
    )  # fmt: skip
    patches = math.prod(model.encoder.grid)

    def step(batch, index):
        draws = Draws(config.seed, index, batch.positions)
        return trained(augment(batch.ids, draws), sample_masks(config.mask, draws, patches))

    def evaluate():
        return evaluate_model(model, eval_store, config, accelerator) if eval_store else {}

    measures = train(
        accelerator, run, model=trained, optimizer=optimizer, schedule=schedule, batch_at=batches, step=step,
        title="MTM", evaluate=evaluate, eval_every=config.save_every,
    )  # fmt: skip
    if accelerator.is_main_process:
        save_model(run.weights, model, tokenizer=fingerprint, grid=store.grid)
        if config.tokenizer:
            picture = eval_store or store
            ids = centre(picture.ids(range(0, len(picture), max(1, len(picture) // 12))[:12]), view).to(device)
            completion_picture(
                model.eval(), load_tokenizer(config.tokenizer, device), ids, run.path / "completions.png"
            )
        baselines = {f"{k}_baseline": v for k, v in frequency_baselines(store, eval_store, view=view).items()}
        run.finish({**measures, **baselines})
    accelerator.end_training()


@torch.no_grad()
def evaluate_model(model, store, config, accelerator):
    """Masked-token cross-entropy and accuracy on a store, at one ratio and with fixed masks, views uncut.

    Returns: {"eval_cross_entropy", "eval_accuracy"}, over all masked tokens of all processes.
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
        _, measures = model(centre(batch.ids, model.encoder.view), masks)
        sums += torch.stack([measures["cross_entropy"], measures["accuracy"], torch.ones_like(sums[0])]) * len(noise)
    sums = accelerator.reduce(sums)
    return {"eval_cross_entropy": float(sums[0] / sums[2]), "eval_accuracy": float(sums[1] / sums[2])}


def open_matching_store(config, fingerprint):
    """Open the evaluation store and refuse it if another tokenizer made it."""
    store = open_store(config.eval_store, config.cache)
    store.check_tokenizer(fingerprint, "the training store")
    return store


def cli():
    """Run the stage from the command line."""
    run_command(main, PretrainConfig, recipes="pretrain")


if __name__ == "__main__":
    cli()
