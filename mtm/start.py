"""A new pre-training that begins with the weights of an earlier one."""

from dataclasses import asdict
from pathlib import Path

import torch
from einops import rearrange

from seitpp.mtm.model import MaskedTokenModel, ModelConfig, describe_model, load_model
from seitpp.mtm.patches import interpolate_positions
from seitpp.runtime.config import flattened
from seitpp.runtime.errors import UserError
from seitpp.tokens.store import TokenStore

_SHAPE = (
    "encoder.width", "encoder.depth", "encoder.heads", "encoder.patch_size", "decoder.width", "decoder.depth",
    "decoder.heads",
)  # fmt: skip
"""What weights depend on; dropout and the like may change."""


@torch.no_grad()
def start_from_weights(model: MaskedTokenModel, config: ModelConfig, weights: str | Path, store: TokenStore) -> None:
    """Set all weights of a model to those of an earlier pre-training, in place.

    Learned positions (the decoder's) are interpolated to its view.

    Args:
        model: a MaskedTokenModel.
        config: the ModelConfig that it was made of.
        weights: run of `seitpp pretrain` or its weights/.
        store: the TokenStore that it will be trained on.
    Raises: UserError if they are of another tokenizer or another shape, or no such weights.
    """
    described = describe_model(weights)
    store.check_tokenizer(described["tokenizer"], f"the model in {weights}", described["codebook_size"])
    there, here = flattened(described["model"]), flattened(asdict(config))
    different = [name for name in _SHAPE if there.get(name) != here[name]]
    if different:
        flags = " ".join(f"--model.{name} {there.get(name)}" for name in different)
        raise UserError(f"--init_weights {weights} is a model of another shape: give {flags}")
    old, _ = load_model(weights)
    state = old.state_dict()
    table = rearrange(state["decoder_pos_embed"], "1 n d -> n d")
    grids = old.encoder.patch_grid, model.encoder.patch_grid
    table = torch.cat([table[:1], interpolate_positions(table[1:], *grids)])  # that of cls has no place
    model.load_state_dict({**state, "decoder_pos_embed": rearrange(table, "n d -> 1 n d")})
