"""The VQ tokenizers of latent diffusion (Rombach et al. 2022): vq-f4, vq-f8, vq-f8-n256 and vq-f16.

Their checkpoints are those of github.com/CompVis/latent-diffusion, which took the form over from taming-transformers
(Esser et al. 2021), whose VQGANs have the same names. vq-f8-n256 has 256 codes: 1,024 bytes an image of 256 pixels.
"""

from typing import TYPE_CHECKING

import torch

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.networks.foreign_vq import vq_model_of

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vq_model import VQModel


_OF_TRAINING = ("loss.", "discriminator.", "model_ema.")  # the published configurations keep no averages


def from_ldm(weights: dict[str, torch.Tensor], source: object) -> "VQModel":
    """The VQModel of a latent diffusion checkpoint's state dict; what only training needs is skipped by name.

    Args:
        weights: published name to tensor.
        source: where they are from, for messages.
    Raises: UserError if they are of another model.
    """
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith(_OF_TRAINING)}
    levels = {name.split(".")[2] for name in weights if name.startswith("decoder.up.")}
    if not levels or levels != {str(level) for level in range(len(levels))}:
        raise UserError(f"{source} has no levels decoder.up.0, 1, …: it is no VQ tokenizer of latent diffusion")
    last = len(levels) - 1
    # the published decoder counts its levels from the pixels, diffusers' from the codes
    reversed_levels = [(rf"^decoder\.up\.{level}\.", f"decoder.up_blocks.{last - level}.") for level in range(last + 1)]
    return vq_model_of(weights, [*reversed_levels, *_RULES], source)


_RULES = [
    (r"^encoder\.down\.", "encoder.down_blocks."),
    (r"^(encoder|decoder)\.mid\.block_1\.", r"\1.mid_block.resnets.0."),
    (r"^(encoder|decoder)\.mid\.block_2\.", r"\1.mid_block.resnets.1."),
    (r"^(encoder|decoder)\.mid\.attn_1\.", r"\1.mid_block.attentions.0."),
    (r"_blocks\.(\d+)\.block\.", r"_blocks.\1.resnets."),
]
