"""The SeiT++ release's pre-training checkpoints and ours: one table of names, read in both directions.

They also hold what is not trained: TokenAdapt's frozen f and g, and fixed tables of positions, of which
`decoder_pos_embed` is never used.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from torch.nn.functional import pad

from seitpp.mtm.encoder import EncoderConfig
from seitpp.mtm.model import DecoderConfig, MaskedTokenModel, ModelConfig
from seitpp.runtime.errors import UserError
from seitpp.runtime.foreign.conversion import fill, translated
from seitpp.runtime.foreign.torch_file import read_tensors
from seitpp.tokenadapt.model import TokenAdapt
from seitpp.tokenadapt.published import check_positions, claimed, divided, of_whole_model
from seitpp.tokenadapt.published import to_published as token_adapt_to_published
from seitpp.tokenizers.positions import sincos_positions
from seitpp.tokens.code_factors import whole_ids

ENCODER = [  # names of an encoder of ours that is part of a model, then the published ones
    (r"^encoder\.stem\.embeddings\.", "token_emb.word_embeddings."),
    (r"^encoder\.stem\.embedding_norm\.", "token_emb.LayerNorm."),
    (r"^encoder\.stem\.patches\.", "patch_embed.proj."),
    (r"^encoder\.", ""),
]
_PUBLISHED = [
    (r"^mask_token$", "mask_token_label"),
    (r"^decoder_pos_embed$", "decoder_pos_embed_learned"),
    (r"^head_bias$", "mlm_layer.bias"),
    (r"^head_norm\.", "mlm_layer.ln."),
    (r"^head\.", "mlm_layer.fc."),
    *ENCODER,
]
HEAD_WIDTH = 64
"""Channels of an encoder's head in ViT-S, B and L."""
_HEADS = {"heads": "num_heads", "decoder_heads": "decoder_num_heads"}
"""What `from_published` is told, and its name beside the weights in our own exports."""


def from_published(
    weights: dict[str, Tensor], source: str, *, view: Sequence[int] | None = None, heads: int | None = None,
    decoder_heads: int | None = None,
) -> MaskedTokenModel:  # fmt: skip
    """A MaskedTokenModel of published weights. Its shape is read from theirs.

    Args:
        weights: published name to tensor. Those of TokenAdapt are left to `seitpp.tokenadapt.published`.
        source: where they are from, for messages.
        view: (h, w) tokens of the input; None: a square.
        heads: of the encoder, which no tensor tells; None: 64 channels each.
        decoder_heads: of the decoder; None: 16, as in the papers.
    Returns: MaskedTokenModel in evaluation mode.
    Raises: UserError if they are of another model.
    """
    _, weights = divided(weights)
    tables = {name: weights.pop(name) for name in ("pos_embed", "decoder_pos_embed") if name in weights}
    try:
        codebook_size, embedding_dim = weights["token_emb.word_embeddings.weight"].shape
        patch_size = weights["patch_embed.proj.weight"].shape[2]
        width, decoder_width = weights["cls_token"].shape[2], len(weights["decoder_embed.weight"])
        patches = weights["decoder_pos_embed_learned"].shape[1] - 1
        weights["mlm_layer.bias"] = weights["mlm_layer.bias"].flatten()
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise UserError(f"{source} is no MTM pre-training ({error} is missing or of odd shape)") from error
    if view is None:
        side = math.isqrt(patches)
        if side**2 != patches:
            raise UserError(f"{source}: its {patches} patches are no square: give --view")
        view = (side * patch_size, side * patch_size)
    config = ModelConfig(
        encoder=EncoderConfig(
            width=width,
            depth=depth_of(weights, "blocks"),
            heads=heads or usual_heads(width, source),
            patch_size=patch_size,
            code_factors=whole_ids(codebook_size),
        ),
        decoder=DecoderConfig(
            width=decoder_width,
            depth=depth_of(weights, "decoder_blocks"),
            heads=decoder_heads or _usual_decoder_heads(decoder_width, source),
        ),
    )
    model = MaskedTokenModel(config, view=view, codebook_size=codebook_size, embedding_dim=embedding_dim)
    fill(model, claimed(weights, _published_names(model), source), source)
    expected = _fixed_tables(model)
    for name, table in tables.items():
        check_positions(table, expected[name][0], name, source)
    return model.eval()


def to_published(model: MaskedTokenModel, token_adapt: TokenAdapt | None = None) -> dict[str, Tensor]:
    """Weights of a MaskedTokenModel under their published names, the fixed tables of positions included.

    Args:
        model: the MaskedTokenModel.
        token_adapt: the TokenAdapt that its views were made with, to go with it; or None.
    Raises: UserError if one of them has a part that the published one lacks.
    """
    model.factors.require_whole("this model")
    state, names = model.state_dict(), _published_names(model)
    if unknown := [ours for name, ours in names.items() if not of_whole_model(name)]:
        raise UserError(f"this model has a {unknown[0]}, which the published one lacks: it can't be exported as one")
    weights = {name: state[ours] for name, ours in names.items()}
    weights["mlm_layer.bias"] = weights["mlm_layer.bias"][None, None]
    weights |= _fixed_tables(model)
    return weights if token_adapt is None else weights | token_adapt_to_published(token_adapt)


def heads_of(model: MaskedTokenModel) -> dict[str, int]:
    """What no tensor of a MaskedTokenModel tells, as plain numbers to go beside its published weights."""
    parts = model.described["model"]
    return {_HEADS["heads"]: parts["encoder"]["heads"], _HEADS["decoder_heads"]: parts["decoder"]["heads"]}


def read_heads(path: str | Path) -> dict[str, int]:
    """The heads that a file has beside its weights: {"heads", "decoder_heads"}, where it is one of our exports.

    The release has an argparse.Namespace under `args`, which tells a model's name and not its heads.

    Raises: UserError if the file can't be read.
    """
    content = read_tensors(path)
    beside = content.get("args") if isinstance(content, dict) else None
    told = {name: beside.get(key) for name, key in _HEADS.items()} if isinstance(beside, dict) else {}
    return {name: number for name, number in told.items() if type(number) is int and number >= 1}


def _published_names(model):
    return translated({name: name for name in model.state_dict()}, _PUBLISHED, "MTM")


def _fixed_tables(model):
    """Published positions by name, (1, 1 + n, d) each: those of the cls token are zero."""
    encoder = model.encoder
    decoder = sincos_positions(model.decoder_embed.out_features, encoder.patch_grid)
    tables = {"pos_embed": encoder.pos_embed, "decoder_pos_embed": decoder.to(encoder.pos_embed.device)}
    return {name: pad(table, (0, 0, 1, 0))[None] for name, table in tables.items()}


def depth_of(weights: dict[str, Tensor], blocks: str) -> int:
    """How many blocks published weights have under a name."""
    return len({m[1] for name in weights if (m := re.match(rf"{blocks}\.(\d+)\.", name))})


def usual_heads(width: int, source: str) -> int:
    """Heads of 64 channels each, as in ViT-S, B and L.

    Raises: UserError if the width is no multiple of 64.
    """
    if width % HEAD_WIDTH:
        raise UserError(f"{source} has the width {width}, no multiple of {HEAD_WIDTH}: give --heads")
    return width // HEAD_WIDTH


def _usual_decoder_heads(width, source):
    if width % DecoderConfig.heads:
        raise UserError(
            f"{source} has a decoder of width {width}, no multiple of {DecoderConfig.heads}: give --decoder_heads"
        )
    return DecoderConfig.heads
