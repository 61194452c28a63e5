"""Published ViT-VQGAN checkpoints: names are translated, the shape is read from the tensors.

They are those of enhancing-transformers (github.com/thuanz123/enhancing-transformers), trained on pixels in [0, 1]; the
SeiT release holds one as a pickled module, `tokenizer.ckpt`.
"""

import math

import torch

from seitpp.runtime.errors import UserError
from seitpp.runtime.foreign.conversion import fill, translated
from seitpp.tokenizers.networks.vit_vqgan import HEAD_WIDTH, TransformerConfig, ViTVQGAN, ViTVQGANConfig

_RULES = [
    (r"^(en|de)coder\.transformer\.layers\.(\d+)\.0\.norm\.", r"\1coder.blocks.\2.attention_norm."),
    (r"^(en|de)coder\.transformer\.layers\.(\d+)\.0\.fn\.to_", r"\1coder.blocks.\2."),
    (r"^(en|de)coder\.transformer\.layers\.(\d+)\.1\.norm\.", r"\1coder.blocks.\2.mlp_norm."),
    (r"^(en|de)coder\.transformer\.layers\.(\d+)\.1\.fn\.net\.", r"\1coder.blocks.\2.mlp."),
    (r"^(en|de)coder\.transformer\.norm\.", r"\1coder.norm."),
    (r"^encoder\.to_patch_embedding\.0\.", "to_patches."),
    (r"^decoder\.to_pixel\.1\.", "to_pixels."),
    (r"^quantizer\.embedding\.weight$", "codes"),
]
_PAIR = [(r"^0\.", "encoder."), (r"^1\.", "pre_quant.")]
_TABLES = {"encoder.en_pos_embedding": "encoder", "decoder.de_pos_embedding": "decoder"}
_OF_TRAINING = ("loss.", "discriminator.")


def from_published(
    weights: dict[str, torch.Tensor],
    source: object,
    *,
    image_size: int | None = None,
    codebook: torch.Tensor | None = None,
) -> ViTVQGAN:
    """A ViTVQGAN of published weights. Its shape is read from theirs.

    Skipped by name is what only training needs: the losses with their networks. A pair of encoder and `pre_quant`
    in a Sequential (as the SeiT release's evaluation calls its tokenizer) is a tokenizer without a decoder.

    Args:
        weights: published name to tensor.
        source: where they are from, for messages.
        image_size: pixels a side; None: what the table of positions is made for, 256 if there is none.
        codebook: (k, c), codes instead of the checkpoint's own, such as the release's 391.
    Raises: UserError if they are of another model.
    """
    weights = {name: value.float() for name, value in weights.items() if not name.startswith(_OF_TRAINING)}
    if "0.to_patch_embedding.0.weight" in weights:
        weights = translated(weights, _PAIR, source)
    tables = {side: weights.pop(name) for name, side in _TABLES.items() if name in weights}
    ours = translated(weights, _RULES, source)
    if codebook is not None:
        ours["codes"] = codebook
    if "codes" not in ours:
        raise UserError(f"{source} has no codebook (quantizer.embedding.weight): give one with --codebook")
    try:
        config = _config_of(ours, tables, image_size, source)
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(
            f"{source} is no ViT-VQGAN ({' '.join(str(error).split())} is missing or of odd shape)"
        ) from error
    tokenizer = fill(ViTVQGAN(config), ours, source)
    for side, table in tables.items():
        expected = getattr(tokenizer, side).positions[None]
        if table.shape != expected.shape or not torch.allclose(table, expected, atol=1e-4):
            raise UserError(f"{source}: the positions of its {side} are not sine and cosine by column and row")
    return tokenizer


def _config_of(weights, tables, image_size, source):
    patch_size = weights["to_patches.weight"].shape[2]
    if "encoder" in tables:
        side = math.isqrt(tables["encoder"].shape[1]) * patch_size
        if image_size not in (None, side):
            raise UserError(f"{source} is made for images of {side} pixels, not {image_size}: leave --image_size out")
        image_size = side
    codebook_size, codebook_dim = weights["codes"].shape
    return ViTVQGANConfig(
        image_size=(image_size or 256, image_size or 256),
        patch_size=patch_size,
        encoder=_transformer_of(weights, "encoder"),
        decoder=_transformer_of(weights, "decoder") if "post_quant.weight" in weights else None,
        codebook_size=codebook_size,
        codebook_dim=codebook_dim,
    )


def _transformer_of(weights, side):
    first = f"{side}.blocks.0"
    depth = len({name.split(".")[2] for name in weights if name.startswith(f"{side}.blocks.")})
    return TransformerConfig(
        width=weights[f"{first}.attention_norm.weight"].shape[0],
        depth=depth,
        heads=weights[f"{first}.qkv.weight"].shape[0] // (3 * HEAD_WIDTH),
        mlp=weights[f"{first}.mlp.0.weight"].shape[0],
    )
