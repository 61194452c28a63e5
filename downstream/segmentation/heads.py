"""What makes label maps of an encoder's features: UPerNet on a feature pyramid, or one linear layer.

Shapes: b batch, d width, h w patch grid, k classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from seitpp.runtime.config import require, require_between
from seitpp.runtime.errors import UserError

HeadKind = Literal["upernet", "linear"]
LEVELS = 4
"""Depths of the encoder that UPerNet reads, and levels of its pyramid."""


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """What reads the encoder's features. Defaults: those that MAE's and BEiT's segmentation share."""

    kind: HeadKind = "upernet"
    """upernet: UPerNet on features of four depths, the encoder is trained; linear: batch norm and one linear layer on
    the last features of an encoder that stays as it is"""
    channels: int = 512
    """of UPerNet's convolutions"""
    dropout: float = 0.1
    """of whole channels before the last layer"""
    auxiliary: float = 0.4
    """weight of the loss of a second, smaller head on the third depth, which is left out afterwards; 0: none"""
    auxiliary_channels: int = 256
    """of its convolution"""

    def __post_init__(self):
        require_between(self, "channels", 1, 65536)
        require_between(self, "auxiliary_channels", 1, 65536)
        require(self, "dropout", 0 <= self.dropout < 1, "must lie in [0, 1)")
        require(self, "auxiliary", self.auxiliary >= 0, "must not be below 0")


def depths_of(blocks: int) -> list[int]:
    """The blocks, from 0, whose features UPerNet reads: at each quarter of the depth, 3, 6, 9 and 12 of 12.

    An encoder of fewer than four blocks is asked for some of them twice.
    """
    return [-(-blocks * quarter // LEVELS) - 1 for quarter in range(1, LEVELS + 1)]


class FeaturePyramid(nn.Module):
    """Features of one resolution to four: x4, x2, x1 and x0.5, from the shallowest depth to the deepest.

    Args:
        width: d.
    Source: BEiT (arXiv 2106.08254), appendix on segmentation, as MAE (arXiv 2111.06377) has it.
    """

    def __init__(self, width: int):
        super().__init__()
        twice = [nn.ConvTranspose2d(width, width, kernel_size=2, stride=2) for _ in range(3)]
        self.levels = nn.ModuleList(
            [
                nn.Sequential(twice[0], nn.BatchNorm2d(width), nn.GELU(), twice[1]),
                twice[2],
                nn.Identity(),
                nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=True),  # a grid of one patch stays one
            ]
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Four of (b, d, h, w) to (b, d, 4 h, 4 w), (b, d, 2 h, 2 w), (b, d, h, w), (b, d, h / 2, w / 2)."""
        return [level(each) for level, each in zip(self.levels, features, strict=True)]


class UPerNetHead(nn.Module):
    """The pyramid, segmentation-models-pytorch's UPerNet decoder, a linear layer; and a small second head.

    Args:
        config: a HeadConfig.
        width: d.
        classes: k.
    Raises: UserError if segmentation-models-pytorch is not installed.
    Source: UPerNet (arXiv 1807.10221).
    """

    def __init__(self, config: HeadConfig, *, width: int, classes: int):
        super().__init__()
        self.pyramid = FeaturePyramid(width)
        # Two finer levels stand for those of a convolutional network, which the decoder passes over.
        self.decoder = _decoder_class()([0, 0, *[width] * LEVELS], LEVELS + 1, config.channels)
        self.classify = nn.Sequential(nn.Dropout2d(config.dropout), nn.Conv2d(config.channels, classes, 1))
        self.auxiliary = None
        if config.auxiliary > 0:
            self.auxiliary = nn.Sequential(
                nn.Conv2d(width, config.auxiliary_channels, kernel_size=3, padding=1, bias=False),
                nn.BatchNorm2d(config.auxiliary_channels),
                nn.ReLU(),
                nn.Dropout2d(config.dropout),
                nn.Conv2d(config.auxiliary_channels, classes, 1),
            )

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Four of (b, d, h, w) to logits (b, k, 4 h, 4 w), and in training the second head's (b, k, h, w)."""
        blank: Any = None
        decoded = self.decoder([blank, blank, *self.pyramid(features)])
        second = self.auxiliary(features[2]) if self.auxiliary is not None and self.training else None
        return self.classify(decoded), second


class LinearHead(nn.Module):
    """Batch norm and a 1 x 1 convolution on the last features.

    Args:
        config: a HeadConfig.
        width: d.
        classes: k.
    Source: the linear protocol of DINOv2 (arXiv 2304.07193), section 7.4.
    """

    def __init__(self, config: HeadConfig, *, width: int, classes: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(width)
        self.classify = nn.Sequential(nn.Dropout2d(config.dropout), nn.Conv2d(width, classes, 1))

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, None]:
        """(b, d, h, w), the last of several, to logits (b, k, h, w)."""
        return self.classify(self.norm(features[-1])), None


def make_head(config: HeadConfig, *, width: int, classes: int) -> UPerNetHead | LinearHead:
    """The head of a HeadConfig; its last layers begin small, so that all classes are about as likely."""
    head = (UPerNetHead if config.kind == "upernet" else LinearHead)(config, width=width, classes=classes)
    for name, part in head.named_modules():
        if isinstance(part, nn.Conv2d) and part.out_channels == classes and name.split(".")[0] != "decoder":
            nn.init.normal_(part.weight, std=0.01)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    return head


def _decoder_class() -> Any:
    try:
        from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
    except ImportError as error:
        raise UserError(
            "UPerNet needs segmentation-models-pytorch: pip install 'seitpp[segmentation]', or set --head.kind linear"
        ) from error
    return UPerNetDecoder
