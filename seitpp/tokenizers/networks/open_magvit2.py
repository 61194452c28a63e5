"""The image tokenizers of Open-MAGVIT2 (Luo et al. 2024, arXiv 2409.04410): 16 x 16 tokens of 14 or 18 bits.

Their checkpoints are those of github.com/TencentARC/SEED-Voken: imagenet_256_L.ckpt, imagenet_128_L.ckpt (128 px, or
256 px at 32 x 32 tokens), pretrain256_262144.ckpt and pretrain256_16384.ckpt. Those of videos are of another shape.
"""

import re

import torch

from seitpp.runtime.errors import UserError
from seitpp.runtime.foreign.conversion import fill, translated
from seitpp.tokenizers.networks.foreign_vq import require_codes
from seitpp.tokenizers.networks.ibq_vq import averaged
from seitpp.tokenizers.networks.lookup_free import LookupFreeConfig, LookupFreeTokenizer

_RULES = [
    (r"^encoder\.down\.(\d+)\.block\.", r"encoder.levels.\1.blocks."),
    (r"^encoder\.down\.(\d+)\.downsample\.", r"encoder.levels.\1.resample."),
    (r"^decoder\.up\.(\d+)\.block\.", r"decoder.levels.\1.blocks."),
    (r"^decoder\.up\.(\d+)\.upsample\.conv1\.", r"decoder.levels.\1.resample.conv."),
    (r"^decoder\.adaptive\.(\d+)\.", r"decoder.levels.\1.style."),
    (r"^(encoder|decoder)\.mid_block\.", r"\1.middle."),
    (r"\.nin_shortcut\.", ".shortcut."),
]
_NOT_TRAINED = ("loss.", "inception_model.", "quantize.")


def from_open_magvit2(weights: dict[str, torch.Tensor], source: object, *, image_size: int) -> LookupFreeTokenizer:
    """The tokenizer of an Open-MAGVIT2 checkpoint's state dict. Its shape is read from the tensors.

    The weights are the averages that the checkpoint keeps, as in the published evaluation; its own if it has none.

    Args:
        weights: published name to tensor.
        source: where they are from, for messages.
        image_size: pixels a side.
    Raises: UserError if they are of another model, or images of such a size have no place in it.
    """
    known = {name: tensor for name, tensor in weights.items() if not name.startswith(_NOT_TRAINED)}
    weights = translated(averaged(known, source), _RULES, source)
    for name in ("encoder.conv_out.weight", "decoder.conv_in.weight", "decoder.levels.0.style.gamma.weight"):
        if name not in weights or weights[name].ndim != (2 if "style" in name else 4):
            raise UserError(f"{source} has no {name} of an image tokenizer: it is none of Open-MAGVIT2")
    first = r"encoder\.levels\.(\d+)\.blocks\.0\.conv1\.weight$"
    widths = {int(found[1]): len(tensor) for name, tensor in weights.items() if (found := re.match(first, name))}
    blocks = sum(bool(re.match(r"encoder\.levels\.0\.blocks\.\d+\.conv1\.weight$", name)) for name in weights)
    bits = len(weights["encoder.conv_out.weight"])
    require_codes(2 ** min(bits, 62), source)
    config = LookupFreeConfig(
        image_size=(image_size, image_size), widths=tuple(widths[level] for level in sorted(widths)), blocks=blocks,
        bits=bits,
    )  # fmt: skip
    return fill(LookupFreeTokenizer(config), {name: tensor.float() for name, tensor in weights.items()}, source)
