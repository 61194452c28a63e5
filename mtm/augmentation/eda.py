"""Token-EDA: ids edited as words are, by synonyms and by swaps.

Each edit is two functions: `sample_*` draws the parameters of a batch, and a deterministic one uses them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange

from seitpp.runtime.config import require
from seitpp.runtime.errors import UserError
from seitpp.runtime.locations import Location
from seitpp.tokens.store import TokenStore
from seitpp.tokens.synonyms import PUBLISHED_COUNT, nearest_codes, read_synonyms
from seitpp.training.random_streams import Draws


@dataclass(frozen=True, kw_only=True)
class EdaConfig:
    """How ids are edited. SeiT edits a quarter of the samples by synonyms and another by a swap; SeiT++ none."""

    synonyms: float = 0.0
    """probability that a sample's tokens give way to synonyms; SeiT: 0.25"""
    swap: float = 0.0
    """probability that two squares of a sample change places; SeiT: 0.25. The two exclude each other"""
    replaced: float = 0.25
    """probability of each token to be replaced, where synonyms come at all"""
    synonym_count: int = PUBLISHED_COUNT
    """how many of the nearest codes are synonyms, all as likely"""
    synonym_file: Location | None = None
    """JSON that `seitpp store synonyms` writes; None: the nearest codes of the store's codebook"""
    swap_scale: float = 0.25
    """largest side of the squares, fraction of the grid's shorter side"""

    def __post_init__(self):
        for name in ("synonyms", "replaced"):
            require(self, name, 0 <= getattr(self, name) <= 1, "must be a probability")
        require(self, "swap", self.swap >= 0 and self.synonyms + self.swap <= 1, "and synonyms exceed 1")
        require(self, "synonym_count", self.synonym_count >= 1, "must be at least 1")
        # Up to a third of the side, a square anywhere leaves room for another beside it.
        require(self, "swap_scale", 0 < self.swap_scale <= 1 / 3, "must lie in (0, 1/3]")


@dataclass(frozen=True)
class Synonyms:
    """The synonyms of every code.

    Attributes:
        table: (k, n) int64, nearest first; rows that have fewer repeat their last.
        counts: how many each code has, (k,) int64.
    """

    table: torch.Tensor
    counts: torch.Tensor


class TokenEda:
    """The edits of one training, with its synonyms where it wants them.

    Args:
        config: an EdaConfig.
        store: the TokenStore that ids come from.
        device: where it runs.
    Raises: UserError if the file of synonyms is another codebook's, or if the store has nothing to edit with.
    Source: SeiT (arXiv 2303.11114), Token-EDA, after EDA (arXiv 1901.11196).
    """

    def __init__(self, config: EdaConfig, *, store: TokenStore, device: torch.device | str):
        self.config = config
        if config.synonyms > 0 and config.synonym_file is None and store.codebook_size < 2:
            raise UserError("a codebook of one code has no synonyms: set --augment.eda.synonyms 0")
        if config.swap > 0 and tuple(store.grid) == (1, 1):
            raise UserError("a grid of one token has nothing to swap: set --augment.eda.swap 0")
        self.synonyms = open_synonyms(config, store, device) if config.synonyms > 0 else None

    def __call__(self, ids, draws):
        """Edited ids, (b, h, w): some samples by synonyms, others by a swap."""
        config, grid = self.config, tuple(ids.shape[1:])
        choice = rearrange(draws.uniform("eda", 1), "b 1 -> b 1 1")
        edited = ids
        if config.synonyms > 0:
            replaced, which = sample_replacements(draws, grid, config.replaced)
            edited = replace_by_synonyms(edited, replaced & (choice < config.synonyms), which, self.synonyms)
        if config.swap > 0:
            chosen = (choice >= config.synonyms) & (choice < config.synonyms + config.swap)
            edited = torch.where(chosen, take_places(edited, sample_swap(draws, grid, config.swap_scale)), edited)
        return edited


