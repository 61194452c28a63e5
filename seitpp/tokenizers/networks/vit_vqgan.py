"""ViT-VQGAN, the papers' tokenizer: a vision transformer on each side of a cosine-lookup codebook."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from seitpp.runtime.config import require, require_between
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.networks.saved import SavedTokenizer
from seitpp.tokenizers.positions import sincos_positions
from seitpp.tokens.codebook import nearest_code
from seitpp.tokens.format.layout import MOST_CODES

HEAD_WIDTH = 64


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Shape of the encoder or of the decoder."""

    width: int = 512
    """channels of a patch"""
    depth: int = 8
    """blocks"""
    heads: int = 8
    """attention heads, of 64 channels each whatever the width"""
    mlp: int = 2048
    """channels inside the MLP"""

    def __post_init__(self):
        for name, most in {"width": 65536, "depth": 1000, "heads": 1024, "mlp": 1 << 20}.items():
            require_between(self, name, 1, most)
        require(self, "width", self.width % 4 == 0, "must be a multiple of 4")


@dataclass(frozen=True, kw_only=True)
class ViTVQGANConfig:
    """Shape of a ViT-VQGAN; the defaults are the published small one."""

    image_size: tuple[int, int] = (256, 256)
    """pixels (height, width)"""
    patch_size: int = 8
    """pixels a side of what becomes one token"""
    encoder: TransformerConfig = field(default_factory=TransformerConfig)
    """pixels to latents"""
    decoder: TransformerConfig | None = field(default_factory=TransformerConfig)
    """codes to pixels; None: a tokenizer that only encodes"""
    codebook_size: int = 8192
    """K"""
    codebook_dim: int = 32
    """dimension of a code"""

    def __post_init__(self):
        limits = ("patch_size", 1, 1024), ("codebook_size", 2, MOST_CODES), ("codebook_dim", 1, 65536)
        for name, least, most in limits:
            require_between(self, name, least, most)
        fits = all(side >= self.patch_size and side % self.patch_size == 0 for side in self.image_size)
        require(self, "image_size", fits, f"must be a multiple of {self.patch_size} (patch_size)")
        few = all(side <= 1024 * self.patch_size for side in self.image_size)
        require(self, "image_size", few, "must have at most 1,024 tokens a side")


class ViTVQGAN(SavedTokenizer):
    """The papers' tokenizer behind the Tokenizer protocol.

    Args:
        config: a ViTVQGANConfig.
    Source: Yu et al. 2021 (arXiv 2110.04627), in the form of enhancing-transformers: fixed sine and cosine positions
        (the column in the first half of the channels), pre-norm blocks, attention without bias in q, k and v, tanh in
        the MLP.
    """

    name = "vit_vqgan"
    config_class = ViTVQGANConfig
    lookup = "cosine"

    def __init__(self, config: ViTVQGANConfig):
        super().__init__(config)
        self.grid = tuple(side // config.patch_size for side in config.image_size)
        self.codebook_size = config.codebook_size
        self.to_patches = nn.Conv2d(3, config.encoder.width, config.patch_size, config.patch_size)
        self.encoder = _Transformer(config.encoder, self.grid)
        self.pre_quant = nn.Linear(config.encoder.width, config.codebook_dim)
        self.codes = nn.Parameter(torch.randn(config.codebook_size, config.codebook_dim))
        if config.decoder is not None:
            self.post_quant = nn.Linear(config.codebook_dim, config.decoder.width)
            self.decoder = _Transformer(config.decoder, self.grid)
            self.to_pixels = nn.ConvTranspose2d(config.decoder.width, 3, config.patch_size, config.patch_size)

    @property
    def codebook(self) -> torch.Tensor:
        """Codes of length 1, (k, c) float32.

        The trained rows have any length, but look-up and decoder both see directions alone. So these are the
        embeddings: what is mixed or warped on them gives each token the same weight and is what the decoder knows.
        """
        return F.normalize(self.codes, dim=1)

    def latents(self, images: torch.Tensor) -> torch.Tensor:
        """Encoder output before quantisation, of any length: (b, 3, H, W) in [0, 1] to (b, c, h, w)."""
        patches = rearrange(self.to_patches(images), "b d h w -> b (h w) d")
        height, width = self.grid
        return rearrange(self.pre_quant(self.encoder(patches)), "b (h w) c -> b c h w", h=height, w=width)

    def pixels(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Decoder: embeddings (b, c, h, w), of length 1 where they are codes, to images (b, 3, H, W), not clamped.

        Raises: UserError where there is no decoder.
        """
        if self.config.decoder is None:
            raise UserError(
                "this ViT-VQGAN has no decoder (its checkpoint held only the encoder): it can't make images"
            )
        patches = self.decoder(self.post_quant(rearrange(embeddings, "b c h w -> b (h w) c")))
        height, width = self.grid
        return self.to_pixels(rearrange(patches, "b (h w) d -> b d h w", h=height, w=width))

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Images (b, 3, H, W) in [0, 1] to ids (b, h, w) int64."""
        return nearest_code(self.latents(images), self.codebook, self.lookup)


class _Transformer(nn.Module):
    """Positions, pre-norm blocks and a norm: (b, n, d) to the same shape."""

    def __init__(self, config, grid):
        super().__init__()
        self.register_buffer("positions", sincos_positions(config.width, grid), persistent=False)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, patches):
        patches = patches + self.positions
        for block in self.blocks:
            patches = block(patches)
        return self.norm(patches)


class _Block(nn.Module):
    """Attention and MLP, each after a norm and beside a short cut. timm's block ties the heads to the width."""

    def __init__(self, config):
        super().__init__()
        self.heads = config.heads
        self.attention_norm = nn.LayerNorm(config.width)
        self.qkv = nn.Linear(config.width, 3 * HEAD_WIDTH * config.heads, bias=False)
        self.out = nn.Linear(HEAD_WIDTH * config.heads, config.width)
        self.mlp_norm = nn.LayerNorm(config.width)
        self.mlp = nn.Sequential(nn.Linear(config.width, config.mlp), nn.Tanh(), nn.Linear(config.mlp, config.width))

    def forward(self, patches):
        qkv = self.qkv(self.attention_norm(patches))
        q, k, v = rearrange(qkv, "b n (three h d) -> three b h n d", three=3, h=self.heads)
        mixed = F.scaled_dot_product_attention(q, k, v)
        patches = patches + self.out(rearrange(mixed, "b h n d -> b n (h d)"))
        return patches + self.mlp(self.mlp_norm(patches))
