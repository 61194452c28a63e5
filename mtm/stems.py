"""Stems: what turns the input of an encoder into patch embeddings.

`PatchStem` (SeiT++) reads token ids, `StemAdapter` (SeiT) reads embeddings of a codebook, `PixelStem` (ViT) reads
pixels: it is what the others are compared with.

Shapes: b batch, c embedding dimension, h w token grid (or pixels), n patches, d width.
"""

import math

import torch
from einops import rearrange
from torch import Tensor, nn

from seitpp.mtm.encoder import LAYER_NORM, EncoderConfig, Stem
from seitpp.tokens.code_factors import factors_of
from seitpp.tokens.codebook import embed

PIXEL_MEAN, PIXEL_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's channels, red, green, blue, in [0, 1]."""


class PatchStem(Stem):
    """Ids (b, h, w) to patch embeddings (b, n, d): look-up, LayerNorm, dropout, p x p convolution of stride p.

    Where ids are split (`config.code_factors`), their embedding is the sum of those of the numbers. It reads rows of
    its table, or mixtures of them, as well: embeddings (b, c, h, w).

    Args:
        config: an EncoderConfig.
        codebook_size: K.
        embedding_dim: c.

    Attributes:
        factors: how ids are split, CodeFactors.
    Raises: UserError if `config.code_factors` does not fit K.
    Source: SeiT++ (arXiv 2312.10105).
    """

    def __init__(self, config: EncoderConfig, *, codebook_size: int, embedding_dim: int):
        super().__init__()
        self.patch_size = config.patch_size
        self.embedding_std = config.embedding_std
        self.factors = factors_of(codebook_size, config.code_factors)
        self.embeddings = nn.Embedding(self.factors.total, embedding_dim)
        self.embedding_norm = LAYER_NORM(embedding_dim)
        self.embedding_dropout = nn.Dropout(config.token_dropout)
        self.patches = nn.Conv2d(embedding_dim, config.width, kernel_size=self.patch_size, stride=self.patch_size)

    @property
    def table(self) -> Tensor:
        """What each id is looked up as, (k, c): trained, unlike the tokenizer's codebook."""
        if not self.factors.split:
            return self.embeddings.weight
        return self._looked_up(torch.arange(self.factors.codebook_size, device=self.embeddings.weight.device))

    def _looked_up(self, ids: Tensor) -> Tensor:
        """Embeddings of ids, (…) to (…, c)."""
        if not self.factors.split:
            return self.embeddings(ids)
        return self.embeddings(self.factors.rows(ids)).sum(dim=-2)

    def forward(self, inputs: Tensor) -> Tensor:
        """Patch embeddings without positions: ids (b, h, w) int64 or embeddings (b, c, h, w) to (b, n, d)."""
        x = rearrange(inputs, "b c h w -> b h w c") if inputs.is_floating_point() else self._looked_up(inputs)
        x = self.embedding_dropout(self.embedding_norm(x))
        return rearrange(self.patches(rearrange(x, "b h w c -> b c h w")), "b d h w -> b (h w) d")

    def initialise_patches(self) -> None:
        """Xavier uniform for the convolution."""
        _xavier(self.patches)

    def initialise_embeddings(self) -> None:
        """Normal of std `embedding_std` for the embeddings of ids."""
        nn.init.normal_(self.embeddings.weight, std=self.embedding_std / math.sqrt(len(self.factors.sizes)))

    @torch.no_grad()
    def start_from(self, codebook: Tensor, config: EncoderConfig) -> None:
        """Set the token embeddings to a codebook, (k, c), where `config.embedding_init` asks for it.

        Each channel gets mean 0 and std `config.embedding_std`. Where ids are split, a number's embedding is the mean
        of the codes that have it: their sum is the code itself if its entries depend on one number each, as signs do.
        """
        if config.embedding_init == "codebook":
            centred = codebook - codebook.mean(dim=0)
            table = centred / centred.std(dim=0).clamp_min(1e-6) * config.embedding_std
            if self.factors.split:
                table = self._means_by_number(table)
            self.embeddings.weight.copy_(table)

    def _means_by_number(self, table: Tensor) -> Tensor:
        """(k, c) to (rows of the embeddings, c)."""
        rows = self.factors.rows(torch.arange(len(table), device=table.device))
        counts = torch.bincount(rows.flatten(), minlength=self.factors.total)
        sums = table.new_zeros(self.factors.total, table.shape[1])
        for column in rows.unbind(1):
            sums.index_add_(0, column, table)
        return sums / counts[:, None]


