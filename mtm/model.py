"""The masked token model: encode what is visible, predict the ids of what is masked.

Shapes: b batch, h w token grid, n patches of p q tokens, m masked patches, d width, c embedding dimension, k codes.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from seitpp.mtm.encoder import LAYER_NORM, EncoderConfig, TokenEncoder, initialise_linear
from seitpp.mtm.masking import Masks, places
from seitpp.mtm.stems import PatchStem
from seitpp.runtime.config import from_dict, require, require_between
from seitpp.runtime.errors import UserError
from seitpp.runtime.foreign.conversion import built
from seitpp.runtime.schema import anything, record, table, text
from seitpp.runtime.weights import config_file, load_weights, read_config, save_weights
from seitpp.tokens.format.manifest_schema import CODES, EMBEDDING_DIM, FINGERPRINT, GRID, VIEW

DESCRIBED = record(
    {
        "model": table(anything), "view": VIEW, "codebook_size": CODES, "embedding_dim": EMBEDDING_DIM,
        "tokenizer": FINGERPRINT, "grid": GRID,
    },
    {"augmentation": text()},
)  # fmt: skip
"""What the config.json of a masked token model says; `model` is a ModelConfig."""


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Shape of the decoder. Defaults: the papers'."""

    width: int = 512
    """of the blocks"""
    depth: int = 4
    """blocks"""
    heads: int = 16
    """attention heads"""
    dropout: float = 0.1
    """in attention and MLP"""

    def __post_init__(self):
        for name, most in {"width": 65536, "depth": 1000, "heads": 65536}.items():
            require_between(self, name, 1, most)
        require(self, "width", self.width % self.heads == 0, f"must be a multiple of heads = {self.heads}")
        require(self, "dropout", 0 <= self.dropout < 1, "must lie in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The masked token model."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """what is kept"""
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    """what is thrown away after pre-training"""
    label_smoothing: float = 0.1
    """of the loss"""

    def __post_init__(self):
        require(self, "label_smoothing", 0 <= self.label_smoothing < 1, "must lie in [0, 1)")


class MaskedTokenModel(nn.Module):
    """Predict the ids of masked patches from the visible ones.

    Masked patches that are not dropped enter the encoder as a learned vector; dropped ones do not enter it. In the
    decoder every hidden place holds the projected cls output, to which learned positions are added. The head splits
    a patch into its tokens and compares each with the detached embedding table. Where ids are split into numbers
    (`encoder.code_factors`), each number has a softmax of its own, and their cross-entropies are added.

    Args:
        config: a ModelConfig.
        view: (h, w) tokens of the input.
        codebook_size: K.
        embedding_dim: c.
    Source: SeiT++ (arXiv 2312.10105), section 3.1, after MAGE (arXiv 2211.09117).
    """

    def __init__(self, config: ModelConfig, *, view: Sequence[int], codebook_size: int, embedding_dim: int):
        super().__init__()
        self.described: dict[str, Any] = {
            "model": asdict(config), "view": list(view), "codebook_size": codebook_size, "embedding_dim": embedding_dim,
        }  # fmt: skip
        self.label_smoothing = config.label_smoothing
        stem = PatchStem(config.encoder, codebook_size=codebook_size, embedding_dim=embedding_dim)
        self.factors = stem.factors
        self.encoder = TokenEncoder(config.encoder, stem, view=view)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.encoder.width))
        decoder, patches = config.decoder, math.prod(self.encoder.patch_grid)
        self.decoder_embed = nn.Linear(config.encoder.width, decoder.width)
        self.decoder_pos_embed = nn.Parameter(torch.zeros(1, 1 + patches, decoder.width))
        self.decoder_blocks = nn.ModuleList(
            [
                Block(
                    decoder.width, decoder.heads, qkv_bias=True, proj_drop=decoder.dropout, attn_drop=decoder.dropout,
                    norm_layer=LAYER_NORM,
                )
                for _ in range(decoder.depth)
            ]
        )  # fmt: skip
        self.decoder_norm = LAYER_NORM(decoder.width)
        self.head = nn.Linear(decoder.width, self.encoder.patch_size**2 * len(self.factors.sizes) * embedding_dim)
        self.head_norm = nn.LayerNorm(embedding_dim)
        self.head_bias = nn.Parameter(torch.zeros(self.factors.total))
        for part in (self.decoder_embed, self.decoder_blocks, self.head):
            initialise_linear(part)

    def encode(self, ids: Tensor, masks: Masks) -> Tensor:
        """Normed features of the patches that are not dropped: (b, h, w) ids to (b, 1 + n - dropped, d), cls first."""
        x = self.encoder.embed(ids)
        x = torch.where(masks.masked[..., None], self.mask_token.to(x.dtype), x) + self.encoder.pos_embed
        kept = places(~masks.dropped, x.shape[1] - masks.dropped_count)
        x = x.gather(1, kept[..., None].expand(-1, -1, x.shape[2]))
        return self.encoder.norm(self.encoder.encode(x))

    def decode(self, latent: Tensor, masks: Masks) -> Tensor:
        """Decoder output at all places: (b, 1 + n - dropped, d) to (b, n, d of the decoder)."""
        x = self.decoder_embed(latent)
        cls = x[:, :1]
        # Which row of `x` a place reads: the number of kept places up to it, cls being row 0; hidden ones take cls.
        source = (~masks.dropped).cumsum(dim=1)
        filled = x.gather(1, source[..., None].expand(-1, -1, x.shape[2]))
        filled = torch.where(masks.masked[..., None], cls, filled)
        x = torch.cat([cls, filled], dim=1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_norm(x)[:, 1:]

    def logits(self, decoded: Tensor) -> Tensor:
        """Logits of the tokens of patches: (b, m, d of the decoder) to (b, m, p * q, k).

        Where ids are split, those of the values of all numbers, as `factors.parts` divides them.
        """
        tokens, factors = self.encoder.patch_size**2, self.factors
        x = rearrange(self.head(decoded), "b m (t f c) -> f b m t c", t=tokens, f=len(factors.sizes))
        x = self.head_norm(F.gelu(x))
        tables, biases = factors.parts(self.encoder.stem.embeddings.weight.detach(), 0), factors.parts(self.head_bias)
        logits = [part @ table.T + bias for part, table, bias in zip(x, tables, biases, strict=True)]
        return torch.cat(logits, dim=-1) if factors.split else logits[0]

    def targets(self, ids: Tensor) -> Tensor:
        """Ids by patch: (b, h, w) to (b, n, p * q)."""
        return self.encoder.patchify(ids)

    def forward(self, ids: Tensor, masks: Masks) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and measures over masked patches; nothing is computed for the visible ones' logits.

        Args:
            ids: (b, h, w) int64.
            masks: Masks over the n patches.
        Returns: (loss with label smoothing, {"cross_entropy", "accuracy"}: without smoothing, over masked tokens).
        """
        hidden = places(masks.masked, masks.masked_count)
        decoded = self.decode(self.encode(ids, masks), masks)
        logits = self.logits(decoded.gather(1, hidden[..., None].expand(-1, -1, decoded.shape[2])))
        targets = self.targets(ids)
        targets = targets.gather(1, hidden[..., None].expand(-1, -1, targets.shape[2]))
        flat, wanted = rearrange(logits.float(), "b m t k -> (b m t) k"), rearrange(targets, "b m t -> (b m t)")
        losses, surprises, smoothing = [], [], self.label_smoothing  # spread over all codes
        for part, number in zip(self.factors.parts(flat), self.factors.of(wanted), strict=True):
            logarithms = F.log_softmax(part, dim=1)
            surprises.append(F.nll_loss(logarithms, number))
            losses.append((1 - smoothing) * surprises[-1] - smoothing * logarithms.mean())
        accuracy = (self.factors.likeliest(flat.detach()) == wanted).float().mean()
        cross_entropy = torch.stack(surprises).sum().detach()
        return torch.stack(losses).sum(), {"cross_entropy": cross_entropy, "accuracy": accuracy}

    @torch.no_grad()
    def complete(self, ids: Tensor, masks: Masks) -> Tensor:
        """Fill masked patches with the most likely ids: (b, h, w) to (b, h, w)."""
        best = self.factors.likeliest(self.logits(self.decode(self.encode(ids, masks), masks)))
        return self.encoder.unpatchify(torch.where(masks.masked[..., None], best, self.targets(ids)))


def save_model(
    folder: str | Path, model: MaskedTokenModel, *, tokenizer: str, grid: Sequence[int], augmentation: str = ""
) -> None:
    """Write a MaskedTokenModel's weights/.

    Args:
        folder: the destination.
        model: the MaskedTokenModel.
        tokenizer: fingerprint of the tokenizer whose ids it reads.
        grid: (h, w) of the stored ids; the model's view may be smaller.
        augmentation: what results call the augmentation that it was trained with, such as "tokenadapt+coloradapt".
    """
    described = {**model.described, "tokenizer": tokenizer, "grid": list(grid), "augmentation": augmentation}
    save_weights(folder, model.state_dict(), described)


def load_model(folder: str | Path, device: torch.device | str = "cpu") -> tuple[MaskedTokenModel, str]:
    """Load what pre-training left: (MaskedTokenModel in evaluation mode, fingerprint of its tokenizer).

    Args:
        folder: a run of `seitpp.mtm.pretrain` or its weights/.
        device: where it goes.
    Raises: UserError if there are no weights.
    """
    described = describe_model(folder)
    config = from_dict(ModelConfig, described["model"], config_file(folder))
    sizes = {name: described[name] for name in ("view", "codebook_size", "embedding_dim")}
    state, _ = load_weights(folder, DESCRIBED)
    model = built(lambda: MaskedTokenModel(config, **sizes), state, config_file(folder).parent)
    return model.to(device).eval(), described["tokenizer"]


def describe_model(folder: str | Path) -> dict[str, Any]:
    """The config.json of a masked token model, checked.

    Raises: UserError if there is none.
    """
    if "model" not in read_config(folder, record({})):
        raise UserError(f"{folder} is no masked token model: give a run of seitpp pretrain or seitpp import-model")
    return read_config(folder, DESCRIBED)


def augmentation_of(folder: str | Path) -> str:
    """What results call the augmentation that a pre-training used; "" for none, and where its weights do not say.

    Args:
        folder: a run of `mtm.pretrain` or its weights/.
    """
    return read_config(folder, record({}, {"augmentation": text()})).get("augmentation", "")
