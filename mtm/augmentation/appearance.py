"""The appearance of training views: each sample takes another's colours (ColorAdapt), gets noise, or stays as it is."""

from dataclasses import dataclass

import torch

from seitpp.coloradapt.color_adapt import color_adapt
from seitpp.coloradapt.noise import add_noise
from seitpp.mtm.augmentation.partners import Pairing, sample_partners
from seitpp.runtime.config import require
from seitpp.training.random_streams import Draws


@dataclass(frozen=True, kw_only=True)
class AppearanceConfig:
    """How the appearance of views is changed."""

    color_adapt: float = 0.0
    """probability of ColorAdapt"""
    partners: Pairing = "neighbour"
    """whose statistics ColorAdapt takes and whom a sample is mixed with. neighbour: in pairs, whatever the number of
    processes; reversed (as published) and random: within a process's batch, so that a run depends on their number"""
    noise: float = 0.0
    """probability of Emb-Noise; the two exclude each other"""
    noise_channel: float = 1.0
    """std of the noise that a channel shares, in stds of the codebook"""
    noise_element: float = 1.0
    """std of the noise of each element, in stds of the codebook"""

    def __post_init__(self):
        require(self, "noise", self.noise >= 0, "must not be below 0")
        require(
            self, "noise", self.noise + self.color_adapt <= 1, f"+ color_adapt = {self.color_adapt} must be at most 1"
        )
        require(self, "color_adapt", 0 <= self.color_adapt <= 1, "must be a probability")
        for name in ("noise_channel", "noise_element"):
            require(self, name, getattr(self, name) >= 0, "must not be below 0")

    @property
    def recolours(self) -> bool:
        """Whether anything is changed at all."""
        return self.color_adapt + self.noise > 0


def recolour(
    embeddings: torch.Tensor, draws: Draws, config: AppearanceConfig, *, codebook_std: torch.Tensor
) -> torch.Tensor:
    """Change the appearance of a batch, each sample by its own draw.

    Args:
        embeddings: (b, c, h, w), float.
        draws: the Draws of the batch.
        config: an AppearanceConfig.
        codebook_std: std of all numbers of the codebook, the unit of the noise.
    Returns: new tensor of the same shape, or the same one.
    """
    choice = draws.uniform("recolour", 1)[:, 0]
    result = embeddings
    if config.color_adapt > 0:
        own = torch.arange(len(draws), device=draws.device)
        partners = sample_partners(config.partners, draws, "recolour partner")
        result = color_adapt(embeddings, torch.where(choice < config.color_adapt, partners, own))
    if config.noise > 0:
        chosen = (choice >= config.color_adapt) & (choice < config.color_adapt + config.noise)
        channels = embeddings.shape[1]
        result = add_noise(
            result,
            chosen,
            draws.normal("channel noise", channels, 1, 1),
            draws.normal("element noise", *embeddings.shape[1:]),
            channel_scale=config.noise_channel * codebook_std,
            element_scale=config.noise_element * codebook_std,
        )
    return result
