"""The SeiT++ release's `tokenadapt.ckpt` and ours: one table of names, read in both directions.

A file may also be of a whole model that f and g are frozen in (pre-training, classifier): they are taken out of it.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import torch

from seitpp.runtime.errors import UserError
from seitpp.runtime.foreign.conversion import fill, translated
from seitpp.tokenadapt.model import TokenAdapt, TokenAdaptConfig

_PUBLISHED = [  # names of ours, then the published ones
    (r"^f_in\.", "conversion_function.0."),
    (r"^f_blocks\.", "conversion_function.1.transformer."),
    (r"^f_out\.", "conversion_function.1.to_pixel.1."),
    (r"^g_in\.", "reverse_transform.0.to_patch_embedding.0."),
    (r"^g_blocks\.", "reverse_transform.0.transformer."),
    (r"^g_out\.", "reverse_transform.1."),
    (r"\.blocks\.(\d+)\.", r".layers.\1."),
    (r"\.norm1\.", ".0.norm."),
    (r"\.attn\.qkv\.", ".0.fn.to_qkv."),
    (r"\.attn\.proj\.", ".0.fn.to_out."),
    (r"\.norm2\.", ".1.norm."),
    (r"\.mlp\.fc1\.", ".1.fn.net.0."),
    (r"\.mlp\.fc2\.", ".1.fn.net.2."),
]
_TABLES = {"f_blocks": "conversion_function.1.de_pos_embedding", "g_blocks": "reverse_transform.0.en_pos_embedding"}
_OWN = ("conversion_function.", "reverse_transform.")
_AROUND = re.compile(  # the other tensors of a published pre-training or classifier
    r"(mask_token_label|cls_token|pos_embed|decoder_pos_embed|decoder_pos_embed_learned"
    r"|(token_emb|patch_embed|blocks|norm|fc_norm|decoder_embed|decoder_blocks|decoder_norm|mlm_layer|head)\..*)"
)


def from_published(
    weights: dict[str, torch.Tensor],
    source: object,
    *,
    grid: Sequence[int] | None = None,
    view: Sequence[int] | None = None,
) -> TokenAdapt:
    """A TokenAdapt of published weights. Its shape is read from theirs.

    Args:
        weights: published name to tensor; also of a model that holds f and g.
        source: where they are from, for messages.
        grid: (h, w) of f's ids; None: a square, as large as f's table of positions.
        view: (h', w') of g's ids; None: a square, as large as g's table of positions.
    Returns: TokenAdapt in evaluation mode, frozen.
    Raises: UserError if they are of another model.
    """
    own, others = divided(weights)
    if unknown := [name for name in others if not of_whole_model(name)]:
        raise UserError(f"{source} has an unknown {unknown[0]}: it is of another model")
    tables = {side: own.pop(name) for side, name in _TABLES.items() if name in own}
    layer = r"conversion_function\.1\.transformer\.layers\.(\d+)\."
    try:
        width, embedding_dim = own["conversion_function.0.weight"].shape
        codebook_size = len(own["reverse_transform.1.weight"])
        config = TokenAdaptConfig(width=width, depth=len({m[1] for name in own if (m := re.match(layer, name))}))
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{source} is no TokenAdapt ({error} is missing or of odd shape)") from error
    model = TokenAdapt(
        config,
        grid=grid or _square(tables, "f_blocks", "grid", source),
        view=view or _square(tables, "g_blocks", "view", source),
        codebook_size=codebook_size,
        embedding_dim=embedding_dim,
    )
    fill(model, claimed(own, _published_names(model), source), source)
    for side, table in tables.items():
        check_positions(table, getattr(model, side).positions, _TABLES[side], source)
    return model.eval().requires_grad_(False)


def to_published(model: TokenAdapt) -> dict[str, torch.Tensor]:
    """Weights of a TokenAdapt under their published names, the fixed tables of positions included.

    Raises: UserError if it has a part that the published one lacks.
    """
    model.factors.require_whole("this TokenAdapt")
    config = model.described["tokenadapt"]
    for name, published in {"mixer": "attention", "map_scale": 2, "map_channels": None}.items():
        if config[name] != published:
            what = f"{name} is {config[name]}, the published one's {published}"
            raise UserError(f"this TokenAdapt's {what}: it can't be exported as one")
    state, names = model.state_dict(), _published_names(model)
    if unknown := [ours for name, ours in names.items() if not name.startswith(_OWN)]:
        raise UserError(
            f"this TokenAdapt has a {unknown[0]}, which the published one lacks: it can't be exported as one"
        )
    weights = {name: state[ours] for name, ours in names.items()}
    return weights | {name: getattr(model, side).positions[None] for side, name in _TABLES.items()}


def _published_names(model):
    """Published name to ours of every weight of a TokenAdapt."""
    return translated({name: name for name in model.state_dict()}, _PUBLISHED, "TokenAdapt")


def of_whole_model(name: str) -> bool:
    """Whether a name is of the published pre-training or classifier, f and g left aside."""
    return _AROUND.fullmatch(name) is not None


def divided(weights: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """(Those of f and g, the others) of published weights."""
    own = {name: tensor for name, tensor in weights.items() if name.startswith(_OWN)}
    return own, {name: tensor for name, tensor in weights.items() if name not in own}


def claimed(weights: dict[str, torch.Tensor], names: Any, source: object) -> dict[str, torch.Tensor]:
    """Published weights under our names, float32; each must be known, and each known one be there.

    Args:
        weights: published name to tensor.
        names: published name to ours.
        source: where they are from, for messages.
    Raises: UserError that names the first that is missing or unknown.
    """
    missing = [name for name in names if name not in weights]
    unknown = [name for name in weights if name not in names]
    if missing or unknown:
        what = [f"lacks {name}" for name in missing[:1]] + [f"has an unknown {name}" for name in unknown[:1]]
        raise UserError(
            f"{source} {' and '.join(what)} ({len(missing)} missing, {len(unknown)} unknown): it is of another model"
        )
    return {names[name]: tensor.float() for name, tensor in weights.items()}


def check_positions(table: torch.Tensor, expected: torch.Tensor, name: str, source: object) -> None:
    """Refuse a fixed table of positions that is not ours.

    Args:
        table: as published, (1, n, d).
        expected: (n, d).
        name: its published name.
        source: where it is from, for the message.
    """
    if table.shape != expected[None].shape:
        shapes = f"{tuple(table.shape)}, expected {tuple(expected[None].shape)}"
        raise UserError(f"{source}: {name} has the shape {shapes}: it is of another grid or width")
    if not torch.allclose(table.float(), expected[None], atol=1e-3):  # as near as half precision keeps it
        raise UserError(
            f"{source}: {name} is not the table of sines and cosines by column and row: it is of another model"
        )


def _square(tables, side, what, source):
    """(side, side) of a table of positions."""
    if side not in tables:
        raise UserError(
            f"{source} has no {_TABLES[side]}, so it does not say how many tokens there are: give its {what}"
        )
    count = tables[side].shape[1] if tables[side].ndim == 3 else 0
    length = math.isqrt(count)
    if not count or length**2 != count:
        raise UserError(f"{source}: the {count} positions of {_TABLES[side]} are no square: give its {what}")
    return length, length
