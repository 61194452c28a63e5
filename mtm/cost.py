"""What a step of pre-training costs: operations, and memory."""

import math
from dataclasses import replace

import torch
from torch.func import functional_call

from seitpp.mtm.masking import make_masks, sample_mask_ratio, sample_masks
from seitpp.tokens.loader import TrainingBatches
from seitpp.training.random_streams import Draws
from seitpp.training.speed import count_flops


def training_flops(model, mask_config):
    """Operations of a forward and backward pass of an image at the median mask ratio; the augmentation is not counted.

    Args:
        model: the MaskedTokenModel; nothing is computed with its numbers.
        mask_config: a MaskConfig.
    """
    shapes = {
        name: torch.empty_like(tensor, device="meta", requires_grad=tensor.requires_grad)
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
    }
    patches = math.prod(model.encoder.grid)
    masks = make_masks(
        torch.empty(1, patches, device="meta"),
        masked_count=math.ceil(sample_mask_ratio(mask_config, 0.5) * patches),
        dropped_count=math.ceil(mask_config.mask_ratio_min * patches),
    )
    ids = torch.empty(1, *model.encoder.view, dtype=torch.int64, device="meta")
    return count_flops(lambda: functional_call(model, shapes, (ids, masks))[0].backward())


def take_memory(model, augment, store, config, accelerator, size):
    """Take the memory of a step at a micro-batch of `size` and give it back: all masked, with room for AdamW and DDP.

    Args:
        model: the MaskedTokenModel, not yet prepared.
        augment: an Augment.
        store: the token store.
        config: a PretrainConfig.
        accelerator: accelerate.Accelerator.
        size: samples.
    Raises: what torch raises where memory runs out.
    """
    device = accelerator.device
    model.to(device)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    spare = torch.empty(3, parameters, device=device)  # AdamW's two averages and the gradients that DDP exchanges
    batch = TrainingBatches(store, size, seed=config.seed, device=spare.device)(0)
    draws = Draws(config.seed, 0, batch.positions)
    most = replace(config.mask, mask_ratio_mean=config.mask.mask_ratio_max, mask_ratio_std=1e-6)
    masks = sample_masks(most, draws, math.prod(model.encoder.grid))
    try:
        with accelerator.autocast():
            loss, _ = model(augment(batch.ids, draws), masks)
        loss.backward()
    finally:
        model.zero_grad()
