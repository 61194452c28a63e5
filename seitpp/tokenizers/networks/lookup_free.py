"""Convolutional tokenizers with a lookup-free quantiser: the signs of the latent's entries are the bits of the id.

The networks are those of MAGVIT-v2 (Yu et al. 2024, arXiv 2310.05737) for images, as Open-MAGVIT2 (Luo et al. 2024,
arXiv 2409.04410) made them: residual blocks without attention; in the decoder, norms whose scale and shift
are of the codes.
"""

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from seitpp.runtime.config import require, require_between
from seitpp.tokenizers.networks.saved import SavedTokenizer
from seitpp.tokens.codebook import sign_codes, signs_to_ids

_GROUPS, _EPS = 32, 1e-6
"""Of all norms."""


@dataclass(frozen=True, kw_only=True)
class LookupFreeConfig:
    """Shape of the tokenizer. The grid is image_size / 2^(len(widths) - 1)."""

    image_size: tuple[int, int] = (256, 256)
    """pixels (height, width)"""
    widths: tuple[int, ...] = (128, 128, 256, 256, 512)
    """channels of each resolution, from the pixels down; each further one halves the grid"""
    blocks: int = 4
    """residual blocks at each resolution, and in the middle"""
    bits: int = 18
    """of an id: K = 2^bits"""

    def __post_init__(self):
        require(self, "widths", 1 <= len(self.widths) <= 16, "must be 1 to 16 numbers")
        fits = all(0 < width <= 65536 and width % _GROUPS == 0 for width in self.widths)
        require(self, "widths", fits, f"must be multiples of {_GROUPS}, up to 65,536")
        require_between(self, "blocks", 1, 100)
        require_between(self, "bits", 1, 24)
        step = 2 ** (len(self.widths) - 1)
        fits = all(0 < side <= 65536 and side % step == 0 for side in self.image_size)
        require(self, "image_size", fits, f"must be a multiple of {step} (halvings)")
        several = self.image_size[0] * self.image_size[1] > step**2
        require(self, "image_size", several, "must make more than one token: the decoder reads their deviation")


class LookupFreeTokenizer(SavedTokenizer):
    """The tokenizer of Open-MAGVIT2 behind the Tokenizer protocol.

    Args:
        config: a LookupFreeConfig.
    """

    name = "lookup_free"
    config_class = LookupFreeConfig
    lookup = "signs"
    any_size = True

    codebook: Tensor

    def __init__(self, config: LookupFreeConfig):
        super().__init__(config)
        self.grid = tuple(side // 2 ** (len(config.widths) - 1) for side in config.image_size)
        self.codebook_size = 2**config.bits
        self.encoder = _Encoder(config)
        self.decoder = _Decoder(config)
        self.register_buffer("codebook", sign_codes(config.bits), persistent=False)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How an image file becomes this tokenizer's input."""
        return {**super().preprocessing, "range": [-1, 1], "lookup": self.lookup}

    def latents(self, images: Tensor) -> Tensor:
        """Encoder output before quantisation: (b, 3, H, W) in [0, 1] to (b, bits, h, w)."""
        return self.encoder(images * 2 - 1)

    def pixels(self, embeddings: Tensor) -> Tensor:
        """Decoder: embeddings (b, bits, h, w) to images (b, 3, H, W), not clamped."""
        return (self.decoder(embeddings) + 1) / 2

    def encode(self, images: Tensor) -> Tensor:
        """Images (b, 3, H, W) in [0, 1] to ids (b, h, w) int64."""
        return signs_to_ids(self.latents(images))


class _Encoder(nn.Module):
    """Pixels (b, 3, H, W) to latents (b, bits, h, w)."""

    def __init__(self, config: LookupFreeConfig):
        super().__init__()
        widths = config.widths
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.levels = nn.ModuleList()
        for number, width in enumerate(widths):
            blocks = _blocks(widths[max(0, number - 1)], width, config.blocks)
            last = number == len(widths) - 1
            halved = nn.Identity() if last else nn.Conv2d(width, width, 3, stride=2, padding=1)
            self.levels.append(_EncoderLevel(blocks, halved))
        self.middle = _blocks(widths[-1], widths[-1], config.blocks)
        self.norm_out = _norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.bits, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.conv_in(pixels)
        for level in self.levels:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.middle(x))))


