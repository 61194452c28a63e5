"""Pictures of masked token modelling: what the model saw, and how it completed it."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from seitpp.mtm.masking import make_masks, patch_count
from seitpp.mtm.model import MaskedTokenModel
from seitpp.mtm.patches import unpatchify
from seitpp.runtime.pictures import image_grid
from seitpp.tokenizers.tokenizer import Tokenizer
from seitpp.tokens.one_dimensional import geometry_of
from seitpp.tokens.views import centre, centre_pixels, put
from seitpp.training.random_streams import Draws

GREY = 0.6


def completion_picture(
    model: MaskedTokenModel, tokenizer: Tokenizer, ids: Tensor, path: Path, *, ratio: float, seed: int = 0
) -> None:
    """Write what `completed_rows` gives as a PNG."""
    image_grid(completed_rows(model, tokenizer, ids, ratio=ratio, seed=seed), path)


@torch.no_grad()
def completed_rows(
    model: MaskedTokenModel, tokenizer: Tokenizer, ids: Tensor, *, ratio: float, seed: int = 0
) -> list[Tensor]:
    """Three rows: decoded ids, the same with hidden patches grey, the model's completion.

    Of one-dimensional tokens the second is left out.

    Args:
        model: a MaskedTokenModel in evaluation mode.
        tokenizer: the Tokenizer of its ids.
        ids: (n, h, w) int64; the model sees the centre of its view's size.
        ratio: fraction of patches hidden, such as the one that cross-entropy is measured at.
        seed: of the masks.
    Returns: list of (n, 3, H, W) in [0, 1].
    """
    patches = math.prod(model.encoder.patch_grid)
    draws = Draws(seed, 0, torch.arange(len(ids), device=ids.device))
    hidden = patch_count(ratio, patches)
    masks = make_masks(draws.uniform("mask", patches), masked_count=hidden, dropped_count=hidden)
    completed = model.complete(centre(ids, model.encoder.view), masks)
    return completion_rows(model, tokenizer, ids, masks.masked, [completed])


@torch.no_grad()
def completion_rows(
    model: MaskedTokenModel, tokenizer: Tokenizer, ids: Tensor, masked: Tensor, completions: Sequence[Tensor]
) -> list[Tensor]:
    """Rows of images: decoded ids, the same with hidden patches grey, then each completion.

    Whole grids are decoded, as a decoder may know no other size; around the model's view they are those of `ids`.
    Where a hidden token has no place in the image, as one-dimensional ones, there is no grey row.

    Args:
        model: a MaskedTokenModel.
        tokenizer: the Tokenizer of its ids.
        ids: (n, h, w) int64, of the store's grid.
        masked: hidden patches, (n, patches) bool.
        completions: list of ids of the view, (n, h', w').
    Returns: list of (n, 3, H, W) in [0, 1].
    """
    original = tokenizer.decode(ids)
    completed = [tokenizer.decode(put(ids, part)) for part in completions]
    if geometry_of(tokenizer) == "none":
        return [original, *completed]
    side = original.shape[2] // ids.shape[1] * model.encoder.patch_size  # pixels of a patch
    covered = torch.zeros_like(original, dtype=torch.bool)
    view = centre_pixels(covered, ids.shape[1:], model.encoder.view)
    view[:] = unpatchify(masked[..., None].expand(-1, -1, side**2), model.encoder.patch_grid, side)[:, None]
    return [original, torch.where(covered, GREY, original), *completed]
