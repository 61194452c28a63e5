"""The augmentation of a training step, on tokens: ids go in, ids of augmented views come out.

    ids → embeddings → ColorAdapt or Emb-Noise → half: random resized crop │ half: TokenAdapt → nearest code → ids

What is switched off is not computed. There is no loop over samples and no host synchronisation.
"""

from dataclasses import dataclass, field
from functools import partial

import torch
from einops import rearrange

from coloradapt.color_adapt import color_adapt, sample_partners
from coloradapt.noise import add_noise
from tokenadapt.geometry import GeometryConfig, sample_crop, sample_geometry, warp
from tokenadapt.model import adapt_ids, load_token_adapt
from tokens.codebook import embed, nearest_code
from training.config import require
from training.errors import UserError


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How training views are made from stored tokens."""

    token_adapt: str | None = None
    """run or weights of TokenAdapt, applied to every second sample; None: all samples are only cropped"""
    geometry: GeometryConfig = field(default_factory=GeometryConfig)
    """crops of all samples; flips and affine maps of those that TokenAdapt transforms"""
    crop: bool = True
    """random resized crops; without, samples that TokenAdapt leaves alone are cut to the view at their centre"""
    color_adapt: float = 0.0
    """probability of ColorAdapt"""
    noise: float = 0.0
    """probability of Emb-Noise; the two exclude each other"""
    noise_channel: float = 1.0
    """deviation of the noise that a channel shares, where the codebook's own is 1"""
    noise_element: float = 1.0
    """deviation of the noise of each element, where the codebook's own is 1"""

    def __post_init__(self):
        require(self, "noise", self.noise >= 0 and self.noise + self.color_adapt <= 1, "and color_adapt exceed 1")
        require(self, "color_adapt", 0 <= self.color_adapt <= 1, "must be a probability")


class Augment:
    """The pipeline of one training, its frozen networks with it.

    Args:
        config: an AugmentConfig.
        store: the TokenStore that ids come from.
        view: (h, w) of the views.
        device: where it runs.
    Raises: UserError if TokenAdapt belongs to another tokenizer, grid or view.
    """

    def __init__(self, config, *, store, view, device):
        self.config = config
        self.view = tuple(view)
        self.grid = store.grid
        self.codebook = store.codebook.to(device)
        self.lookup = store.lookup
        self.deviation = self.codebook.std()
        if self.view[0] > self.grid[0] or self.view[1] > self.grid[1]:
            raise UserError(f"a view of {self.view} tokens does not fit into stored grids of {self.grid}")
        self.token_adapt = None
        if config.token_adapt is not None:
            self.token_adapt, fingerprint = load_token_adapt(config.token_adapt, device)
            store.check_tokenizer(fingerprint, f"TokenAdapt in {config.token_adapt}")
            if (self.token_adapt.grid, self.token_adapt.view) != (store.grid, self.view):
                raise UserError(
                    f"{config.token_adapt} takes {self.token_adapt.grid} tokens to {self.token_adapt.view}; this "
                    f"training needs {store.grid} to {self.view}: train TokenAdapt for it"
                )

    @torch.no_grad()
    def __call__(self, ids, draws):
        """Augmented views: ids (b, h, w) of the store's grid to ids (b, h', w') of the view."""
        config = self.config
        if len(ids) % 2 and (config.color_adapt > 0 or self.token_adapt):
            raise UserError(f"ColorAdapt and TokenAdapt work on pairs of samples: --batch_size {len(ids)} must be even")
        recolours = config.color_adapt + config.noise > 0
        if not (recolours or config.crop or self.token_adapt):
            return centre(ids, self.view)
        embeddings = embed(ids, self.codebook)
        if recolours:
            embeddings = self._recolour(embeddings, draws)
        if self.token_adapt is None:
            return self._crop(embeddings, draws)
        cropped = self._crop(embeddings[0::2], draws[0::2])
        adapted = self._adapt(embeddings[1::2], draws[1::2])
        return rearrange([cropped, adapted], "half b h w -> (b half) h w")

    def _recolour(self, embeddings, draws):
        config, choice = self.config, draws.uniform("recolour", 1)[:, 0]
        result = embeddings
        if config.color_adapt > 0:
            result = color_adapt(embeddings, sample_partners(draws.positions, config.color_adapt, choice))
        if config.noise > 0:
            chosen = (choice >= config.color_adapt) & (choice < config.color_adapt + config.noise)
            channels = embeddings.shape[1]
            result = add_noise(
                result,
                chosen,
                draws.normal("channel noise", channels, 1, 1),
                draws.normal("element noise", *embeddings.shape[1:]),
                channel_scale=config.noise_channel * self.deviation,
                element_scale=config.noise_element * self.deviation,
            )
        return result

    def _crop(self, embeddings, draws):
        if not self.config.crop:
            return nearest_code(centre(embeddings, self.view), self.codebook, self.lookup)
        aspect = self.grid[1] / self.grid[0]
        crop = sample_crop(self.config.geometry, draws, aspect)
        return nearest_code(warp(embeddings, crop, self.view, mode="bicubic"), self.codebook, self.lookup)

    def _adapt(self, embeddings, draws):
        geometry = sample_geometry(self.config.geometry, draws, self.grid[1] / self.grid[0])
        size = (2 * self.view[0], 2 * self.view[1])
        return adapt_ids(self.token_adapt, embeddings, partial(warp, geometry=geometry, size=size))


def centre(maps, view):
    """The central part of the last two axes: (…, h, w) to (…, h', w')."""
    top, left = ((maps.shape[axis] - side) // 2 for axis, side in zip((-2, -1), view, strict=True))
    return maps[..., top : top + view[0], left : left + view[1]]
