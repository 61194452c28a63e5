"""A tiny ViT-VQGAN, and its checkpoint as enhancing-transformers would write it."""

from collections import OrderedDict

import torch
from torch import nn

from seitpp.tokenizers.networks.vit_vqgan import TransformerConfig, ViTVQGANConfig
from seitpp.tokenizers.positions import sincos_positions

TINY = ViTVQGANConfig(
    image_size=(12, 20), patch_size=4, codebook_size=11, codebook_dim=5,
    encoder=TransformerConfig(width=24, depth=2, heads=1, mlp=40),
    decoder=TransformerConfig(width=16, depth=1, heads=2, mlp=30),
)  # fmt: skip
SQUARE = ViTVQGANConfig(**{**TINY.__dict__, "image_size": (20, 20)})

NAMES = [
    ("transformer.layers.{0}.0.norm.weight", "blocks.{0}.attention_norm.weight"),
    ("transformer.layers.{0}.0.norm.bias", "blocks.{0}.attention_norm.bias"),
    ("transformer.layers.{0}.0.fn.to_qkv.weight", "blocks.{0}.qkv.weight"),
    ("transformer.layers.{0}.0.fn.to_out.weight", "blocks.{0}.out.weight"),
    ("transformer.layers.{0}.0.fn.to_out.bias", "blocks.{0}.out.bias"),
    ("transformer.layers.{0}.1.norm.weight", "blocks.{0}.mlp_norm.weight"),
    ("transformer.layers.{0}.1.norm.bias", "blocks.{0}.mlp_norm.bias"),
    ("transformer.layers.{0}.1.fn.net.0.weight", "blocks.{0}.mlp.0.weight"),
    ("transformer.layers.{0}.1.fn.net.0.bias", "blocks.{0}.mlp.0.bias"),
    ("transformer.layers.{0}.1.fn.net.2.weight", "blocks.{0}.mlp.2.weight"),
    ("transformer.layers.{0}.1.fn.net.2.bias", "blocks.{0}.mlp.2.bias"),
]
OTHERS = {
    "encoder.to_patch_embedding.0.weight": "to_patches.weight", "encoder.to_patch_embedding.0.bias": "to_patches.bias",
    "encoder.transformer.norm.weight": "encoder.norm.weight", "encoder.transformer.norm.bias": "encoder.norm.bias",
    "decoder.transformer.norm.weight": "decoder.norm.weight", "decoder.transformer.norm.bias": "decoder.norm.bias",
    "decoder.to_pixel.1.weight": "to_pixels.weight", "decoder.to_pixel.1.bias": "to_pixels.bias",
    "quantizer.embedding.weight": "codes", "pre_quant.weight": "pre_quant.weight", "pre_quant.bias": "pre_quant.bias",
    "post_quant.weight": "post_quant.weight", "post_quant.bias": "post_quant.bias",
}  # fmt: skip


def as_published(tokenizer):
    """The state dict that enhancing-transformers would save, fixed tables and networks of its losses included."""
    ours = tokenizer.state_dict()
    result = OrderedDict((name, ours[ours_name]) for name, ours_name in OTHERS.items())
    for side, config in (("encoder", TINY.encoder), ("decoder", TINY.decoder)):
        for block in range(config.depth):
            for name, ours_name in NAMES:
                result[f"{side}.{name.format(block)}"] = ours[f"{side}.{ours_name.format(block)}"]
        result[f"{side}.{side[:2]}_pos_embedding"] = sincos_positions(config.width, tokenizer.grid)[None]
    result["loss.perceptual_loss.net.slice1.0.weight"] = torch.randn(4, 3, 3, 3)
    result["loss.discriminator.blocks.0.0.weight"] = torch.randn(4, 3)
    return result


def module_of(weights):
    """A module whose classes nobody has, with these weights by their names."""
    modules = {"": nn.Module()}
    for name, tensor in weights.items():
        *path, leaf = name.split(".")
        for depth in range(1, len(path) + 1):
            here, above = ".".join(path[:depth]), ".".join(path[: depth - 1])
            if here not in modules:
                modules[here] = nn.Module()
                modules[above].add_module(path[depth - 1], modules[here])
        modules[".".join(path)].register_parameter(leaf, nn.Parameter(tensor, requires_grad=False))
    return modules[""]
