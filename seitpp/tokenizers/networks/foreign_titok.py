"""Published TiTok checkpoints: names are translated, the shape is read from the tensors.

They are those of github.com/bytedance/1d-tokenizer, on the Hugging Face Hub as yucornetto/tokenizer_titok_l32_imagenet,
…_b64_imagenet, …_s128_imagenet, and the later …_bl64_vq8k_imagenet, …_bl128_vq8k_imagenet, …_sl256_vq8k_imagenet. The
weights were trained on ImageNet alone and are "only for research purposes", as the README there says.
"""

import math
import re

import torch
from einops import rearrange

from seitpp.runtime.errors import UserError
from seitpp.runtime.foreign.conversion import fill, translated
from seitpp.tokenizers.networks.foreign_vq import require_codes
from seitpp.tokenizers.networks.maskbit_vq import fold_shortcuts
from seitpp.tokenizers.networks.titok import PixelDecoderConfig, SideConfig, TiTok, TiTokConfig

_SIDES = [
    (r"^(encoder|decoder)\.class_embedding$", r"\1.cls_token"),
    (r"^(encoder|decoder)\.positional_embedding$", r"\1.positions"),
    (r"^(encoder|decoder)\.latent_token_positional_embedding$", r"\1.row_positions"),
    (r"^(encoder|decoder)\.ln_pre\.", r"\1.norm_before."),
    (r"^(encoder|decoder)\.ln_post\.", r"\1.norm."),
    (r"^(encoder|decoder)\.transformer\.(\d+)\.ln_([12])\.", r"\1.blocks.\2.norm\3."),
    (r"^(encoder|decoder)\.transformer\.(\d+)\.attn\.in_proj_", r"\1.blocks.\2.attn.qkv."),
    (r"^(encoder|decoder)\.transformer\.(\d+)\.attn\.out_proj\.", r"\1.blocks.\2.attn.proj."),
    (r"^(encoder|decoder)\.transformer\.(\d+)\.mlp\.c_fc\.", r"\1.blocks.\2.mlp.fc1."),
    (r"^(encoder|decoder)\.transformer\.(\d+)\.mlp\.c_proj\.", r"\1.blocks.\2.mlp.fc2."),
    (r"^encoder\.patch_embed\.", "to_patches."),
    (r"^encoder\.conv_out\.", "pre_quant."),
    (r"^decoder\.decoder_embed\.", "post_quant."),
    (r"^decoder\.mask_token$", "mask_token"),
    (r"^quantize\.embedding\.weight$", "codes"),
]
_FIRST = [
    (r"^decoder\.ffn\.", "to_logits."),
    (r"^pixel_quantize\.embedding\.weight$", "pixel_codes"),
    (r"^pixel_decoder\.mid\.", "pixel_decoder.mid_block.resnets."),
    (r"^pixel_decoder\.up\.(\d+)\.block\.", r"pixel_decoder.up_blocks.\1.resnets."),
    (r"^pixel_decoder\.up\.(\d+)\.upsample_conv\.", r"pixel_decoder.up_blocks.\1.upsamplers.0.conv."),
    (r"^pixel_decoder\.norm_out\.", "pixel_decoder.conv_norm_out."),
]
_LATER = [(r"^decoder\.ffn\.0\.", "to_pixels."), (r"^decoder\.conv_out\.", "smooth.")]


def from_titok(weights: dict[str, torch.Tensor], source: object, *, image_size: int | None = None) -> TiTok:
    """A TiTok of published weights, for pixels in [0, 1]. Its shape is read from theirs.

    With a `pixel_decoder` it is one of the first models (l32, b64, s128), which look codes up by cosine, else one of
    the later ones, by Euclidean distance: as their published configurations say.

    Args:
        weights: published name to tensor.
        source: where they are from, for messages.
        image_size: pixels a side; None: what the positions are made for.
    Raises: UserError if they are of another model, of one that makes no ids, or made for images of another size.
    """
    first = any(name.startswith("pixel_decoder.") for name in weights)
    _refuse_others(weights, source, first)
    ours = translated(weights, [*_SIDES, *(_FIRST if first else _LATER)], source)
    ours = {name: tensor.float() for name, tensor in ours.items()}
    require_codes(len(ours["codes"]), source)
    try:
        ours["mask_token"] = rearrange(ours["mask_token"], "1 1 d -> 1 d")
        if first:
            _diffusers_decoder(ours, source)
        config = _config_of(ours, first)
    except (KeyError, ValueError, IndexError, RuntimeError) as error:
        raise UserError(
            f"{source} is no TiTok ({' '.join(str(error).split())} is missing or of odd shape): it is of another model"
        ) from error
    if image_size not in (None, config.image_size[0]):
        raise UserError(
            f"{source} is made for images of {config.image_size[0]} pixels, not {image_size}: leave --image_size out"
        )
    return fill(TiTok(config), ours, source)


