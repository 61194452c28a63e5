"""Convolutional VQ tokenizers: diffusers' VQModel, with space-to-depth before it where that makes it cheap."""

from dataclasses import asdict, dataclass

import torch
from einops import rearrange
from torch import nn

from tokens.codebook import embed, nearest_code
from tokens.tokenizer import fingerprint_of
from training.config import require
from training.files import read_json, replacing, write_json


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
        step = self.space_to_depth * 2 ** (len(self.widths) - 1)
        fits = all(side % step == 0 for side in self.image_size)
        require(self, "image_size", fits, f"must be a multiple of {step} (space_to_depth x halvings)")
        require(self, "codebook_size", 2 <= self.codebook_size <= 65536, "must lie in [2, 65536]")
        require(self, "widths", all(width % 32 == 0 for width in self.widths), "must be multiples of 32")


class VQTokenizer(nn.Module):
    """A diffusers VQModel behind the Tokenizer protocol.

    Args:
        config: a VQConfig.
    """

    name = "vq"
    lookup = "euclidean"

    def __init__(self, config):
        super().__init__()
        from diffusers.models.autoencoders.vq_model import VQModel

        self.config = config
        halvings = len(config.widths) - 1
        shrink = config.space_to_depth * 2**halvings
        self.image_size = tuple(config.image_size)
        self.grid = tuple(side // shrink for side in config.image_size)
        self.codebook_size = config.codebook_size
        channels = 3 * config.space_to_depth**2
        self.model = VQModel(
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

    @property
    def codebook(self):
        """(k, c) float32."""
        return self.model.quantize.embedding.weight

    @property
    def preprocessing(self):
        """How an image file becomes this tokenizer's input."""
        return {"image_size": list(self.image_size), "resize": "bicubic, short side, centre crop", "range": [-1, 1]}

    @property
    def fingerprint(self):
        """SHA-256 of weights and preprocessing."""
        return fingerprint_of(self.state_dict(), self.preprocessing)

    def latents(self, images):
        """Encoder output before quantisation: (b, 3, H, W) in [0, 1] to (b, c, h, w)."""
        side = self.config.space_to_depth
        folded = rearrange(images * 2.0 - 1.0, "b c (h s) (w t) -> b (c s t) h w", s=side, t=side)
        return self.model.encode(folded).latents

    def pixels(self, embeddings):
        """Decoder: embeddings (b, c, h, w) to images (b, 3, H, W), not clamped."""
        side = self.config.space_to_depth
        folded = self.model.decode(embeddings, force_not_quantize=True).sample
        return (rearrange(folded, "b (c s t) h w -> b c (h s) (w t)", s=side, t=side) + 1.0) / 2.0

    def encode(self, images):
        """Images (b, 3, H, W) in [0, 1] to ids (b, h, w) int64."""
        return nearest_code(self.latents(images), self.codebook, self.lookup)

    def decode(self, ids):
        """Ids (b, h, w) to images (b, 3, H, W) in [0, 1]."""
        return self.pixels(embed(ids, self.codebook)).clamp(0.0, 1.0)

    @torch.no_grad()
    def standardise(self):
        """Shift and scale the codes to mean 0 and deviation 1, as networks that read them expect.

        The 1x1 convolutions around the quantiser take the inverse, so ids and decoded images stay what they were.
        """
        before, after, codes = self.model.quant_conv, self.model.post_quant_conv, self.codebook
        mean = codes.mean(dim=0)
        scale = (codes - mean).std()
        after.bias.add_(after.weight[:, :, 0, 0] @ mean)
        after.weight.mul_(scale)
        before.bias.sub_(mean).div_(scale)
        before.weight.div_(scale)
        codes.sub_(mean).div_(scale)

    def save(self, folder):
        """Write a folder that diffusers' `VQModel.from_pretrained` opens too, whole or not at all."""
        with replacing(folder) as temporary:
            self.model.save_pretrained(temporary)
            write_json(temporary / "tokenizer.json", {"kind": self.name, "config": asdict(self.config)})

    @classmethod
    def load(cls, folder):
        """Read what `save` wrote."""
        from safetensors.torch import load_file

        config = read_json(folder / "tokenizer.json")["config"]
        tokenizer = cls(VQConfig(**{key: tuple(v) if isinstance(v, list) else v for key, v in config.items()}))
        tokenizer.model.load_state_dict(load_file(folder / "diffusion_pytorch_model.safetensors"))
        return tokenizer
