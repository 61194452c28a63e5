"""TiTok (Yu et al. 2024, arXiv 2406.07550): an image as a few tokens in a row, each of which may speak of all of it.

A transformer reads patches of pixels and a row of latent tokens; what it makes of these is quantised. Another one reads
the codes beside a mask token for each patch, and a decoder makes pixels of what it puts in their places.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from seitpp.runtime.config import require, require_between
from seitpp.tokenizers.networks.saved import SavedTokenizer
from seitpp.tokens.codebook import nearest_code

HEAD_WIDTH = 64


@dataclass(frozen=True, kw_only=True)
class SideConfig:
    """Shape of the encoder or of the decoder: heads of 64 channels, an MLP of four times the width."""

    width: int = 512
    """channels of a patch"""
    depth: int = 8
    """blocks"""

    def __post_init__(self):
        for name, most in {"width": 65536, "depth": 1000}.items():
            require_between(self, name, 1, most)
        require(self, "width", self.width % HEAD_WIDTH == 0, f"must be a multiple of {HEAD_WIDTH}")


@dataclass(frozen=True, kw_only=True)
class PixelDecoderConfig:
    """Shape of the decoder of MaskGIT's VQGAN, which TiTok's first models end with."""

    codes: int = 1024
    """of its codebook; TiTok's decoder mixes them"""
    dim: int = 256
    """of such a code"""
    widths: tuple[int, ...] = (128, 128, 256, 256, 512)
    """channels of each resolution, that of the pixels first; each further one halves it"""

    def __post_init__(self):
        for name, most in {"codes": 65536, "dim": 65536}.items():
            require_between(self, name, 1, most)
        fits = 1 <= len(self.widths) <= 16 and all(0 < width <= 65536 and width % 32 == 0 for width in self.widths)
        require(self, "widths", fits, "must be 1 to 16 multiples of 32")


@dataclass(frozen=True, kw_only=True)
class TiTokConfig:
    """Shape of a TiTok; the defaults are those of the published TiTok-S-128."""

    image_size: tuple[int, int] = (256, 256)
    """pixels (height, width)"""
    patch_size: int = 16
    """pixels a side of a patch, in the encoder and the decoder"""
    tokens: int = 128
    """tokens of an image"""
    encoder: SideConfig = field(default_factory=SideConfig)
    """pixels to latents"""
    decoder: SideConfig = field(default_factory=SideConfig)
    """codes to patches"""
    codebook_size: int = 4096
    """K"""
    codebook_dim: int = 12
    """dimension of a code"""
    pixel_decoder: PixelDecoderConfig | None = field(default_factory=PixelDecoderConfig)
    """what makes pixels, as in the first models; None: a convolution, as in the later ones, which look codes up by
    Euclidean distance"""

    def __post_init__(self):
        limits = (("patch_size", 1, 1024), ("tokens", 1, 4096), ("codebook_size", 2, 65536), ("codebook_dim", 1, 65536))
        for name, least, most in limits:
            require_between(self, name, least, most)
        fits = all(0 < side <= 1024 * self.patch_size and side % self.patch_size == 0 for side in self.image_size)
        require(self, "image_size", fits, f"must be a multiple of {self.patch_size} (patch_size), at most 1,024 of it")
        shrink = self.patch_size if self.pixel_decoder is None else 2 ** (len(self.pixel_decoder.widths) - 1)
        require(self, "pixel_decoder", shrink == self.patch_size, f"must enlarge {self.patch_size} times (patch_size)")


