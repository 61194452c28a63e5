"""TokenAdapt's two functions: f takes embeddings to a map that may be warped like pixels, g takes it back to codes."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from einops import rearrange
from timm.models.convnext import ConvNeXtBlock
from timm.models.vision_transformer import Block
from torch import nn

from seitpp.runtime.config import from_dict, require, require_between
from seitpp.runtime.errors import UserError
from seitpp.runtime.foreign.conversion import built
from seitpp.runtime.schema import anything, record, table
from seitpp.runtime.weights import config_file, load_weights, read_config
from seitpp.tokenizers.positions import sincos_positions
from seitpp.tokens.code_factors import factors_of
from seitpp.tokens.format.manifest_schema import CODES, EMBEDDING_DIM, FINGERPRINT, GRID, VIEW

DESCRIBED = record(
    {
        "tokenadapt": table(anything), "grid": GRID, "view": VIEW, "codebook_size": CODES,
        "embedding_dim": EMBEDDING_DIM, "tokenizer": FINGERPRINT,
    }
)  # fmt: skip
"""What the config.json of a TokenAdapt says; `tokenadapt` is a TokenAdaptConfig."""


@dataclass(frozen=True, kw_only=True)
class TokenAdaptConfig:
    """Shape of f and g. Defaults: the published ones."""

    width: int = 384
    """of the blocks, a multiple of 64 (heads of attention have 64 channels)"""
    depth: int = 1
    """blocks in f, and in g"""
    mixer: Literal["attention", "convolution"] = "attention"
    """how tokens see each other: attention over the whole grid, as published, or ConvNeXt's blocks, 5 x 5 tokens:
    half the operations, and better at both kinds of tokenizer that were measured (LOG.md)"""
    map_scale: int = 2
    """places that f's map has along the side of a token"""
    map_channels: int | None = None
    """channels of f's map; None: as many as an embedding has, as published"""

    def __post_init__(self):
        require(self, "width", 0 < self.width <= 65536 and self.width % 64 == 0, "must be a multiple of 64")
        for name, most in {"depth": 1000, "map_scale": 64, "map_channels": 65536}.items():
            if getattr(self, name) is not None:
                require_between(self, name, 1, most)


