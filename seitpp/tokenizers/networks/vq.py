"""Convolutional VQ tokenizers: any VQModel of diffusers, with space-to-depth before it where that makes it cheap."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from seitpp.runtime.config import require, require_between
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import replacing, write_json
from seitpp.runtime.foreign.conversion import built
from seitpp.runtime.safetensors_file import read_safetensors
from seitpp.runtime.schema import boolean, integer, listing, number, one_of, optional, read_described, record, text
from seitpp.runtime.weights import fingerprint_of
from seitpp.tokenizers.sources.decoding.resize import DESCRIBED, Resize
from seitpp.tokenizers.tokenizer import AGAIN
from seitpp.tokens.codebook import embed, nearest_code
from seitpp.tokens.format.layout import MOST_CODES
from seitpp.tokens.format.manifest_schema import CODES

_SIZE = integer(1, 65536)
_LIMITS = (
    ("space_to_depth", 1, 256), ("layers_per_block", 1, 100), ("codebook_size", 2, MOST_CODES),
    ("codebook_dim", 1, 65536),
)  # fmt: skip
_DESCRIBED = record(
    {
        "config": record(
            {"image_size": listing(_SIZE, 2), "space_to_depth": integer(1, 256)},
            {"lookup": one_of("cosine", "euclidean"), "black": integer(-1, 0)},
        )
    }
)
"""What tokenizer.json says."""
_VQMODEL = {
    "in_channels": _SIZE, "out_channels": _SIZE, "latent_channels": _SIZE, "sample_size": _SIZE,
    "num_vq_embeddings": CODES, "norm_num_groups": _SIZE, "vq_embed_dim": optional(_SIZE),
    "layers_per_block": integer(1, 100), "block_out_channels": listing(_SIZE), "act_fn": text(),
    "down_block_types": listing(text()), "up_block_types": listing(text()), "norm_type": text(),
    "scaling_factor": number(), "mid_block_add_attention": boolean, "lookup_from_codebook": boolean,
    "force_upcast": boolean, "_class_name": text(), "_diffusers_version": text(), "_name_or_path": text(),
}  # fmt: skip
"""What the config.json of a VQModel of diffusers says; its code trusts all of it."""


def load_vqmodel(config_file: Path, weights: dict[str, torch.Tensor], source: object) -> Any:
    """A VQModel of diffusers.

    Args:
        config_file: its config.json; what else is in it is left out, as diffusers would print a line about it.
        weights: name to tensor.
        source: where they are from, for messages.
    Raises: UserError if the file is missing, a field in it is wrong, or the weights are of another model.
    """
    from diffusers.models.autoencoders.vq_model import VQModel

    content = read_described(config_file, record({}, _VQMODEL), AGAIN)
    config = {name: value for name, value in content.items() if name in _VQMODEL}

    def make() -> Any:
        return VQModel.from_config(config)

    return built(make, weights, source)


@dataclass(frozen=True, kw_only=True)
class VQConfig:
    """Shape of a trainable VQ tokenizer. The grid is image_size / (space_to_depth x 2^(len(widths) - 1))."""

    image_size: tuple[int, int] = (64, 64)
    """pixels (height, width)"""
    space_to_depth: int = 4
    """blocks of this many pixels a side become channels first: far cheaper than convolutions at full size"""
    widths: tuple[int, ...] = (64, 96)
    """channels of each resolution; each further one halves the grid"""
    layers_per_block: int = 1
    """residual blocks at each resolution"""
    attention: bool = True
    """self-attention at the smallest resolution"""
    codebook_size: int = 512
    """K"""
    codebook_dim: int = 32
    """dimension of a code"""

    def __post_init__(self):
        for name, least, most in _LIMITS:
            require_between(self, name, least, most)
        require(self, "widths", 1 <= len(self.widths) <= 16 and min(self.widths) > 0, "must be 1 to 16 numbers above 0")
        step = self.space_to_depth * 2 ** (len(self.widths) - 1)
        fits = all(side % step == 0 for side in self.image_size)
        require(self, "image_size", fits, f"must be a multiple of {step} (space_to_depth x halvings)")
        require(self, "widths", all(width % 32 == 0 for width in self.widths), "must be multiples of 32")


class VQTokenizer(nn.Module):
    """Any diffusers VQModel behind the Tokenizer protocol.

    Args:
        model: a VQModel of 3 x space_to_depth^2 channels.
        image_size: (height, width) of the pixels it takes.
        space_to_depth: blocks of this many pixels a side become channels first.
        lookup: "euclidean", as diffusers does it, or "cosine": latents and codes count by their direction, and what is
            decoded is a code of length 1 (LlamaGen, after ViT-VQGAN, arXiv 2110.04627).
        black: the model's pixels are in [black, 1], -1 or 0.
    Raises: UserError if the model has no place for such images.
    """

    name = "vq"
    any_size = True

    def __init__(
        self,
        model: Any,
        image_size: Sequence[int],
        *,
        space_to_depth: int = 1,
        lookup: str = "euclidean",
        black: int = -1,
    ):
        super().__init__()
        channels, shrink = 3 * space_to_depth**2, space_to_depth * 2 ** (len(model.config.block_out_channels) - 1)
        if {model.config.in_channels, model.config.out_channels} != {channels}:
            raise UserError(
                f"this VQModel takes {model.config.in_channels} channels, expected {channels}: not for images"
            )
        if any(side < shrink or side % shrink for side in image_size):
            size = " x ".join(map(str, image_size))
            raise UserError(
                f"this VQModel takes images in multiples of {shrink} pixels, not {size}: change --image_size"
            )
        self.model = model
        self.image_size = tuple(image_size)
        self.space_to_depth = space_to_depth
        self.lookup = lookup
        self.black = black
        self.resize: Resize = "crop"
        self.grid = tuple(side // shrink for side in image_size)
        self.codebook_size = model.config.num_vq_embeddings

    @classmethod
    def untrained(cls, config: VQConfig) -> "VQTokenizer":
        """A new tokenizer of the shape of a VQConfig."""
        from diffusers.models.autoencoders.vq_model import VQModel

        channels = 3 * config.space_to_depth**2
        model = VQModel(
            in_channels=channels,
            out_channels=channels,
            down_block_types=("DownEncoderBlock2D",) * len(config.widths),
            up_block_types=("UpDecoderBlock2D",) * len(config.widths),
            block_out_channels=tuple(config.widths),
            layers_per_block=config.layers_per_block,
            latent_channels=config.codebook_dim,
            num_vq_embeddings=config.codebook_size,
            vq_embed_dim=config.codebook_dim,
            mid_block_add_attention=config.attention,
        )
        return cls(model, config.image_size, space_to_depth=config.space_to_depth)

    @property
    def codebook(self) -> torch.Tensor:
        """What is decoded for each code, (k, c) float32: for cosine look-up, of length 1."""
        codes = self.model.quantize.embedding.weight
        return F.normalize(codes, dim=1) if self.lookup == "cosine" else codes

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How an image file becomes this tokenizer's input."""
        known = {"image_size": list(self.image_size), "resize": DESCRIBED[self.resize], "range": [self.black, 1]}
        return known if self.lookup == "euclidean" else {**known, "lookup": self.lookup}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of weights and preprocessing."""
        return fingerprint_of(self.state_dict(), self.preprocessing)

    def latents(self, images: torch.Tensor) -> torch.Tensor:
        """Encoder output before quantisation: (b, 3, H, W) in [0, 1] to (b, c, h, w)."""
        side = self.space_to_depth
        folded = rearrange(images * (1.0 - self.black) + self.black, "b c (h s) (w t) -> b (c s t) h w", s=side, t=side)
        latents = self.model.encode(folded).latents
        return F.normalize(latents, dim=1) if self.lookup == "cosine" else latents

    def pixels(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Decoder: embeddings (b, c, h, w) to images (b, 3, H, W), not clamped."""
        side = self.space_to_depth
        # not `VQModel.decode`: it would take embeddings for ids where the model's config has lookup_from_codebook
        condition = embeddings if self.model.config.norm_type == "spatial" else None
        folded = self.model.decoder(self.model.post_quant_conv(embeddings), condition)
        unfolded = rearrange(folded, "b (c s t) h w -> b c (h s) (w t)", s=side, t=side)
        return (unfolded - self.black) / (1.0 - self.black)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Images (b, 3, H, W) in [0, 1] to ids (b, h, w) int64."""
        return nearest_code(self.latents(images), self.codebook, self.lookup)

    def decode(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids (b, h, w) to images (b, 3, H, W) in [0, 1]."""
        return self.pixels(embed(ids, self.codebook)).clamp(0.0, 1.0)

    @torch.no_grad()
    def standardise(self) -> None:
        """Shift and scale the codes to mean 0 and std 1, as networks that read them expect.

        The 1x1 convolutions around the quantiser take the inverse, so ids and decoded images stay what they were.
        """
        assert self.lookup == "euclidean"
        before, after, codes = self.model.quant_conv, self.model.post_quant_conv, self.codebook
        mean = codes.mean(dim=0)
        scale = (codes - mean).std()
        after.bias.add_(after.weight[:, :, 0, 0] @ mean)
        after.weight.mul_(scale)
        before.bias.sub_(mean).div_(scale)
        before.weight.div_(scale)
        codes.sub_(mean).div_(scale)

    def save(self, folder: str | Path) -> None:
        """Write a folder that diffusers' `VQModel.from_pretrained` opens too, whole or not at all."""
        described = {"image_size": list(self.image_size), "space_to_depth": self.space_to_depth, "lookup": self.lookup}
        if self.black != -1:
            described["black"] = self.black
        with replacing(folder) as temporary:
            self.model.save_pretrained(temporary)
            write_json(temporary / "tokenizer.json", {"kind": self.name, "config": described, "resize": self.resize})

    @classmethod
    def load(cls, folder: Path) -> "VQTokenizer":
        """Read what `save` wrote, now or before there were other models than those of VQConfig.

        Raises: UserError if a file is missing or broken.
        """
        described = read_described(folder / "tokenizer.json", _DESCRIBED, AGAIN)["config"]
        file = folder / "diffusion_pytorch_model.safetensors"
        model = load_vqmodel(folder / "config.json", read_safetensors(file, AGAIN), file)
        return cls(
            model,
            described["image_size"],
            space_to_depth=described["space_to_depth"],
            lookup=described.get("lookup", "euclidean"),
            black=described.get("black", -1),
        )