class StemAdapter(Stem):
    """Embeddings (b, c, h, w) to patch embeddings (b, n, d): a 4 x 4 convolution of stride 2 with padding 1.

    It stands for patches of 2 x 2 tokens, each of which sees a token of its neighbours on every side. The embeddings
    are rows of a codebook, or what an augmentation makes of them. With the tokenizer's codebook, a buffer that no
    training changes, it reads ids too.

    Args:
        config: an EncoderConfig of patch_size 2; what it says of token embeddings is not used.
        embedding_dim: c.
        codebook_size: K of the codebook that it holds, zero until it is loaded or `start_from` sets it; None: it holds
            none, as the published classifiers.
    Raises: ValueError if the patch size is another.
    Source: SeiT (arXiv 2303.11114).
    """

    codebook: Tensor | None

    def __init__(self, config: EncoderConfig, *, embedding_dim: int, codebook_size: int | None = None):
        super().__init__()
        if config.patch_size != 2:
            raise ValueError(
                f"a Stem-Adapter makes patches of 2 x 2 tokens: patch_size = {config.patch_size} must be 2"
            )
        self.patch_size = config.patch_size
        self.patches = nn.Conv2d(embedding_dim, config.width, kernel_size=4, stride=2, padding=1)
        self.register_buffer("codebook", None if codebook_size is None else torch.zeros(codebook_size, embedding_dim))

    @property
    def table(self) -> Tensor | None:
        """The codebook, (k, c); None where it holds none."""
        return self.codebook

    def forward(self, inputs: Tensor) -> Tensor:
        """Patch embeddings without positions: ids (b, h, w) int64 or embeddings (b, c, h, w) to (b, n, d)."""
        if inputs.ndim == 3 and inputs.dtype == torch.int64 and self.codebook is not None:
            inputs = embed(inputs, self.codebook)
        if inputs.ndim != 4 or not inputs.is_floating_point():
            got = f"{str(inputs.dtype).removeprefix('torch.')} of shape {tuple(inputs.shape)}"
            raise ValueError(f"a Stem-Adapter takes embeddings (b, c, h, w), got {got}: look ids up in the codebook")
        return rearrange(self.patches(inputs), "b d h w -> b (h w) d")

    @torch.no_grad()
    def start_from(self, codebook: Tensor, config: EncoderConfig) -> None:
        """Hold a codebook, (k, c), if there is a place for one."""
        if self.codebook is not None:
            self.codebook.copy_(codebook)

    def initialise_patches(self) -> None:
        """Xavier uniform for the convolution, as in the other stem."""
        _xavier(self.patches)


class PixelStem(Stem):
    """Pixels (b, 3, h, w) in [0, 1] to patch embeddings (b, n, d): normalised, then a p x p convolution of stride p.

    With p pixels to a patch of tokens there are as many patches as tokens give, at the same positions.

    Args:
        config: an EncoderConfig whose patch_size counts pixels; what it says of token embeddings is not used.
    Source: ViT (arXiv 2010.11929), section 3.1; mean and deviation of ImageNet's channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.patch_size = config.patch_size
        self.patches = nn.Conv2d(3, config.width, kernel_size=self.patch_size, stride=self.patch_size)
        for name, values in (("mean", PIXEL_MEAN), ("std", PIXEL_STD)):
            self.register_buffer(name, rearrange(torch.tensor(values), "c -> c 1 1"), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Patch embeddings without positions: (b, 3, h, w) float to (b, n, d)."""
        return rearrange(self.patches((pixels - self.mean) / self.std), "b d h w -> b (h w) d")

    @property
    def table(self) -> None:
        """None: pixels are looked up nowhere."""

    def initialise_patches(self) -> None:
        """Xavier uniform for the convolution, as in the other stems."""
        _xavier(self.patches)


def _xavier(convolution: nn.Conv2d) -> None:
    """Xavier uniform for a convolution, taken as the linear map of a patch that it is, as MAE."""
    nn.init.xavier_uniform_(convolution.weight.data.flatten(1))
