"""The tokenizers of index backpropagation quantization (IBQ, Shi et al. 2024, arXiv 2412.02692), 16 x 16 tokens.

Their checkpoints are those of github.com/TencentARC/SEED-Voken: imagenet256_1024.ckpt, imagenet256_8192.ckpt and
imagenet256_16384.ckpt. The networks are those of taming-transformers; the quantiser takes the code whose product with
the latent is largest, not the nearest one.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.networks.foreign_vq import require_codes
from seitpp.tokenizers.networks.ldm_vq import from_ldm

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vq_model import VQModel


_AVERAGES = "model_ema."
_CODES, _BEFORE, _AFTER = "quantize.embedding.weight", "quant_conv", "post_quant_conv"


def from_ibq(weights: dict[str, torch.Tensor], source: object) -> "VQModel":
    """The VQModel of an IBQ checkpoint's state dict, for Euclidean look-up.

    The weights are the averages that the checkpoint keeps, as in the published evaluation; its own if it has none.
    The largest product is the nearest code in one dimension more (Bachrach et al. 2014, "Speeding up the Xbox
    recommender system"): each code gets the entry that makes all of one length, each latent a 0, and the decoder's
    convolution does not read it. So the codes have 257 entries where the published ones have 256.

    Args:
        weights: published name to tensor.
        source: where they are from, for messages.
    Raises: UserError if they are of another model, or its codes are too many.
    """
    weights = averaged({name: tensor for name, tensor in weights.items() if not name.startswith("loss.")}, source)
    for name in (_CODES, f"{_BEFORE}.weight", f"{_BEFORE}.bias", f"{_AFTER}.weight"):
        if name not in weights:
            raise UserError(f"{source} has no {name}: it is no IBQ tokenizer")
    codes = weights[_CODES].float()
    require_codes(len(codes), source)
    lengths = codes.double().square().sum(dim=1)
    rest = (lengths.max() - lengths).clamp(min=0).sqrt().float()
    weights[_CODES] = torch.cat((codes, rest[:, None]), dim=1)
    weights[f"{_BEFORE}.weight"] = F.pad(weights[f"{_BEFORE}.weight"], (0, 0, 0, 0, 0, 0, 0, 1))
    weights[f"{_BEFORE}.bias"] = F.pad(weights[f"{_BEFORE}.bias"], (0, 1))
    weights[f"{_AFTER}.weight"] = F.pad(weights[f"{_AFTER}.weight"], (0, 0, 0, 0, 0, 1))
    return from_ldm(weights, source)


def averaged(weights: dict[str, torch.Tensor], source: object) -> dict[str, torch.Tensor]:
    """Each weight's average in its place, where there are averages. One is named as its weight without the dots.

    Raises: UserError if a weight has none among others'.
    """
    averages = {name.removeprefix(_AVERAGES): tensor for name, tensor in weights.items() if name.startswith(_AVERAGES)}
    own = {name: tensor for name, tensor in weights.items() if not name.startswith(_AVERAGES)}
    if not averages:
        return own
    missing = [name for name in own if name.replace(".", "") not in averages]
    if missing:
        raise UserError(f"{source} has averages, but none of {missing[0]}: it is of another model")
    return {name: averages[name.replace(".", "")] for name in own}