class TiTok(SavedTokenizer):
    """A TiTok behind the Tokenizer protocol. Its grid is a row of tokens.

    Two things are as the published first models (those with a `pixel_decoder`) have them: codes count by their
    direction, and the latent tokens' channels are read in the order in which they lie in memory, not token by token.
    """

    name = "titok"
    config_class = TiTokConfig
    geometry = "none"

    def __init__(self, config: TiTokConfig):
        super().__init__(config)
        self.patches = tuple(side // config.patch_size for side in config.image_size)
        self.grid = (1, config.tokens)
        self.codebook_size = config.codebook_size
        self.lookup = "euclidean" if config.pixel_decoder is None else "cosine"
        width, p = config.encoder.width, config.patch_size
        self.to_patches = nn.Conv2d(3, width, p, p)
        self.latent_tokens = nn.Parameter(torch.zeros(config.tokens, width))
        self.encoder = _Transformer(config.encoder, self.patches, config.tokens)
        self.pre_quant = nn.Conv2d(width, config.codebook_dim, 1)
        self.codes = nn.Parameter(torch.randn(config.codebook_size, config.codebook_dim))
        width = config.decoder.width
        self.post_quant = nn.Linear(config.codebook_dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.decoder = _Transformer(config.decoder, self.patches, config.tokens)
        if config.pixel_decoder is None:
            self.to_pixels = nn.Conv2d(width, 3 * p * p, 1)
            self.smooth = nn.Conv2d(3, 3, 3, padding=1)
        else:
            codes, dim = config.pixel_decoder.codes, config.pixel_decoder.dim
            self.to_logits = nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.Tanh(), nn.Conv2d(2 * width, codes, 1))
            self.pixel_codes = nn.Parameter(torch.randn(codes, dim))
            self.pixel_decoder = _pixel_decoder(config.pixel_decoder)

    @property
    def codebook(self) -> Tensor:
        """What the decoder reads for each code, (k, c) float32: for cosine look-up, of length 1."""
        return F.normalize(self.codes, dim=1) if self.lookup == "cosine" else self.codes

    def latents(self, images: Tensor) -> Tensor:
        """Encoder output before quantisation, of any length: (b, 3, H, W) in [0, 1] to (b, c, 1, tokens)."""
        patches = rearrange(self.to_patches(images), "b d h w -> b (h w) d")
        _, row = self.encoder(patches, self.latent_tokens.expand(images.shape[0], -1, -1))
        if self.lookup == "cosine":
            row = rearrange(rearrange(row, "b n d -> b (n d)"), "b (d n) -> b d 1 n", n=self.config.tokens)
        else:
            row = rearrange(row, "b n d -> b d 1 n")
        return self.pre_quant(row)

    def pixels(self, embeddings: Tensor) -> Tensor:
        """Decoder: embeddings (b, c, 1, tokens), of length 1 where codes are, to images (b, 3, H, W), not clamped."""
        row = self.post_quant(rearrange(embeddings, "b c 1 n -> b n c"))
        height, width = self.patches
        masks = self.mask_token.expand(row.shape[0], height * width, -1)
        patches, _ = self.decoder(masks, row)
        maps = rearrange(patches, "b (h w) d -> b d h w", h=height, w=width)
        if self.config.pixel_decoder is None:
            p = self.config.patch_size
            return self.smooth(rearrange(self.to_pixels(maps), "b (p q c) h w -> b c (h p) (w q)", p=p, q=p))
        shares = rearrange(self.to_logits(maps).softmax(dim=1), "b k h w -> b h w k")
        return self.pixel_decoder(rearrange(shares @ self.pixel_codes, "b h w c -> b c h w"))

    def encode(self, images: Tensor) -> Tensor:
        """Images (b, 3, H, W) in [0, 1] to ids (b, 1, tokens) int64."""
        return nearest_code(self.latents(images), self.codebook, self.lookup)


class _Transformer(nn.Module):
    """A cls token, patches and the row of tokens, with learned positions, through blocks between two norms.

    Patches (b, n, d) and the row (b, tokens, d) to the same, without the cls token.
    """

    def __init__(self, config: SideConfig, patches: tuple[int, ...], tokens: int):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, config.width))
        self.positions = nn.Parameter(torch.zeros(1 + patches[0] * patches[1], config.width))  # the cls token's first
        self.row_positions = nn.Parameter(torch.zeros(tokens, config.width))
        self.norm_before = nn.LayerNorm(config.width)
        heads = config.width // HEAD_WIDTH
        self.blocks = nn.ModuleList(
            Block(config.width, heads, qkv_bias=True, norm_layer=nn.LayerNorm) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width)

    def forward(self, patches: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        cls_tokens = self.cls_token.expand(patches.shape[0], 1, -1)
        shown = torch.cat([cls_tokens, patches], dim=1) + self.positions
        x = self.norm_before(torch.cat([shown, row + self.row_positions], dim=1))
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        count = patches.shape[1]
        return x[:, 1 : 1 + count], x[:, 1 + count :]


def _pixel_decoder(config: PixelDecoderConfig) -> nn.Module:
    """Mixtures of codes (b, c, h, w) to pixels (b, 3, H, W)."""
    from diffusers.models.autoencoders.vae import Decoder

    return Decoder(
        in_channels=config.dim, out_channels=3, up_block_types=("UpDecoderBlock2D",) * len(config.widths),
        block_out_channels=tuple(config.widths), layers_per_block=1, mid_block_add_attention=False,
    )  # fmt: skip