def _refuse_others(weights, source, first):
    """Refuse what is no TiTok with ids, and say what it is."""
    if "decoder.text_guidance_proj.weight" in weights:
        raise UserError(f"{source} is a TA-TiTok, whose decoder needs a text beside the tokens: take a TiTok of ids")
    for name in ("latent_tokens", "encoder.patch_embed.weight", "decoder.mask_token", "encoder.positional_embedding"):
        if name not in weights:
            raise UserError(f"{source} has no {name}: it is no TiTok")
    if "quantize.embedding.weight" not in weights:
        raise UserError(f"{source} is a TiTok VAE (no quantize.embedding.weight): it makes no ids, take a VQ one")
    if not first and "decoder.conv_out.weight" not in weights:
        raise UserError(
            f"{source} has no pixel_decoder: it is a TiTok after its first stage of training, which decodes to codes "
            f"of another tokenizer; take the published one"
        )


def _config_of(weights, first):
    patches = math.isqrt(len(weights["encoder.positions"]) - 1)
    patch_size = weights["to_patches.weight"].shape[2]
    codebook_size, codebook_dim = weights["codes"].shape
    pixel_decoder = None
    if first:
        widths = [weights[name].shape[0] for name in _first_convolutions(weights)]
        codes, dim = weights["pixel_codes"].shape
        pixel_decoder = PixelDecoderConfig(codes=codes, dim=dim, widths=tuple(reversed(widths)))
    return TiTokConfig(
        image_size=(patches * patch_size, patches * patch_size),
        patch_size=patch_size,
        tokens=len(weights["latent_tokens"]),
        encoder=_side_of(weights, "encoder"),
        decoder=_side_of(weights, "decoder"),
        codebook_size=codebook_size,
        codebook_dim=codebook_dim,
        pixel_decoder=pixel_decoder,
    )


def _side_of(weights, side):
    depth = len({name.split(".")[2] for name in weights if name.startswith(f"{side}.blocks.")})
    return SideConfig(width=weights[f"{side}.positions"].shape[1], depth=depth)


def _first_convolutions(weights):
    """The first convolution of each level, the smallest resolution first."""
    pattern = re.compile(r"pixel_decoder\.up_blocks\.(\d+)\.resnets\.0\.conv1\.weight")
    found = {int(match[1]): name for name in weights if (match := pattern.fullmatch(name))}
    return [found[level] for level in range(len(found))]


def _diffusers_decoder(weights, source):
    """Make the pixel decoder's weights those of diffusers' decoder, in place.

    Its levels are counted from the pixels and the shortcuts read what the block's convolutions wrote, as in MaskBit.
    """
    pattern = re.compile(r"(pixel_decoder\.up_blocks\.)(\d+)(\..*)")
    matches = [match for name in weights if (match := pattern.fullmatch(name))]
    last = max(int(match[2]) for match in matches)
    weights.update({f"{match[1]}{last - int(match[2])}{match[3]}": weights.pop(match[0]) for match in matches})
    fold_shortcuts(weights, source)
    for name in [name for name in weights if name.endswith(".nin_shortcut.weight")]:
        weights[name.replace(".nin_shortcut.", ".conv_shortcut.")] = weights.pop(name)
    for name, tensor in list(weights.items()):
        if name.startswith("pixel_decoder.") and tensor.ndim == 4:
            weights.setdefault(f"{name.removesuffix('.weight')}.bias", tensor.new_zeros(len(tensor)))
