"""Windows put together again: logits of an image averaged where windows overlap, labels at the image's own size."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seitpp.downstream.segmentation.windows import SegmentationRows
from seitpp.tokenizers.segmentation.windowing import resize_mask

LogitsAt = Callable[[np.ndarray], Tensor]
"""Rows of a store, (b,) int64, to logits of their windows, (b, k, h, w) of any resolution."""


_LINES = 64
"""Lines of an image at its own size that are in memory at a time, for each class."""


class Stitch:
    """The logits of one image on the canvas of its windows: their sums, (k, height, width) float32, and counts.

    Args:
        classes: k.
        resized: (height, width) of the resized image, pixels.
        window: (height, width) of a window, pixels.
        device: where it lies.
    """

    def __init__(self, classes: int, resized: Sequence[int], window: tuple[int, int], device: torch.device | str):
        self.window = window
        self.sums = torch.zeros(classes, *resized, device=device)
        self.counts = torch.zeros(*resized, device=device)

    def add(self, logits: Tensor, top: int, left: int) -> None:
        """Add a window's logits, (k, h, w), enlarged to its pixels; what lies past the image's edge is left out."""
        enlarged = F.interpolate(logits[None].float(), size=self.window, mode="bilinear", align_corners=False)[0]
        part = self.sums[:, top : top + self.window[0], left : left + self.window[1]]
        part += enlarged[:, : part.shape[1], : part.shape[2]]
        self.counts[top : top + self.window[0], left : left + self.window[1]] += 1

    def labels(self, original: tuple[int, int], *, smooth: bool) -> np.ndarray:
        """The most likely class of each pixel of the image at its own size, (height, width) uint8.

        Args:
            original: (height, width) of the image.
            smooth: whether mean logits are brought to the own size, bilinear, as is usual, some lines at a time; else
                each pixel has the label of the resized image's pixel under its centre, as a truth of windows has.
        """
        means = self.sums / self.counts
        if not smooth:
            return resize_mask(means.argmax(dim=0).to(torch.uint8).cpu().numpy(), original)
        columns, parts = _between(means.shape[2], original[1], means), []
        for lines in _between(means.shape[1], original[0], means).split(_LINES):
            band = _lerp(means, lines, dim=1)
            parts.append(_lerp(band, columns, dim=2).argmax(dim=0).to(torch.uint8).cpu())
        return torch.cat(parts).numpy()


def label_maps(
    logits_at: LogitsAt, rows: SegmentationRows, images: Sequence[int], *, batch_size: int, device: torch.device | str
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (image, its labels at its own size, (height, width) uint8), one image in memory at a time.

    Args:
        logits_at: answers for windows; called for batches that go on from one image to the next.
        rows: SegmentationRows.
        images: which, counted from 0 in the store's order.
        batch_size: windows at a time.
        device: where images are put together.
    """
    order = [(image, int(row)) for image in images for row in rows.rows_of(image)]
    stitch, present = None, -1
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        logits = logits_at(np.array([row for _, row in part]))
        places = rows.windows[np.array([row for _, row in part])]
        for place, (image, _) in enumerate(part):
            if image != present:
                if stitch is not None:
                    yield present, stitch.labels(_own_size(rows, present), smooth=rows.keeps_truth)
                stitch = Stitch(logits.shape[1], places.resized[place].tolist(), rows.size, device)
                present = image
            assert stitch is not None
            stitch.add(logits[place], int(places.top[place]), int(places.left[place]))
    if stitch is not None:
        yield present, stitch.labels(_own_size(rows, present), smooth=rows.keeps_truth)


def _own_size(rows: SegmentationRows, image: int) -> tuple[int, int]:
    height, width = rows.windows.original[rows.bounds[image]].tolist()
    return height, width


def _between(side: int, wanted: int, like: Tensor) -> Tensor:
    """Where the centres of `wanted` pixels lie among those of `side`, (wanted,) float64, cut off at the outer ones."""
    places = (torch.arange(wanted, device=like.device, dtype=torch.float64) + 0.5) * (side / wanted) - 0.5
    return places.clamp(0, side - 1)


def _lerp(maps: Tensor, places: Tensor, *, dim: int) -> Tensor:
    """Linear interpolation of one axis at places between its pixels."""
    below = places.floor().long()
    above = (below + 1).clamp(max=maps.shape[dim] - 1)
    share = (places - below).to(maps.dtype)
    share = share[:, None] if dim == 1 else share
    return torch.lerp(maps.index_select(dim, below), maps.index_select(dim, above), share)