def open_synonyms(config: EdaConfig, store: TokenStore, device: torch.device | str) -> torch.Tensor:
    """The Synonyms that an EdaConfig names: of a file, or the nearest codes of the store's codebook."""
    if config.synonym_file is None:
        table = nearest_codes(store.codebook, store.lookup, config.synonym_count)
        return Synonyms(table.to(device), torch.full((len(table),), table.shape[1], device=device))
    rows = [row[: config.synonym_count] for row in read_synonyms(config.synonym_file, store.codebook_size)]
    longest = max(map(len, rows))
    table = torch.tensor([row + row[-1:] * (longest - len(row)) for row in rows], device=device)
    return Synonyms(table, torch.tensor([len(row) for row in rows], device=device))


def sample_replacements(draws: Draws, grid: Sequence[int], probability: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw which tokens give way, and to which of their synonyms.

    Args:
        draws: a Draws.
        grid: (h, w).
        probability: of each token to be replaced.
    Returns: (which tokens, (b, h, w) bool; place of the synonym in its list as a share in [0, 1), (b, h, w)).
    """
    replaced, which = draws.uniform("synonyms", 2, *grid).unbind(1)
    return replaced < probability, which


def replace_by_synonyms(
    ids: torch.Tensor, replaced: torch.Tensor, which: torch.Tensor, synonyms: torch.Tensor
) -> torch.Tensor:
    """Give tokens their synonyms.

    Args:
        ids: (b, h, w) int64.
        replaced: which tokens, (b, h, w) bool.
        which: fraction of the list of synonyms to go down, in [0, 1), (b, h, w).
        synonyms: the Synonyms.
    Returns: (b, h, w) int64.
    """
    place = (which * synonyms.counts[ids]).long()
    return torch.where(replaced, synonyms.table[ids, place], ids)


def sample_swap(draws: Draws, grid: Sequence[int], scale: float) -> torch.Tensor:
    """Draw two squares of a grid that do not overlap, of one size, for each sample.

    The side is any of 1 … scale x the shorter side, all as likely; so is every place of the first square, and every
    place of the second that is free of the first. (The published code draws sides from 0, where nothing changes, and
    accepts squares that overlap at a corner, which loses tokens.)

    Args:
        draws: a Draws.
        grid: (h, w), of more than one token.
        scale: largest side, fraction of the shorter side; at most 1/3.
    Returns: the place that each place takes its token from, (b, h w) int64; applied twice it changes nothing.
    """
    height, width = grid
    size, down, right, other = rearrange(draws.uniform("swap", 4), "b n -> n b 1 1")
    side = 1 + (size * max(1, int(scale * min(grid)))).long()
    top, left = (down * (height - side + 1)).long(), (right * (width - side + 1)).long()
    y = torch.arange(height, device=draws.device)[:, None]
    x = torch.arange(width, device=draws.device)
    free = (y <= height - side) & (x <= width - side) & (((y - top).abs() >= side) | ((x - left).abs() >= side))
    corner = _true_place(rearrange(free, "b h w -> b (h w)"), rearrange(other, "b 1 1 -> b 1"))
    other_top, other_left = rearrange(corner // width, "b -> b 1 1"), rearrange(corner % width, "b -> b 1 1")
    first = (y >= top) & (y < top + side) & (x >= left) & (x < left + side)
    second = (y >= other_top) & (y < other_top + side) & (x >= other_left) & (x < other_left + side)
    step = (other_top - top) * width + other_left - left
    places = y * width + x + step * first.long() - step * second.long()
    return rearrange(places, "b h w -> b (h w)")


def take_places(ids: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Move tokens within each sample.

    Args:
        ids: (b, h, w) int64.
        places: the place that each place takes its token from, (b, h w) int64.
    Returns: (b, h, w) int64.
    """
    moved = rearrange(ids, "b h w -> b (h w)").gather(1, places)
    return rearrange(moved, "b (h w) -> b h w", h=ids.shape[1])


def _true_place(mask, share):
    """The place of one True of each row, all as likely: (b, n) bool and (b, 1) in [0, 1) to (b,) int64."""
    rank = (share * mask.sum(dim=1, keepdim=True)).long()
    return (mask.cumsum(dim=1) <= rank).sum(dim=1)
