"""What is there: how many images of what size, and the machine."""

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seitpp.pipeline.leak_free import hash_of
from seitpp.tokenizers.sources.pixels import BrokenImage, open_image, quiet_decoding
from seitpp.tokenizers.tokenizer import Tokenizer

_LOOKED_AT = 256
"""Images whose size is read."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the sizes of a fit are chosen by.

    Attributes:
        images: for training, unlabelled ones too.
        labelled: of these, those with a class.
        test_images: for testing.
        classes: how many.
        side: short side of the images in pixels, the median.
        cores: that may be used.
        gpus: how many.
        memory: bytes that the machine has.
        grid: (h, w) tokens of the tokenizer that is given; None: one is trained.
    """

    images: int
    labelled: int
    test_images: int
    classes: int
    side: int
    cores: int
    gpus: int
    memory: int
    grid: tuple[int, int] | None = None


def machine() -> dict[str, int]:
    """Cores, GPUs and bytes of memory of this machine."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cores": cores, "gpus": torch.cuda.device_count(), "memory": memory}


@quiet_decoding()
def short_side(folder: Path, keys: Sequence[str]) -> int:
    """The median short side of a folder's images in pixels, of at most 256 of them; 0 if none can be read."""
    sides = []
    for key in sorted(keys, key=hash_of)[:_LOOKED_AT]:
        try:
            with open_image(folder / key) as image:
                sides.append(min(image.size))
        except (BrokenImage, OSError):
            continue
    return int(statistics.median_low(sides)) if sides else 0


def grid_of(tokenizer: Tokenizer) -> tuple[int, int]:
    """(h, w) tokens of an image."""
    return tokenizer.grid[0], tokenizer.grid[1]
