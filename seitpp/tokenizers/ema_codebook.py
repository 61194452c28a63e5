"""A codebook that follows its latents: k-means start, moving averages, revival of dead codes.

Source: van den Oord et al. 2017 (arXiv 1711.00937), appendix A.1; revival after Dhariwal et al. 2020 (Jukebox).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from accelerate.utils import broadcast
from einops import rearrange
from torch import nn

from seitpp.tokenizers.kmeans import kmeans, weighted_choice
from seitpp.tokenizers.networks.vq import VQTokenizer
from seitpp.training.random_streams import Draws

if TYPE_CHECKING:
    from accelerate import Accelerator


class EMACodebook(nn.Module):
    """Moves a tokenizer's codes: k-means start, moving averages, revival of dead codes.

    Args:
        tokenizer: the VQTokenizer whose codebook it owns.
        decay: of the averages.
        dead_below: average uses a step below which a code starts again.
    """

    uses: torch.Tensor
    sums: torch.Tensor

    def __init__(self, tokenizer: VQTokenizer, *, decay: float, dead_below: float):
        super().__init__()
        codes, width = tokenizer.codebook.shape
        self.decay = decay
        self.dead_below = dead_below
        self.register_buffer("uses", torch.ones(codes))
        self.register_buffer("sums", torch.zeros(codes, width))

    @torch.no_grad()
    def start(self, tokenizer: VQTokenizer, latents: torch.Tensor, weights: torch.Tensor, seed: int) -> None:
        """Set the codes to k-means centres of the main process's `latents`, (n, c), that count by `weights`, (n,)."""
        centres: Any = broadcast(kmeans(latents, weights, len(self.uses), seed=seed))
        tokenizer.codebook.copy_(centres)
        self.sums.copy_(centres)
        self.uses.fill_(1.0)

    @torch.no_grad()
    def update(
        self,
        tokenizer: VQTokenizer,
        latents: torch.Tensor,
        ids: torch.Tensor,
        weights: torch.Tensor,
        draws: Draws,
        accelerator: "Accelerator",
    ) -> None:
        """Follow the latents of a batch.

        Args:
            tokenizer: the VQTokenizer.
            latents: (n, c).
            ids: their codes, (n,).
            weights: how much each counts, (n,).
            draws: Draws that revived codes choose their latent by.
            accelerator: sums are taken over all its processes.
        """
        uses = torch.zeros_like(self.uses).index_add_(0, ids, weights)
        sums = torch.zeros_like(self.sums).index_add_(0, ids, latents * weights[:, None])
        uses, sums = (cast(torch.Tensor, accelerator.reduce(each)) for each in (uses, sums))
        self.uses.lerp_(uses, 1.0 - self.decay)
        self.sums.lerp_(sums, 1.0 - self.decay)
        dead = self.uses < self.dead_below
        distance = (latents - F.embedding(ids, tokenizer.codebook)).square().sum(dim=1)
        choice = weighted_choice(weights * distance, draws.uniform("revive", len(self.uses))[0])
        replacement: Any = broadcast(latents[choice])
        self.sums.copy_(torch.where(dead[:, None], replacement, self.sums))
        self.uses.copy_(torch.where(dead, torch.ones_like(self.uses), self.uses))
        tokenizer.codebook.copy_(self.sums / self.uses[:, None].clamp_min(1e-12))


def patch_weights(images: torch.Tensor, grid: Sequence[int], flat_weight: float) -> torch.Tensor:
    """How much each patch counts for the codebook, by the standard deviation of its pixels.

    Args:
        images: (b, 3, H, W) in [0, 1].
        grid: (h, w) of the patches.
        flat_weight: weight of a patch of one colour, relative to one of std 1/2, the largest there is.
    Returns: (b * h * w,) float32 of mean 1.
    """
    patches = rearrange(images, "b c (h p) (w q) -> (b h w) c (p q)", h=grid[0], w=grid[1])
    weights = flat_weight + (1.0 - flat_weight) * 2.0 * patches.std(dim=2, unbiased=False).amax(dim=1)
    return weights / weights.mean()
