"""The VQ tokenizers of LlamaGen (Sun et al. 2024, arXiv 2406.06525): vq_ds8_c2i.pt and vq_ds16_c2i.pt.

Both have 16,384 codes of dimension 8, looked up by their direction. The checkpoints are those of
github.com/FoundationVision/LlamaGen.
"""

from typing import TYPE_CHECKING

import torch

from seitpp.tokenizers.networks.foreign_vq import vq_model_of

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vq_model import VQModel


_OF_TRAINING = ("quantize.codebook_used",)  # a window of used ids, for the log


def from_llamagen(weights: dict[str, torch.Tensor], source: object) -> "VQModel":
    """The VQModel of a LlamaGen tokenizer's state dict, for cosine look-up.

    Args:
        weights: published name to tensor.
        source: where they are from, for messages.
    Raises: UserError if they are of another model.
    """
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith(_OF_TRAINING)}
    return vq_model_of(weights, _RULES, source)


_RULES = [
    (r"^encoder\.conv_blocks\.", "encoder.down_blocks."),
    (r"^decoder\.conv_blocks\.", "decoder.up_blocks."),
    (r"^(encoder|decoder)\.mid\.0\.", r"\1.mid_block.resnets.0."),
    (r"^(encoder|decoder)\.mid\.1\.", r"\1.mid_block.attentions.0."),
    (r"^(encoder|decoder)\.mid\.2\.", r"\1.mid_block.resnets.1."),
    (r"_blocks\.(\d+)\.res\.", r"_blocks.\1.resnets."),
]