class _Decoder(nn.Module):
    """Codes (b, bits, h, w) to pixels (b, 3, H, W); `levels` are counted from the pixels, as the encoder's."""

    def __init__(self, config: LookupFreeConfig):
        super().__init__()
        widths = config.widths
        self.conv_in = nn.Conv2d(config.bits, widths[-1], 3, padding=1)
        self.middle = _blocks(widths[-1], widths[-1], config.blocks)
        self.levels = nn.ModuleList()
        for number, width in enumerate(widths):
            before = widths[min(number + 1, len(widths) - 1)]
            style, blocks = _Style(config.bits, before), _blocks(before, width, config.blocks)
            self.levels.append(_DecoderLevel(style, blocks, _Doubled(width) if number else nn.Identity()))
        self.norm_out = _norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, codes: Tensor) -> Tensor:
        x = self.middle(self.conv_in(codes))
        for level in reversed(self.levels):
            x = level(x, codes)
        return self.conv_out(F.silu(self.norm_out(x)))


class _EncoderLevel(nn.Module):
    """What there is at one resolution: (b, d, h, w) to (b, d', h / 2, w / 2), the last to (b, d', h, w)."""

    def __init__(self, blocks: nn.Module, resample: nn.Module):
        super().__init__()
        self.blocks, self.resample = blocks, resample

    def forward(self, x: Tensor) -> Tensor:
        return self.resample(self.blocks(x))


class _DecoderLevel(nn.Module):
    """The same the other way: (b, d, h, w) to (b, d', 2 h, 2 w), that of the pixels to (b, d', h, w)."""

    def __init__(self, style: nn.Module, blocks: nn.Module, resample: nn.Module):
        super().__init__()
        self.style, self.blocks, self.resample = style, blocks, resample

    def forward(self, x: Tensor, codes: Tensor) -> Tensor:
        return self.resample(self.blocks(self.style(x, codes)))


class _Residual(nn.Module):
    """Twice norm, SiLU and convolution, beside a short cut; no convolution has a bias."""

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.norm1, self.conv1 = _norm(inputs), nn.Conv2d(inputs, width, 3, padding=1, bias=False)
        self.norm2, self.conv2 = _norm(width), nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.shortcut = nn.Identity() if inputs == width else nn.Conv2d(inputs, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))
        return self.conv2(F.silu(self.norm2(hidden))) + self.shortcut(x)


class _Doubled(nn.Module):
    """A convolution to four times the channels, which become 2 x 2 pixels, the pixel being the slower of the two."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, 4 * width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return rearrange(self.conv(x), "b (p q c) h w -> b c (h p) (w q)", p=2, q=2)


class _Style(nn.Module):
    """A group norm whose scale is of the codes' deviation over the image, and whose shift is of their mean."""

    def __init__(self, bits: int, width: int):
        super().__init__()
        self.gamma, self.beta = nn.Linear(bits, width), nn.Linear(bits, width)

    def forward(self, x: Tensor, codes: Tensor) -> Tensor:
        scale = self.gamma((codes.var(dim=(2, 3)) + _EPS).sqrt())  # with the unbiased variance, as published
        shift = self.beta(codes.mean(dim=(2, 3)))
        normed = F.group_norm(x, _GROUPS, eps=_EPS)
        return rearrange(scale, "b d -> b d 1 1") * normed + rearrange(shift, "b d -> b d 1 1")


def _blocks(inputs: int, width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*[_Residual(width if number else inputs, width) for number in range(count)])


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(_GROUPS, width, eps=_EPS)
