"""How well tokens of an image turn into the tokens of the transformed image: TokenAdapt against naive ways."""

import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from seitpp.tokenadapt.geometry import IDENTITY, GeometryConfig, around_view, sample_geometry, warp
from seitpp.tokenadapt.model import TokenAdapt, adapt_ids
from seitpp.tokenizers.reconstruction import mean_psnr
from seitpp.tokenizers.tokenizer import Tokenizer
from seitpp.tokens.codebook import embed, nearest_code
from seitpp.tokens.views import centre, centre_pixels, put
from seitpp.training.random_streams import Draws

if TYPE_CHECKING:
    from accelerate import Accelerator


METHODS = ("naive embedding", "naive id", "TokenAdapt", "decode, warp, encode")
"""Warp embeddings and take the nearest code; warp ids (nearest neighbour); f, warp, g; the expensive way by pixels."""

_AT_ONCE = 32  # images: a tokenizer with attention takes gigabytes for many


def geometries(config: GeometryConfig) -> dict[str, GeometryConfig]:
    """The geometries that are measured, each with one part of `config` switched on, always or at its full range."""
    still = replace(IDENTITY, rotation=0.0, translation=0.0, shear=0.0, part=1.0)
    return {
        "identity": still,
        "flip": replace(still, flip=1.0),
        "crop": replace(still, crop_scale=config.crop_scale, crop_ratio=config.crop_ratio),
        "rotation": replace(still, affine=1.0, rotation=config.rotation),
        "shear": replace(still, affine=1.0, shear=config.shear),
        "all": config,
    }


@torch.no_grad()
def agreement_table(
    model: TokenAdapt, tokenizer: Tokenizer, images: torch.Tensor, config: GeometryConfig, *, seed: int
) -> pd.DataFrame:
    """Compare the three cheap ways and the expensive one on held-out images.

    Args:
        model: a TokenAdapt. Where its view is smaller than the grid, whole grids are encoded and decoded, as a
            tokenizer may know no other size, and their centres are compared.
        tokenizer: the Tokenizer of its ids.
        images: (n, 3, H, W) in [0, 1], not seen in training.
        config: the GeometryConfig that TokenAdapt was trained on.
        seed: of the drawn geometries.
    Returns: DataFrame with columns geometry, method, agreement (fraction of ids equal to those of the transformed
        image), agreement_foreground (the same where the true id is not the images' most frequent one) and psnr (dB, of
        the decoded ids against the transformed pixels); the method "tokenizer" is the limit: its own reconstruction.
    """
    ids = torch.cat([tokenizer.encode(part) for part in images.split(_AT_ONCE)])
    background = ids.flatten().mode().values
    rows = []
    for name, geometry_config in geometries(config).items():
        draws = Draws(seed, 0, torch.arange(len(images), device=images.device))
        geometry = sample_geometry(geometry_config, draws, aspect=images.shape[3] / images.shape[2])
        parts = [
            _sums(model, tokenizer, *part, background)
            for part in zip(images.split(_AT_ONCE), geometry.split(_AT_ONCE), strict=True)
        ]
        for method in (*METHODS, "tokenizer"):
            equal, tokens, equal_foreground, foreground, psnr = np.sum([part[method] for part in parts], axis=0)
            rows.append(
                {
                    "geometry": name,
                    "method": method,
                    "agreement": equal / tokens,
                    "agreement_foreground": equal_foreground / foreground if foreground else math.nan,
                    "psnr": psnr / len(images),
                }
            )
    return pd.DataFrame(rows)


@torch.no_grad()
def eval_agreement(
    model: TokenAdapt,
    tokenizer: Tokenizer,
    images: torch.Tensor,
    config: GeometryConfig,
    *,
    seed: int,
    accelerator: "Accelerator",
) -> dict[str, float]:
    """How many ids of transformed images TokenAdapt predicts, over all processes, each image once.

    Args:
        model: a TokenAdapt.
        tokenizer: the Tokenizer of its ids.
        images: (n, 3, H, W) in [0, 1], not seen in training, the same on all processes.
        config: the GeometryConfig that TokenAdapt is trained on.
        seed: of the drawn geometries.
        accelerator: accelerate.Accelerator.
    Returns: {"eval_agreement": fraction of equal ids}.
    """
    equal = torch.zeros(2, device=images.device)
    for places in torch.arange(len(images)).split(_AT_ONCE)[accelerator.process_index :: accelerator.num_processes]:
        draws = Draws(seed, 0, places.to(images.device))
        geometry = sample_geometry(config, draws, aspect=images.shape[3] / images.shape[2])
        shown = warp(images[places], around_view(geometry, model.grid, model.view), tokenizer.image_size)
        wanted = centre(tokenizer.encode(shown), model.view)
        with accelerator.autocast():
            found = transformed_ids("TokenAdapt", model, tokenizer, images[places], geometry)
        equal += torch.stack([(found == wanted).sum(), torch.ones_like(wanted).sum()])
    right, tokens = accelerator.reduce(equal).tolist()
    return {"eval_agreement": right / tokens}


def _sums(model, tokenizer, images, geometry, background):
    """Of each method: tokens that are right, tokens, both in the foreground, and the sum of PSNR over images."""
    around = around_view(geometry, model.grid, model.view)
    shown = warp(images, around, tokenizer.image_size)
    whole = tokenizer.encode(shown)
    true_ids = centre(whole, model.view)
    wanted = centre_pixels(shown, model.grid, model.view)
    foreground = true_ids != background
    found = {method: transformed_ids(method, model, tokenizer, images, geometry) for method in METHODS}
    sums = {}
    for method, ids in {**found, "tokenizer": true_ids}.items():
        equal = ids == true_ids
        decoded = centre_pixels(tokenizer.decode(put(whole, ids)), model.grid, model.view)
        counts = [int(each.sum()) for each in (equal, torch.ones_like(equal), equal & foreground, foreground)]
        sums[method] = [*counts, mean_psnr(decoded, wanted) * len(images)]
    return sums


@torch.no_grad()
def transformed_ids(
    method: str, model: TokenAdapt, tokenizer: Tokenizer, images: torch.Tensor, geometry: torch.Tensor
) -> torch.Tensor:
    """Ids of transformed images by one of METHODS, from the ids of the images.

    Args:
        method: one of METHODS.
        model: a TokenAdapt.
        tokenizer: the Tokenizer.
        images: (b, 3, H, W) in [0, 1].
        geometry: (b, 3, 3), see sample_geometry.
    Returns: (b, h', w') int64.
    """
    ids = tokenizer.encode(images)
    if method == "naive id":
        return warp(ids[:, None].to(torch.float32), geometry, model.view, mode="nearest")[:, 0].to(torch.int64)
    if method == "decode, warp, encode":
        around = around_view(geometry, model.grid, model.view)
        return centre(tokenizer.encode(warp(tokenizer.decode(ids), around, tokenizer.image_size)), model.view)
    embeddings = embed(ids, tokenizer.codebook)
    if method == "naive embedding":
        return nearest_code(warp(embeddings, geometry, model.view), tokenizer.codebook, tokenizer.lookup)
    return adapt_ids(model, embeddings, partial(warp, geometry=geometry, size=model.map_size))
