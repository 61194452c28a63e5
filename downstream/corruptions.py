"""Corrupted images as an image source: each is decoded at the size asked for, then corrupted as in ImageNet-C.

The corruptions are those of ImageNet-C (Hendrycks and Dietterich 2019, arXiv 1903.12261), by the package
imagecorruptions-imaug.
"""

import threading
from dataclasses import dataclass

import numpy as np
from einops import rearrange

from seitpp.downstream.altered import AlteredImages, image_seed
from seitpp.runtime.errors import UserError

LEAST_SIDE = 32
"""pixels a side that the package takes at least"""
_OWN_GENERATOR = frozenset({"impulse_noise", "glass_blur"})
"""Corruptions that draw from a generator of their own, which they seed from the system unless they are given a seed."""
_GLOBAL_GENERATOR = threading.Lock()
"""All other corruptions draw from numpy's global generator: one image at a time, or threads would share its state."""


@dataclass(frozen=True)
class CorruptedImages(AlteredImages):
    """An ImageSource whose images are those of another, corrupted. What is read does not depend on who reads when.

    Attributes:
        name: of the corruption, such as "gaussian_noise".
        severity: 1 to 5.
        seed: of the noise; each image has its own, by its index.
    """

    name: str
    severity: int
    seed: int

    def alter(self, pixels: np.ndarray, index: int) -> np.ndarray:
        """The image corrupted.

        Raises: UserError where the corruption fails.
        """
        try:
            return corrupt(
                pixels, self.name, self.severity, seed=image_seed(self.seed, self.name, self.severity, index)
            )
        except Exception as error:  # whatever the package raises: it must not count as an image that can't be decoded
            raise UserError(
                f"{self.name} fails on {self.where(index)} ({error}): leave it out of --corruptions"
            ) from error


def corrupt(pixels: np.ndarray, name: str, severity: int, *, seed: int) -> np.ndarray:
    """Corrupt one image as ImageNet-C does.

    Args:
        pixels: (3, height, width) uint8, at least 32 pixels a side.
        name: of the corruption.
        severity: 1 to 5.
        seed: of its noise, 32 bits. numpy's global generator is left as it was.
    Returns: the same shape and type, new.
    """
    from imagecorruptions import corrupt as corrupt_one

    options = {"seed": seed} if name in _OWN_GENERATOR else {}
    with _GLOBAL_GENERATOR:
        state = np.random.get_state()
        np.random.seed(seed)
        try:
            image = rearrange(pixels, "c h w -> h w c")
            corrupted = corrupt_one(np.ascontiguousarray(image), severity=severity, corruption_name=name, **options)
        finally:
            np.random.set_state(state)
    return np.ascontiguousarray(rearrange(corrupted, "h w c -> c h w"))


def check_corruptions(names: tuple[str, ...], size: tuple[int, int], advice: str = "give --corruptions '[]'") -> None:
    """Refuse corruptions that can't be made.

    Args:
        names: of corruptions.
        size: (height, width) of the images.
        advice: what to do where they are too small.
    Raises: UserError if the extra is missing, there is no such corruption, or the images are too small for any.
    """
    if not names:
        return
    try:
        from imagecorruptions import get_corruption_names
    except ImportError as error:
        raise UserError("robustness needs its extra: pip install 'seitpp[robustness]'") from error
    known = get_corruption_names("all")
    for name in names:
        if name not in known:
            raise UserError(f"no corruption {name!r}; there are: {', '.join(known)}")
    if min(size) < LEAST_SIDE:
        raise UserError(
            f"corruptions need images of at least {LEAST_SIDE} pixels a side, this tokenizer reads {size[0]} x "
            f"{size[1]}: {advice}"
        )
