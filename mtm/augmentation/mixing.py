"""CutMix and Mixup on token maps, with the labels that belong to the mixture.

At every position a sample keeps a fraction of itself and takes the rest from its partner: all or nothing in CutMix,
the same everywhere in Mixup. Both are one formula, and the label's weight is the mean fraction.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange, repeat

from seitpp.mtm.augmentation.partners import Pairing, sample_partners
from seitpp.runtime.config import require
from seitpp.training.random_streams import Draws

_NODES = 4096


@dataclass(frozen=True, kw_only=True)
class MixConfig:
    """How samples are mixed. Each is drawn for itself (timm's mode "elem"; the published runs draw once a batch).

    A model takes ids, so a mixture of embeddings goes to its nearest codes: that of two crops is mostly the one or the
    other image's code, while TokenAdapt's half is mixed on f's features and g finds codes for it. So the published
    fine-tuning has Mixup in that half only.
    """

    cutmix: float = 0.0
    """alpha of CutMix's Beta distribution; 0: off. Published fine-tuning: 1"""
    mixup: float = 0.0
    """alpha of Mixup of embeddings; 0: off"""
    token_adapt_mixup: float | None = None
    """alpha of Mixup in the half that TokenAdapt transforms; None: as `mixup`. Published fine-tuning: 0.8"""
    probability: float = 1.0
    """of each sample to be mixed"""
    cutmix_share: float = 0.5
    """fraction of CutMix among the mixed, where both are on"""

    def __post_init__(self):
        for name in ("cutmix", "mixup", "token_adapt_mixup"):
            require(self, name, (getattr(self, name) or 0) >= 0, "must not be below 0")
        for name in ("probability", "cutmix_share"):
            require(self, name, 0 <= getattr(self, name) <= 1, "must be a probability")

    @property
    def adapted_mixup(self) -> float:
        """Alpha of Mixup in the half that TokenAdapt transforms."""
        return self.mixup if self.token_adapt_mixup is None else self.token_adapt_mixup


@dataclass(frozen=True)
class Mix:
    """The mixture of a batch.

    Attributes:
        partners: index of each sample's partner, (b,) int64.
        own: fraction of itself that a sample keeps at each place of its view, (b, h, w) in [0, 1].
    """

    partners: torch.Tensor
    own: torch.Tensor

    def maps(self, maps: torch.Tensor) -> torch.Tensor:
        """Mix embeddings or features, (b, c, h p, w p) float: each token's share counts for all of its p x p places."""
        p = maps.shape[2] // self.own.shape[1]
        own = repeat(self.own, "b h w -> b 1 (h p) (w q)", p=p, q=p).to(maps.dtype)
        return own * maps + (1 - own) * maps[self.partners]

    def ids(self, ids: torch.Tensor) -> torch.Tensor:
        """Mix ids, (b, h, w) int64, where shares are 0 or 1 (CutMix alone)."""
        return torch.where(self.own > 0.5, ids, ids[self.partners])

    def targets(self, labels: torch.Tensor, classes: int) -> torch.Tensor:
        """Class probabilities: each label weighs what fraction of the tokens is its own.

        Args:
            labels: (b,) int64; or (b, classes), 1 for each class that a row has.
            classes: how many.
        Returns: (b, classes), float32; smoothing, as timm counts it, is left to F.cross_entropy's label_smoothing.
        """
        several = labels.ndim == 2
        one_hot = (labels if several else labels[:, None] == torch.arange(classes, device=labels.device)).float()
        weight = self.own.mean(dim=(1, 2))[:, None]
        return weight * one_hot + (1 - weight) * one_hot[self.partners]


class Mixing:
    """Draws mixtures with CutMix, Mixup, both or neither (a batch of which another half is mixed).

    Args:
        config: a MixConfig.
        mixup: alpha of Mixup; 0: off.
        pairing: how partners are found, see seitpp.mtm.augmentation.partners.
        view: (h, w) of the views.
        device: where it runs.
    """

    def __init__(
        self, config: MixConfig, *, mixup: float, pairing: Pairing, view: Sequence[int], device: torch.device | str
    ):
        self.config, self.pairing, self.view = config, pairing, view
        self.cutmix = beta_quantiles(config.cutmix, device) if config.cutmix > 0 else None
        self.mixup = beta_quantiles(mixup, device) if mixup > 0 else None

    def sample(self, draws: Draws) -> Mix:
        """The Mix of a batch."""
        whether, kind, quantile, down, right = draws.uniform("mix", 5).unbind(1)
        mixed = whether < self.config.probability
        own = torch.ones(len(draws), *self.view, device=draws.device)
        if self.mixup is not None:
            kept = rearrange(at_quantile(self.mixup, quantile), "b -> b 1 1")
            own = torch.where(rearrange(mixed, "b -> b 1 1"), kept, own)
        if self.cutmix is not None:
            cut = mixed if self.mixup is None else mixed & (kind < self.config.cutmix_share)
            taken = cutmix_boxes(at_quantile(self.cutmix, quantile), down, right, self.view)
            own = torch.where(rearrange(cut, "b -> b 1 1"), (~taken).float(), own)
        return Mix(sample_partners(self.pairing, draws, "mix partner"), own)


def cutmix_boxes(kept: torch.Tensor, down: torch.Tensor, right: torch.Tensor, view: Sequence[int]) -> torch.Tensor:
    """The rectangles of CutMix: sides of share sqrt(1 - kept) about a centre anywhere, cut off at the border.

    Args:
        kept: fraction of the area to keep, before cutting off, (b,) in [0, 1].
        down: the centre's fraction of the height, (b,) in [0, 1).
        right: the centre's fraction of the width, (b,) in [0, 1).
        view: (h, w).
    Returns: the tokens that come from the partner, (b, h, w) bool.
    Source: CutMix (arXiv 1905.04899), section 3.1; whole tokens as timm counts pixels, but odd sides stay odd.
    """
    inside = []
    for side, share in zip(view, (down, right), strict=True):
        length = ((1 - kept).clamp_min(0).sqrt() * side).long()
        start = (share * side).long() - length // 2
        places = torch.arange(side, device=kept.device)
        inside.append((places >= start[:, None]) & (places < (start + length)[:, None]))
    rows, columns = inside
    return rows[:, :, None] & columns[:, None, :]


def beta_quantiles(alpha: float, device: torch.device | str) -> torch.Tensor:
    """Quantiles of Beta(alpha, alpha) at even steps from 0 to 1, so that one uniform draw makes one of it."""
    from scipy.special import betaincinv

    shares = torch.linspace(0, 1, _NODES + 1, dtype=torch.float64)
    return torch.from_numpy(betaincinv(alpha, alpha, shares.numpy())).float().to(device)


def at_quantile(quantiles: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Read a table of quantiles between its nodes: (n + 1,) and (b,) in [0, 1) to (b,) float32."""
    place = share * (len(quantiles) - 1)
    below = place.long()
    return torch.lerp(quantiles[below], quantiles[below + 1], place - below)
