"""Gaussian noise and blur of a stated strength, as image sources.

SeiT++ (arXiv 2312.10105) reports accuracy under "Gaussian noise" and "blur" and does not publish how strong they were;
here the strength is a flag, and a part of the name in results.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from seitpp.downstream.altered import AlteredImages, image_seed


@dataclass(frozen=True)
class NoisyImages(AlteredImages):
    """Images with independent Gaussian noise on every pixel and channel, cut to what a pixel can be.

    Attributes:
        std: its standard deviation, where pixels lie in [0, 1]; 0 changes nothing.
        seed: each image has its own noise, by its index.
    """

    std: float
    seed: int

    def alter(self, pixels: np.ndarray, index: int) -> np.ndarray:
        """The image with noise, rounded."""
        random = np.random.default_rng(image_seed(self.seed, "noise", f"{self.std:g}", index))
        noisy = pixels + 255 * self.std * random.standard_normal(pixels.shape, dtype=np.float32)
        return np.clip(noisy.round(), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class BlurredImages(AlteredImages):
    """Images under a Gaussian blur; beyond the edge lies the image's mirror.

    Attributes:
        sigma: standard deviation of the kernel, in pixels of the size that the tokenizer reads; 0 changes nothing.
    """

    sigma: float

    def alter(self, pixels: np.ndarray, index: int) -> np.ndarray:
        """The image blurred, rounded."""
        blurred = gaussian_filter(pixels.astype(np.float32), sigma=(0, self.sigma, self.sigma))
        return np.clip(blurred.round(), 0, 255).astype(np.uint8)
