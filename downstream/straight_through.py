"""From pixels through a tokenizer to a classifier's logits, with a gradient where quantisation has none.

Forward nothing is approximate: the nearest code's id is looked up in the classifier's own table of embeddings, as in
the classifier itself. Backward the look-up counts as the mean of the table's rows over the codes near by, each weighted
by softmax(-distance² / T): to move a latent towards another code moves the embedding towards that code's. The usual
straight-through gradient (van den Oord et al. 2017, arXiv 1711.00937) copies a decoder's gradient to the latent, which
needs both in one space; a classifier's table is a space of its own, with no slope between its rows but this one.

Shapes: b batch, h w token grid, n tokens, c dimension of a code, d of the classifier's table, k codes, m near by.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from seitpp.finetune.classifier import Classifier
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.encoding import full_precision
from seitpp.tokenizers.networks.reduced import ReducedTokenizer
from seitpp.tokens.format.layout import MOST_IN_ONE_TABLE
from seitpp.tokens.views import centre

BLOCK = 1 << 24
"""At most this many similarities of latents to codes are held at a time: 64 MB, however large the codebook is."""
SIGNS_APART = 4.0
"""Squared distance of a code of -1 and 1 to its nearest other."""


class AttackedPath:
    """Pixels to logits: exactly, as they are classified (`ids`, `classify`), and with a gradient (`logits`).

    Args:
        tokenizer: a Tokenizer that has `latents(images)`, as all of ours do: (b, 3, H, W) to (b, c, h, w), of which
            `encode` takes the nearest codes.
        classifier: a Classifier in evaluation mode, of the tokenizer's ids, on the same device.
        temperature: T of the weights, as a multiple of the median squared distance of a code to its nearest other.
        neighbours: m, how many codes have a weight; memory is that of m codes a token, whatever k is.
    Raises: UserError if no gradient can pass the tokenizer or the classifier's stem.
    """

    def __init__(self, tokenizer: Any, classifier: Classifier, *, temperature: float, neighbours: int):
        self.tokenizer = tokenizer
        self.classifier = classifier.requires_grad_(False)
        self.device = tokenizer.codebook.device
        self.latents, codes, self.renamed = encoder_of(tokenizer)
        self.codes = F.normalize(codes, dim=1) if tokenizer.lookup == "cosine" else codes
        self.table = table_of(classifier)
        self.width = temperature * (SIGNS_APART if tokenizer.lookup == "signs" else spacing(self.codes))
        self.neighbours = min(neighbours, len(codes))
        self._check()

    @torch.no_grad()
    def _check(self) -> None:
        images = torch.rand(2, 3, *self.tokenizer.image_size, generator=torch.Generator().manual_seed(0))
        images = images.to(self.device)
        near = nearest_codes(_flat(self._latents(images)), self.codes, 1)
        same = (self.renamed[near[:, 0]] == rearrange(self.tokenizer.encode(images), "b h w -> (b h w)")).float().mean()
        if same < 0.99:  # latents that are equally near to two codes may become either
            raise UserError(
                f"the tokenizer {self.tokenizer.name!r} does not take the nearest code of its latents(images) "
                f"({100 * same:.0f} % of a trial): no gradient can pass it"
            )

    @torch.no_grad()
    def ids(self, images: Tensor) -> Tensor:
        """Images (b, 3, H, W) in [0, 1] to ids (b, h, w), as they are tokenised for a store."""
        with full_precision(self.device):
            return self.tokenizer.encode(images)

    @torch.no_grad()
    def classify(self, ids: Tensor) -> Tensor:
        """Ids (b, h, w) of the whole grid to logits (b, classes)."""
        return self.classifier(self.seen(ids)).float()

    def seen(self, ids: Tensor) -> Tensor:
        """The ids that the classifier sees, the centre of the grid."""
        return centre(ids, self.classifier.encoder.view)

    def logits(self, images: Tensor, *, soft: bool = False) -> Tensor:
        """Logits (b, classes) that have a gradient to the images (b, 3, H, W) in [0, 1].

        Args:
            images: pixels.
            soft: whether their value, too, is that of the weighted mean; it is the function whose gradient is taken at
                the embeddings.
        """
        latents = self._latents(images)
        mixed = mixed_embeddings(
            _flat(latents), self.codes, self.renamed, self.table, width=self.width, count=self.neighbours, soft=soft
        )  # fmt: skip
        embeddings = rearrange(mixed, "(b h w) d -> b d h w", b=len(images), h=latents.shape[2])
        return self.classifier(self.seen(embeddings))

    def gradient(self, labels: Tensor) -> Callable[[Tensor], Tensor]:
        """A function of images that gives the gradient of the cross-entropy of their labels, (b,) int64."""

        def at(images: Tensor) -> Tensor:
            images = images.detach().requires_grad_()
            with torch.enable_grad(), full_precision(self.device):
                loss = F.cross_entropy(self.logits(images), labels, reduction="sum")
                return torch.autograd.grad(loss, images)[0]

        return at

    def _latents(self, images: Tensor) -> Tensor:
        latents = self.latents(images)
        return F.normalize(latents, dim=1) if self.tokenizer.lookup == "cosine" else latents


def encoder_of(tokenizer: Any) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    """What a tokenizer quantises, and how.

    Args:
        tokenizer: a Tokenizer; of a reduced one it is the one beneath, all codes of it.
    Returns: (its `latents`, codes (k, c), the tokenizer's id of each of these codes (k,) int64).
    Raises: UserError if it has no `latents`.
    """
    renamed = torch.arange(tokenizer.codebook_size, device=tokenizer.codebook.device)
    while isinstance(tokenizer, ReducedTokenizer):
        renamed = renamed[tokenizer.map]
        tokenizer = tokenizer.base
    if not hasattr(tokenizer, "latents"):
        raise UserError(
            f"the tokenizer {tokenizer.name!r} has no method latents(images), (b, 3, H, W) to (b, c, h, w), of which "
            "it takes the nearest codes: no gradient can pass it"
        )
    return tokenizer.latents, tokenizer.codebook.detach(), renamed


def table_of(classifier: Classifier) -> Tensor:
    """What a classifier looks ids up as, (k, d).

    Raises: UserError if it has no table.
    """
    table = classifier.encoder.stem.table
    if table is None:
        raise UserError(
            "this classifier reads embeddings and holds no codebook: import it with --store, a store of its tokenizer"
        )
    return table.detach()


def mixed_embeddings(
    latents: Tensor, codes: Tensor, renamed: Tensor, table: Tensor, *, width: float, count: int, soft: bool = False
) -> Tensor:
    """The table's row of each latent's nearest code, with the gradient of a weighted mean over the codes near by.

    Args:
        latents: (n, c).
        codes: (k, c).
        renamed: row of `table` of each code, (k,) int64; several codes may share one.
        table: (rows, d).
        width: T, in squared distances.
        count: how many codes near by have a weight; with all of them, k, the mean is over the whole codebook.
        soft: return the weighted mean itself.
    Returns: (n, d).
    """
    near = nearest_codes(latents.detach(), codes, count)
    candidates = codes[near]
    # |z|² is the same for all codes, so it drops out of the softmax of -|z - e|² / T
    scores = 2 * torch.einsum("nc,nmc->nm", latents, candidates) - candidates.square().sum(2)
    rows = renamed[near]
    mean = torch.einsum("nm,nmd->nd", (scores / width).softmax(1), table[rows])
    if soft:
        return mean
    return table[rows[:, 0]] + (mean - mean.detach())


@torch.no_grad()
def nearest_codes(latents: Tensor, codes: Tensor, count: int) -> Tensor:
    """The nearest codes of each latent, the nearest first: (n, c) and (k, c) to (n, count) int64."""
    offset = -0.5 * codes.square().sum(1)
    parts = latents.split(max(1, BLOCK // len(codes)))
    return torch.cat([torch.addmm(offset, part, codes.T).topk(count, dim=1).indices for part in parts])


@torch.no_grad()
def spacing(codes: Tensor) -> float:
    """The median squared distance of a code to its nearest other one; codes in one place do not count.

    Args:
        codes: (k, c). Of more than 65,536, some 4,096 evenly spaced are compared with all.
    """
    some = codes if len(codes) <= MOST_IN_ONE_TABLE else codes[:: len(codes) // 4096]
    nearest = nearest_codes(some, codes, min(2, len(codes)))
    # of a code and a twin of it either may come first
    others = (some[:, None] - codes[nearest]).square().sum(2).amax(1)
    apart = others[others > 1e-8]
    return float(apart.median()) if len(apart) else 1.0


def _flat(latents):
    return rearrange(latents, "b c h w -> (b h w) c")
