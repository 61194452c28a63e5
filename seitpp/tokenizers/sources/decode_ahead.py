"""Batches of decoded images, made by threads while the batch before is encoded."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.decoding.resize import Resize
from seitpp.tokenizers.sources.pixels import BrokenImage
from seitpp.tokenizers.sources.source import ImageSource

AHEAD = 2
"""Batches that are decoded or being decoded beside the one in use: what bounds the memory."""
IMAGES_PER_TASK = 8
"""Images that a thread takes at a time; handing over single ones costs more than decoding small images."""


def decoded_batches(
    images: ImageSource,
    rows: range,
    size: tuple[int, int],
    batch_size: int,
    threads: ThreadPoolExecutor,
    *,
    resize: Resize = "crop",
    pin_memory: bool = False,
) -> Iterator[tuple[torch.Tensor, list[int], list[tuple[int, str]]]]:
    """Decode rows in order.

    Args:
        images: an ImageSource.
        rows: range of its rows.
        size: (height, width) of the pixels.
        batch_size: rows a batch.
        threads: a ThreadPoolExecutor.
        resize: what is done with images of another shape.
        pin_memory: whether the pixels lie in pinned memory, from which copies to a GPU don't wait.
    Yields: (pixels (b, 3, height, width) uint8 tensor, rows that they are of, [(row, reason) that can't be decoded]).
    Raises: OSError where not the image but reading it failed: the disk may give it the next time.
    """
    waiting = deque()
    try:
        for start in range(0, len(rows), batch_size):
            waiting.append(_submit(images, rows[start : start + batch_size], size, resize, threads, pin_memory))
            if len(waiting) > AHEAD:
                yield _collect(*waiting.popleft())
        while waiting:
            yield _collect(*waiting.popleft())
    finally:
        for _, _, tasks in waiting:
            for task in tasks:
                task.cancel()


def _submit(images, rows, size, resize, threads, pin_memory):
    pixels = torch.empty((len(rows), 3, *size), dtype=torch.uint8, pin_memory=pin_memory)
    starts = range(0, len(rows), IMAGES_PER_TASK)
    parts = [slice(start, start + IMAGES_PER_TASK) for start in starts]
    tasks = [threads.submit(_decode, images, rows[part], size, resize, pixels[part].numpy()) for part in parts]
    return rows, pixels, tasks


def _decode(images, rows, size, resize, pixels):
    """Fill `pixels`; returns the reason for each row that can't be decoded, None for the others."""
    reasons = []
    for place, row in enumerate(rows):
        reason = None
        try:
            pixels[place] = images.read(row, size, resize)
        except BrokenImage as error:
            reason = str(error)
        except MemoryError as error:  # of the image or of the machine: it ends the job, but is named
            raise UserError(f"{images.where(row)} needs more memory than there is: make it smaller") from error
        reasons.append(reason)
    return reasons


def _collect(rows, pixels, tasks):
    reasons = [reason for task in tasks for reason in task.result()]
    skipped = [(row, reason) for row, reason in zip(rows, reasons, strict=True) if reason is not None]
    if skipped:
        kept = np.array([reason is None for reason in reasons])
        return pixels[torch.from_numpy(kept)], [row for row, keep in zip(rows, kept, strict=True) if keep], skipped
    return pixels, list(rows), skipped
