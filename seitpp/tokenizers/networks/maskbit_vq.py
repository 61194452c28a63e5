"""The tokenizers of MaskBit (Weber et al. 2024, arXiv 2409.16211), 16 x 16 tokens: lookup-free ones and VQGAN+.

Their checkpoints are those of github.com/markweberdev/maskbit: maskbit_tokenizer_10bit.bin to …_16bit.bin, whose
codes are all vectors of -1 and 1, and vqgan_plus_12bit.bin with 4,096 learned codes of dimension 64. Both take pixels
in [0, 1].
"""

import re
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from einops import einsum

from seitpp.runtime.errors import UserError
from seitpp.runtime.foreign.conversion import translated
from seitpp.tokenizers.networks.foreign_vq import require_codes, vq_model_of
from seitpp.tokens.codebook import sign_codes

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vq_model import VQModel


_CODES, _SIGNS = "quantize.embedding.weight", ("quantize.codebook", "quantize.bits_to_indices")
_RULES = [
    (r"^encoder\.down\.", "encoder.down_blocks."),
    (r"^decoder\.up\.", "decoder.up_blocks."),
    (r"^(encoder|decoder)\.mid\.", r"\1.mid_block."),
    (r"\.res_blocks\.", ".resnets."),
    (r"\.down_conv\.", ".downsamplers.0.conv."),
    (r"\.upsample_conv\.", ".upsamplers.0.conv."),
]


def from_maskbit(weights: dict[str, torch.Tensor], source: object) -> "VQModel":
    """The VQModel of a MaskBit tokenizer's state dict, for pixels in [0, 1] and Euclidean look-up.

    The signs of a latent are its nearest code of -1 and 1. Where diffusers' network is another, the weights make up:
    the published shortcut reads what the block's last convolution wrote (not the block's input), so both are one
    convolution; the published decoder has a block less at each level, so one adds nothing; convolutions without a
    bias get zeros; a 1 x 1 convolution is the middle of a 3 x 3 one; there is none around the quantiser.

    Args:
        weights: published name to tensor.
        source: where they are from, for messages.
    Raises: UserError if they are of another model, or its codes are too many.
    """
    weights = translated(weights, _RULES, source)
    for name in ("encoder.conv_out.weight", "decoder.conv_in.weight"):
        if name not in weights or weights[name].ndim != 4:
            raise UserError(f"{source} has no {name}: it is no tokenizer of MaskBit")
    latent = weights["encoder.conv_out.weight"]
    if latent.shape[2:] == (1, 1):
        weights["encoder.conv_out.weight"] = F.pad(latent, (1, 1, 1, 1))
    if _CODES not in weights:
        require_codes(2 ** min(len(latent), 62), source)
        weights[_CODES] = _signs_of(weights, len(latent), source)
    for name in _SIGNS:
        weights.pop(name, None)
    for name in ("quant_conv", "post_quant_conv"):
        weights[f"{name}.weight"] = torch.eye(len(latent), device=latent.device)[:, :, None, None]
    fold_shortcuts(weights, source)
    _add_empty_blocks(weights)
    for name, tensor in list(weights.items()):
        if tensor.ndim == 4:
            weights.setdefault(f"{name.removesuffix('.weight')}.bias", tensor.new_zeros(len(tensor)))
    return vq_model_of(weights, [], source)


def _signs_of(weights, bits, source):
    """The codes, after a look whether the checkpoint counts its bits the same way."""
    codes = sign_codes(bits)
    published = weights.get(_SIGNS[0], codes)
    if published.shape != codes.shape or not (published.is_meta or torch.equal(published.float(), codes)):
        raise UserError(f"{source}: {_SIGNS[0]} are not all vectors of -1 and 1 in the order of their bits")
    return codes.to(published.device)


def fold_shortcuts(weights: dict[str, torch.Tensor], source: object) -> None:
    """Make shortcuts that read what their block's last convolution wrote a part of it, in place.

    Raises: UserError if one has no such convolution.
    """
    for name in [name for name in weights if name.endswith(".nin_shortcut.weight")]:
        block = name.removesuffix(".nin_shortcut.weight")
        mixing, last, first = weights[name], weights.get(f"{block}.conv2.weight"), weights.get(f"{block}.conv1.weight")
        if last is None or first is None or mixing.shape != (len(last), len(last), 1, 1):
            raise UserError(f"{source}: {name} has no convolution of its size before it: it is of another model")
        mixed = einsum(mixing[:, :, 0, 0].double(), last.double(), "o m, m c p q -> o c p q")
        weights[f"{block}.conv2.weight"] = (last.double() + mixed).float()
        weights[name] = mixing.new_zeros(len(last), first.shape[1], 1, 1)


def _add_empty_blocks(weights):
    found = [re.match(r"decoder\.up_blocks\.(\d+)\.resnets\.(\d+)\.conv2\.weight$", name) for name in weights]
    last = {}
    for level, block in sorted((int(match[1]), int(match[2])) for match in found if match):
        last[level] = block
    for level, block in last.items():
        conv = weights[f"decoder.up_blocks.{level}.resnets.{block}.conv2.weight"]
        empty, width = f"decoder.up_blocks.{level}.resnets.{block + 1}", len(conv)
        for part in "12":
            weights[f"{empty}.norm{part}.weight"] = conv.new_ones(width)
            weights[f"{empty}.norm{part}.bias"] = conv.new_zeros(width)
            weights[f"{empty}.conv{part}.weight"] = conv.new_zeros(width, width, 3, 3)
