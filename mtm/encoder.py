"""The ViT on token ids that pre-training leaves behind."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from einops import rearrange
from timm.models.vision_transformer import Block
from torch import nn

from seitpp.runtime.config import require
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.positions import sincos_positions

LAYER_NORM = partial(nn.LayerNorm, eps=1e-6)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Shape of the encoder. Defaults: ViT-B/2 on 28 x 28 tokens as in the papers."""

    width: int = 768
    """d"""
    depth: int = 12
    """blocks"""
    heads: int = 12
    """attention heads"""
    patch_size: int = 2
    """tokens a side of a patch"""
    token_dropout: float = 0.1
    """dropout of token embeddings"""
    embedding_std: float = 0.02
    """deviation of the initial token embeddings. Short trainings want about 1 / sqrt(embedding dimension)"""
    embedding_init: Literal["normal", "codebook"] = "normal"
    """normal: at random, as published; codebook: the tokenizer's own embeddings, each channel centred and scaled to
    embedding_std, so that like codes start alike: small stores learn much faster"""

    def __post_init__(self):
        for name in ("width", "depth", "heads", "patch_size"):
            require(self, name, getattr(self, name) >= 1, "must be at least 1")
        fits = self.width % 4 == 0 and self.width % self.heads == 0
        require(self, "width", fits, f"must be a multiple of 4 and of heads = {self.heads}")
        require(self, "token_dropout", 0 <= self.token_dropout < 1, "must lie in [0, 1)")
        require(self, "embedding_std", self.embedding_std > 0, "must be above 0")


def fitting_view(view, grid, patch_size):
    """The view of a model: the one asked for, or all of the stored grid.

    Args:
        view: (h, w) tokens, or None.
        grid: (h, w) of the store.
        patch_size: tokens a side of a patch.
    Raises: UserError if it is larger than the grid or no multiple of the patch size.
    """
    view = tuple(view or grid)
    if any(side > whole or side < 1 or side % patch_size for side, whole in zip(view, grid, strict=True)):
        raise UserError(
            f"a view of {view} tokens must fit into the stored grid of {tuple(grid)} and be a multiple of the patch "
            f"size {patch_size}: set --view"
        )
    return view


class TokenEncoder(nn.Module):
    """Ids to features: embeddings, patches, fixed positions, pre-norm blocks.

    Args:
        config: an EncoderConfig.
        view: (h, w) tokens of the input, multiples of the patch size.
        codebook_size: K.
        embedding_dim: c, width of a token embedding.
        drop_path: stochastic depth of the last block; earlier blocks less, linearly.
    Raises: ValueError if the view is not a multiple of the patch size.
    """

    def __init__(self, config, *, view, codebook_size, embedding_dim, drop_path=0.0):
        super().__init__()
        side = config.patch_size
        if view[0] % side or view[1] % side:
            raise ValueError(f"a view of {tuple(view)} tokens can't be divided into patches of {side}")
        self.view = tuple(view)
        self.patch_size = side
        self.grid = (view[0] // side, view[1] // side)
        self.embeddings = nn.Embedding(codebook_size, embedding_dim)
        self.embedding_norm = LAYER_NORM(embedding_dim)
        self.embedding_dropout = nn.Dropout(config.token_dropout)
        self.patches = nn.Conv2d(embedding_dim, config.width, kernel_size=side, stride=side)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.register_buffer("positions", sincos_positions(config.width, self.grid), persistent=False)
        rates = torch.linspace(0.0, drop_path, config.depth).tolist()
        self.blocks = nn.ModuleList(
            [Block(config.width, config.heads, qkv_bias=True, drop_path=rate, norm_layer=LAYER_NORM) for rate in rates]
        )
        self.norm = LAYER_NORM(config.width)
        self._initialise(config.embedding_std)

    def _initialise(self, embedding_std):
        """Xavier uniform for matrices and the patch convolution, 0.02 for the cls token, `embedding_std` for codes."""
        initialise_linear(self)
        nn.init.xavier_uniform_(self.patches.weight.data.view(self.patches.weight.shape[0], -1))
        nn.init.normal_(self.cls_token, std=0.02)
        nn.init.normal_(self.embeddings.weight, std=embedding_std)

    @torch.no_grad()
    def start_from(self, codebook, config):
        """Set the token embeddings to a codebook, (k, c), where `config.embedding_init` asks for it.

        Each channel gets mean 0 and deviation `config.embedding_std`.
        """
        if config.embedding_init == "codebook":
            centred = codebook - codebook.mean(dim=0)
            self.embeddings.weight.copy_(centred / centred.std(dim=0).clamp_min(1e-6) * config.embedding_std)

    def embed(self, ids):
        """Patch embeddings without positions: (b, h, w) ids to (b, n, d)."""
        x = self.embedding_dropout(self.embedding_norm(self.embeddings(ids)))
        return rearrange(self.patches(rearrange(x, "b h w c -> b c h w")), "b d h w -> b (h w) d")

    def encode(self, x):
        """Blocks over patches that carry their positions, the cls token before them: (b, n, d) to (b, 1 + n, d)."""
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x)
        return x

    def forward(self, ids):
        """Features of whole grids before the final norm: (b, h, w) ids to (b, 1 + n, d), cls first."""
        return self.encode(self.embed(ids) + self.positions)

    def pooled(self, ids):
        """Mean over patches of the normed features: (b, h, w) ids to (b, d)."""
        return self.norm(self(ids))[:, 1:].mean(dim=1)


def initialise_linear(module):
    """Xavier uniform weights and zero biases for every Linear, as MAE."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
