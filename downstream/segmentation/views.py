"""Training views of windows: one drawn warp for the tokens and for the label map.

    ids → embeddings → ColorAdapt or Emb-Noise → half: nearest codes, nearest tokens │ half: f, warp, g → ids
    label map ──────────────────────── the same warp, nearest pixels, unknown outside the window ──▶ label map

Without TokenAdapt all views are of nearest tokens: each token of a view is the stored token that lies at its middle.
What a token shows inside is then neither scaled nor flipped, so labels are right to half a token at edges.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from seitpp.downstream.segmentation.windows import IGNORE
from seitpp.mtm.augmentation.appearance import AppearanceConfig, recolour
from seitpp.runtime.config import require
from seitpp.runtime.devices import compile_in_place
from seitpp.runtime.errors import UserError
from seitpp.runtime.fingerprints import weights_fingerprint
from seitpp.runtime.locations import Location
from seitpp.tokenadapt.geometry import warp
from seitpp.tokenadapt.model import TokenAdapt, adapt_ids, load_token_adapt
from seitpp.tokens.codebook import embed, nearest_code
from seitpp.tokens.store import TokenStore
from seitpp.training.random_streams import Draws


@dataclass(frozen=True, kw_only=True)
class ViewsConfig(AppearanceConfig):
    """How training views of windows are made."""

    token_adapt: Location | None = None
    """run or weights of TokenAdapt for windows (its view is its grid, that of the store), applied to every second
    sample; None: views of nearest tokens alone"""
    scale: tuple[float, float] = (0.5, 2.0)
    """smallest and largest factor that a window is enlarged by, drawn evenly; a part of the window's size is cut out of
    what is larger, and what is smaller lies somewhere in the view, unlabelled around"""
    flip: float = 0.5
    """probability of a horizontal flip"""

    def __post_init__(self):
        super().__post_init__()
        low, high = self.scale
        require(self, "scale", 0 < low <= high, "must be two increasing factors above 0")
        require(self, "flip", 0 <= self.flip <= 1, "must be a probability")

    @property
    def warps(self) -> bool:
        """Whether views differ from windows in geometry."""
        return self.flip > 0 or tuple(self.scale) != (1.0, 1.0)


def fingerprints(config: ViewsConfig) -> dict[str, str | None]:
    """Of the files that views are made with: data of a RunFolder whose configuration has it as `augment`."""
    return {"augment.token_adapt": config.token_adapt and weights_fingerprint(config.token_adapt)}


def load_window_adapt(path: str, store: TokenStore, device: torch.device | str) -> TokenAdapt:
    """TokenAdapt for the windows of a store.

    Raises: UserError if it belongs to another tokenizer or another grid.
    """
    model, fingerprint = load_token_adapt(path, device)
    store.check_tokenizer(fingerprint, f"TokenAdapt in {path}", model.described["codebook_size"])
    if (model.grid, model.view) != (store.grid, store.grid):
        raise UserError(
            f"{path} takes {model.grid} tokens to {model.view}; windows need {store.grid} to {store.grid}: train "
            f"TokenAdapt for them"
        )
    return model


class WindowViews:
    """Makes the views of a training.

    Args:
        config: a ViewsConfig.
        store: the segmentation store.
        device: where it runs.
        autocast: makes the context that TokenAdapt runs in.
        compiled: whether torch.compile makes the passes of TokenAdapt's blocks.
    Raises: UserError if TokenAdapt belongs to another tokenizer or grid.
    """

    def __init__(
        self, config: ViewsConfig, *, store: TokenStore, device: torch.device | str,
        autocast: Callable[[], AbstractContextManager] = nullcontext, compiled: bool = False,
    ):  # fmt: skip
        self.config, self.autocast = config, autocast
        self.grid, self.lookup = store.grid, store.lookup
        self.codebook = store.codebook.to(device)
        self.codebook_std = self.codebook.std()
        self.token_adapt = None
        if config.token_adapt is not None:
            self.token_adapt = load_window_adapt(config.token_adapt, store, device)
            if compiled:
                compile_in_place(self.token_adapt)

    @torch.no_grad()
    def __call__(self, ids: Tensor, masks: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Views of a batch.

        Args:
            ids: (b, h, w) int64.
            masks: (b, H, W) uint8.
            draws: the Draws of the batch.
        Returns: (ids, label maps), of the same shapes.
        Raises: UserError if samples lack a partner.
        """
        config = self.config
        if len(ids) % 2 and (self.token_adapt or config.color_adapt > 0):
            raise UserError(f"ColorAdapt and TokenAdapt work on pairs of samples: --batch_size {len(ids)} must be even")
        geometry = sample_window_geometry(config, draws) if config.warps else None
        embeddings = embed(ids, self.codebook) if config.recolours or self.token_adapt else None
        if config.recolours and embeddings is not None:
            embeddings = recolour(embeddings, draws, config, codebook_std=self.codebook_std)
        if self.token_adapt is None or embeddings is None:
            views = self._nearest(ids, embeddings, geometry)
        else:
            even, odd = (None if geometry is None else geometry[half::2] for half in (0, 1))
            near = self._nearest(ids[0::2], embeddings[0::2], even)
            views = rearrange([near, self._adapted(embeddings[1::2], odd)], "half b h w -> (b half) h w")
        return views, masks if geometry is None else warp_masks(masks, geometry)

    def _nearest(self, ids, embeddings, geometry):
        if self.config.recolours:
            ids = nearest_code(embeddings, self.codebook, self.lookup)
        return ids if geometry is None else warp_ids(ids, geometry, self.grid)

    def _adapted(self, embeddings, geometry):
        assert self.token_adapt is not None
        if geometry is None:
            geometry = torch.eye(3, device=embeddings.device).expand(len(embeddings), 3, 3)
        with self.autocast():
            return adapt_ids(
                self.token_adapt, embeddings, partial(warp, geometry=geometry, size=self.token_adapt.map_size)
            )


