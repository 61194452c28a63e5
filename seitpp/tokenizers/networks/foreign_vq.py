"""Published VQ checkpoints as VQModels of diffusers: names are translated, the shape is read from the tensors."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from seitpp.runtime.errors import UserError
from seitpp.runtime.foreign.conversion import fill, translated
from seitpp.tokens.format.layout import MOST_CODES

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vq_model import VQModel


_WANTED = ("encoder.conv_in.weight", "quant_conv.weight", "quantize.embedding.weight")
_COMMON = [  # all of them have the parts of taming-transformers (Esser et al. 2021)
    (r"^(encoder|decoder)\.norm_out\.", r"\1.conv_norm_out."),
    (r"_blocks\.(\d+)\.attn\.", r"_blocks.\1.attentions."),
    (r"_blocks\.(\d+)\.(down|up)sample\.", r"_blocks.\1.\2samplers.0."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"\.attentions\.(\d+)\.norm\.", r".attentions.\1.group_norm."),
    (r"\.attentions\.(\d+)\.([qkv])\.", r".attentions.\1.to_\2."),
    (r"\.attentions\.(\d+)\.proj_out\.", r".attentions.\1.to_out.0."),
]


def vq_model_of(weights: dict[str, torch.Tensor], rules: Sequence[tuple[str, str]], source: object) -> "VQModel":
    """The VQModel that has these weights, all of them.

    Args:
        weights: published name to tensor.
        rules: list of (pattern, replacement) to the names in diffusers, before those that all have in common.
        source: where they are from, for messages.
    Returns: a VQModel, float32.
    Raises: UserError that names a weight that is missing, unknown or of another shape.
    """
    from diffusers.models.autoencoders.vq_model import VQModel

    weights = {name: tensor.float() for name, tensor in translated(weights, [*rules, *_COMMON], source).items()}
    for name, tensor in weights.items():
        if ".attentions." in name and tensor.shape[2:] == (1, 1):  # 1x1 convolutions are matrices in diffusers
            weights[name] = tensor[:, :, 0, 0]
    missing = [name for name in _WANTED if name not in weights]
    levels = _count(weights, r"encoder\.down_blocks\.(\d+)\.")
    if missing or not levels:
        raise UserError(
            f"{source} has no {(missing or ['encoder.down_blocks'])[0]}: it is no VQ tokenizer of this kind"
        )
    widths = [_first(weights, f"encoder.down_blocks.{level}.resnets.0.conv1.weight", source) for level in range(levels)]
    attends = [any(name.startswith(f"encoder.down_blocks.{level}.attentions.") for name in weights)
               for level in range(levels)]  # fmt: skip
    dim, channels = weights["quant_conv.weight"].shape[:2]
    model = VQModel(
        in_channels=weights["encoder.conv_in.weight"].shape[1],
        out_channels=_first(weights, "decoder.conv_out.weight", source),
        down_block_types=tuple("AttnDownEncoderBlock2D" if there else "DownEncoderBlock2D" for there in attends),
        up_block_types=tuple("AttnUpDecoderBlock2D" if there else "UpDecoderBlock2D" for there in reversed(attends)),
        block_out_channels=tuple(widths),
        layers_per_block=_count(weights, r"encoder\.down_blocks\.0\.resnets\.(\d+)\."),
        latent_channels=channels,
        num_vq_embeddings=weights["quantize.embedding.weight"].shape[0],
        vq_embed_dim=dim,
        mid_block_add_attention=any(name.startswith("encoder.mid_block.attentions.") for name in weights),
    )
    return fill(model, weights, source)


def require_codes(count: int, source: object) -> None:
    """Refuse a codebook of more codes than a row of a store can hold.

    Raises: UserError.
    """
    if not 2 <= count <= MOST_CODES:
        raise UserError(
            f"{source} has {count} codes, and a store holds ids of at most {MOST_CODES}: take a smaller one"
        )


def _count(weights, pattern):
    return len({found[1] for found in (re.match(pattern, name) for name in weights) if found})


def _first(weights, name, source):
    if name not in weights:
        raise UserError(f"{source} lacks {name}: it is of another model")
    return weights[name].shape[0]
