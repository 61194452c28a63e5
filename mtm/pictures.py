"""Pictures of masked token modelling: what the model saw, and how it completed it."""

import torch
from einops import repeat

from mtm.masking import make_masks
from tokens.pictures import image_grid
from training.chance import Draws


@torch.no_grad()
def completion_picture(model, tokenizer, ids, path, *, ratio=0.6, seed=0):
    """Write four rows: decoded ids, the same with hidden patches grey, the model's completion, hidden part only.

    Args:
        model: a MaskedTokenModel in evaluation mode.
        tokenizer: the Tokenizer of its ids.
        ids: (n, h, w) int64 of the model's view.
        path: the PNG.
        ratio: share of patches hidden.
        seed: of the masks.
    """
    grid = model.encoder.grid
    patches = grid[0] * grid[1]
    draws = Draws(seed, 0, torch.arange(len(ids), device=ids.device))
    hidden = round(ratio * patches)
    masks = make_masks(draws.uniform("mask", patches), masked_count=hidden, dropped_count=hidden)
    original, completed = tokenizer.decode(ids), tokenizer.decode(model.complete(ids, masks))
    side = original.shape[2] // grid[0]
    covered = repeat(masks.masked, "b (h w) -> b 1 (h p) (w q)", h=grid[0], p=side, q=side)
    image_grid([original, torch.where(covered, 0.6, original), completed], path)
