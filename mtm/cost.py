"""How many operations a step of pre-training takes."""

import math

import torch
from torch.func import functional_call

from seitpp.mtm.masking import MaskConfig, make_masks, sample_mask_ratio
from seitpp.mtm.model import MaskedTokenModel
from seitpp.training.speed import count_flops


def training_flops(model: MaskedTokenModel, mask_config: MaskConfig) -> float:
    """Operations of a forward and backward pass of an image at the median mask ratio; the augmentation is not counted.

    Args:
        model: the MaskedTokenModel; nothing is computed with its numbers.
        mask_config: a MaskConfig.
    """
    shapes = {
        name: torch.empty_like(tensor, device="meta", requires_grad=tensor.requires_grad)
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
    }
    patches = math.prod(model.encoder.patch_grid)
    masked, dropped = mask_config.counts(sample_mask_ratio(mask_config, 0.5), patches)
    masks = make_masks(torch.empty(1, patches, device="meta"), masked_count=masked, dropped_count=dropped)
    ids = torch.empty(1, *model.encoder.view, dtype=torch.int64, device="meta")
    return count_flops(lambda: functional_call(model, shapes, (ids, masks))[0].backward())