def sample_window_geometry(config: ViewsConfig, draws: Draws) -> Tensor:
    """Draw scale, place and flip of each sample: maps from view to window in normalised coordinates, (b, 3, 3).

    Enlarged by s, a view shows 1 / s of the window's sides, anywhere in it; made smaller, the window lies anywhere in
    the view. Source: the usual random resize and crop of semantic segmentation, in one map.
    """
    share, right, down, flip = draws.uniform("window view", 4).unbind(1)
    low, high = config.scale
    factor = 1.0 / (low + (high - low) * share)
    room = (1.0 - factor).abs()
    geometry = torch.zeros(len(draws), 3, 3, device=draws.device)
    geometry[:, 0, 0] = torch.where(flip < config.flip, -factor, factor)
    geometry[:, 1, 1], geometry[:, 2, 2] = factor, 1.0
    geometry[:, 0, 2], geometry[:, 1, 2] = room * (2.0 * right - 1.0), room * (2.0 * down - 1.0)
    return geometry


def warp_ids(ids: Tensor, geometry: Tensor, size: Sequence[int]) -> Tensor:
    """The nearest token at each place of a view: (b, h, w) int64 to (b, *size); the border goes on outside."""
    return warp(ids[:, None].float(), geometry, size, mode="nearest")[:, 0].to(ids.dtype)


def warp_masks(masks: Tensor, geometry: Tensor) -> Tensor:
    """The nearest label at each pixel of a view: (b, H, W) uint8 to the same shape, IGNORE outside of the window."""
    size = masks.shape[1:]
    warped = warp(masks[:, None].float(), geometry, size, mode="nearest")[:, 0].to(masks.dtype)
    places = F.affine_grid(geometry[:, :2], [len(masks), 1, *size], align_corners=False)
    return warped.masked_fill((places.abs() > 1.0).any(dim=-1), IGNORE)
