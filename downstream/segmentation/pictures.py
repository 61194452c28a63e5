"""Pictures of a segmenter's answers: decoded tokens, truth and answer of some windows, one above the other."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from seitpp.downstream.segmentation.palette import coloured
from seitpp.downstream.segmentation.stitching import LogitsAt
from seitpp.downstream.segmentation.windows import IGNORE, SegmentationRows
from seitpp.runtime.pictures import image_grid
from seitpp.tokenizers.segmentation.tiles import tiling_of_store
from seitpp.tokenizers.tokenizer import Tokenizer

_LARGEST = 256
"""Pixels of the longer side of a window in a picture."""


@torch.no_grad()
def window_picture(
    path: str | Path, logits_at: LogitsAt, rows: SegmentationRows, *, count: int, tokenizer: Tokenizer | None = None
) -> None:
    """Draw some windows, evenly spread over the store, as a PNG.

    Args:
        path: the PNG.
        logits_at: answers for windows.
        rows: SegmentationRows.
        count: how many windows at most.
        tokenizer: of the store, to decode tokens; None: these are left out.
    """
    which = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(np.int64))
    truth = rows.masks(which).numpy()
    logits = F.interpolate(logits_at(which).float(), size=rows.size, mode="bilinear", align_corners=False)
    answer = np.where(truth == IGNORE, IGNORE, logits.argmax(1).cpu().numpy().astype(np.uint8))
    lines = [_picture(maps, len(rows.classes)) for maps in (truth, answer)]
    if tokenizer is not None:
        lines = [_decoded(which, rows, tokenizer), *lines]
    image_grid([_fitting(line, rows.size) for line in lines], path)


def _picture(maps: np.ndarray, classes: int) -> Tensor:
    return rearrange(torch.from_numpy(coloured(maps, classes)).float() / 255.0, "n h w c -> n c h w")


def _decoded(which, rows, tokenizer):
    tiling = tiling_of_store(tokenizer, rows.store.manifest)
    ids = rows.store.ids(which).to(tokenizer.codebook.device)
    return torch.cat([tiling.decode(part).float().cpu() for part in ids.split(4)])


def _fitting(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Of a size that a page can show, labels without colours between."""
    scale = min(1.0, _LARGEST / max(size))
    shown = [max(1, round(side * scale)) for side in size]
    return F.interpolate(images, size=shown, mode="nearest-exact")