class _Transformer(nn.Module):
    """Pre-norm blocks with fixed positions, as published: heads of 64 channels, no bias in qkv, tanh in the MLP."""

    def __init__(self, config, grid):
        super().__init__()
        width = config.width
        self.register_buffer("positions", sincos_positions(width, grid), persistent=False)
        self.blocks = nn.Sequential(
            *[Block(width, width // 64, mlp_ratio=4.0, qkv_bias=False, act_layer=nn.Tanh) for _ in range(config.depth)]
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        """(b, n, d) to (b, n, d)."""
        return self.norm(self.blocks(x + self.positions))


class _Convolutions(nn.Module):
    """ConvNeXt's blocks (arXiv 2201.03545, figure 4) without layer scale; they know no positions but the borders."""

    def __init__(self, config, grid):
        super().__init__()
        self.grid = tuple(grid)
        blocks = [ConvNeXtBlock(config.width, kernel_size=5, ls_init_value=None) for _ in range(config.depth)]
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x):
        """(b, n, d) to (b, n, d)."""
        x = self.blocks(rearrange(x, "b (h w) d -> b d h w", h=self.grid[0]))
        return self.norm(rearrange(x, "b d h w -> b (h w) d"))


_MIXERS = {"attention": _Transformer, "convolution": _Convolutions}


class TokenAdapt(nn.Module):
    """f: embeddings (b, c, h, w) to features (b, e, s h, s w); g: features (b, e, s h', s w') to logits (b, k, h', w').

    As published e = c and s = 2; see TokenAdaptConfig. Of more than 65,536 codes, k counts the values of the two
    numbers that an id is split into; `factors` makes ids of them.

    Args:
        config: a TokenAdaptConfig.
        grid: (h, w) of the stored ids.
        view: (h', w') of the augmented ids.
        codebook_size: K.
        embedding_dim: c.
    Source: SeiT++ (arXiv 2312.10105), section 3.2.
    """

    def __init__(
        self,
        config: TokenAdaptConfig,
        *,
        grid: Sequence[int],
        view: Sequence[int],
        codebook_size: int,
        embedding_dim: int,
    ):
        super().__init__()
        self.grid, self.view = tuple(grid), tuple(view)
        scale, channels = config.map_scale, config.map_channels or embedding_dim
        self.map_size = scale * view[0], scale * view[1]  # of the features that g takes
        self.described = {
            "tokenadapt": asdict(config), "grid": list(grid), "view": list(view),
            "codebook_size": codebook_size, "embedding_dim": embedding_dim,
        }  # fmt: skip
        self.f_in = nn.Linear(embedding_dim, config.width)
        self.f_blocks = _MIXERS[config.mixer](config, grid)
        self.f_out = nn.ConvTranspose2d(config.width, channels, kernel_size=scale, stride=scale)
        self.g_in = nn.Conv2d(channels, config.width, kernel_size=scale, stride=scale)
        self.g_blocks = _MIXERS[config.mixer](config, view)
        self.factors = factors_of(codebook_size)
        self.g_out = nn.Linear(config.width, self.factors.total)
        self._initialise()

    def _initialise(self):
        """Xavier uniform for matrices (a convolution as the matrix it is), zero for biases, as MAE.

        Depthwise convolutions are no matrices; they keep torch's start.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d) and getattr(module, "groups", 1) == 1:
                nn.init.xavier_uniform_(module.weight.data.view(module.weight.shape[0], -1))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def f(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Features that may be warped: (b, c, h, w) to (b, e, s h, s w)."""
        x = self.f_blocks(self.f_in(rearrange(embeddings, "b c h w -> b (h w) c")))
        return self.f_out(rearrange(x, "b (h w) d -> b d h w", h=self.grid[0]))

    def g(self, features: torch.Tensor) -> torch.Tensor:
        """Logits over codes: (b, e, s h', s w') to (b, k, h', w')."""
        x = self.g_blocks(rearrange(self.g_in(features), "b d h w -> b (h w) d"))
        return rearrange(self.g_out(x), "b (h w) k -> b k h w", h=self.view[0])

    def forward(self, embeddings: torch.Tensor, transform: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Logits of the codes of the transformed image; `transform` takes and gives feature maps."""
        return self.g(transform(self.f(embeddings)))


def load_token_adapt(folder: str | Path, device: torch.device | str = "cpu") -> tuple[TokenAdapt, str]:
    """Load f and g, frozen, in evaluation mode, with the tokenizer's fingerprint.

    Args:
        folder: a run of `seitpp.tokenadapt.train` or its weights/.
        device: where it runs.
    Returns: (TokenAdapt, fingerprint of the tokenizer that it belongs to).
    Raises: UserError if there are no weights, or those of something else.
    """
    if "tokenadapt" not in read_config(folder, record({})):
        raise UserError(f"{folder} is no TokenAdapt: give a run of seitpp train-tokenadapt or import-model")
    state, described = load_weights(folder, DESCRIBED)
    config = from_dict(TokenAdaptConfig, described["tokenadapt"], config_file(folder))
    sizes = {name: described[name] for name in ("grid", "view", "codebook_size", "embedding_dim")}
    model = built(lambda: TokenAdapt(config, **sizes), state, config_file(folder).parent)
    return model.to(device).eval().requires_grad_(False), described["tokenizer"]


@torch.no_grad()
def adapt_ids(
    model: TokenAdapt, embeddings: torch.Tensor, transform: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Ids of the transformed image: (b, c, h, w) to (b, h', w') int64."""
    return model.factors.likeliest(model(embeddings, transform), dim=1)
