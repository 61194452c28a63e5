"""The rows of a segmentation store: windows of images with their label maps, encoded in bounded memory."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from einops import rearrange

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.encoding import full_precision
from seitpp.tokenizers.segmentation.images import SegmentationImages
from seitpp.tokenizers.segmentation.tiles import Tiling, tiling_of
from seitpp.tokenizers.segmentation.windowing import Windowing, windows_of
from seitpp.tokenizers.shard_rows import RowBlock, StoreRows
from seitpp.tokenizers.sources.images import to_float
from seitpp.tokenizers.sources.pixels import BrokenImage
from seitpp.tokenizers.tokenizer import Tokenizer
from seitpp.tokens.codec import pack
from seitpp.tokens.format.masks import encode_mask
from seitpp.tokens.format.targets import MASK_TYPE, Targets
from seitpp.tokens.format.windows import window_column

IMAGES_AHEAD = 16
"""Images that are decoded or being decoded beside those in use: what bounds the memory."""
_IMAGES_PER_SHARD = 2048
"""As many windows of ADE20K, with their masks, take some 40 MB."""
_RESIZED = "bicubic, short side, windows"

Window = tuple[tuple[int, ...], np.ndarray, bytes]
"""(numbers of its place, pixels (3, height, width) uint8, its label map as PNG)"""


def window_rows(
    images: SegmentationImages, tokenizer: Tokenizer, windowing: Windowing, *, tiles: bool | None = None
) -> StoreRows:
    """A row a window.

    Args:
        images: SegmentationImages.
        tokenizer: a Tokenizer.
        windowing: how images become windows.
        tiles: as for `tiling_of`.
    Raises: UserError if the tokenizer can't encode such windows.
    """
    tiling = tiling_of(tokenizer, windowing.size, tiles=tiles)
    meaning = images.meaning

    def blocks(source: Any, rows: range, device: torch.device, threads: ThreadPoolExecutor, batch_size: int):
        return _blocks(source, rows, tiling, windowing, device, threads, batch_size)

    windows = {
        "size": list(windowing.size), "stride": list(windowing.stride), "short_side": windowing.short_side,
        "tile": list(tiling.tile),
    }  # fmt: skip
    return StoreRows(
        blocks=blocks,
        grid=tiling.grid,
        preprocessing={**tokenizer.preprocessing, "image_size": list(windowing.size), "resize": _RESIZED},
        images_per_shard=_IMAGES_PER_SHARD,
        targets=Targets.of(masks=[], windows=[]),
        about={
            "windows": windows,
            "layout": images.layout,
            "mask_classes": meaning.classes,
            "mask_values": _told(meaning),
        },
        manifest={"mask": {"classes": meaning.classes, "ignore": meaning.ignore}, "windows": windows},
    )


def _told(meaning) -> list[list[int]]:
    """[value, class or -1] of each value that annotations may have."""
    return [[value, int(meaning.numbers[value])] for value in np.flatnonzero(meaning.numbers >= -1).tolist()]


def _blocks(
    images: SegmentationImages, rows: range, tiling: Tiling, windowing: Windowing, device: torch.device,
    threads: ThreadPoolExecutor, batch_size: int,
) -> Iterator[RowBlock]:  # fmt: skip
    """Encode the windows of a range of images; as many pixels a pass as `batch_size` of the tokenizer's own size."""
    own, whole = tiling.tokenizer.image_size, tiling.window
    at_once = max(1, batch_size * own[0] * own[1] // (whole[0] * whole[1]))
    waiting: list[tuple[int, Window]] = []
    kept, broken = [], []
    for row, windows in _decoded(images, rows, windowing, threads):
        if isinstance(windows, str):
            broken.append((row, windows))
            continue
        waiting += [(row, window) for window in windows]
        kept.append(row)
        while len(waiting) >= at_once:
            yield _encoded(images, waiting[:at_once], tiling, device, kept, broken)
            waiting, kept, broken = waiting[at_once:], [], []
    if waiting or kept or broken:
        yield _encoded(images, waiting, tiling, device, kept, broken)


def _decoded(images, rows, windowing, threads) -> Iterator[tuple[int, list[Window] | str]]:
    """(image, its windows, or why it can't be decoded), in order, a few images ahead."""
    waiting = deque()
    try:
        for row in rows:
            waiting.append((row, threads.submit(_windows, images, row, windowing)))
            if len(waiting) > IMAGES_AHEAD:
                first, task = waiting.popleft()
                yield first, task.result()
        while waiting:
            first, task = waiting.popleft()
            yield first, task.result()
    finally:
        for _, task in waiting:
            task.cancel()


def _windows(images: SegmentationImages, row: int, windowing: Windowing) -> list[Window] | str:
    """The windows of an image; why there are none, where it can't be decoded."""
    try:
        pixels, mask = images.read_pair(row)
        height, width = pixels.shape[:2]
        sizes = (*windowing.resized(height, width), height, width)
        return [
            ((row, *place, *sizes), rearrange(part, "h w c -> c h w"), encode_mask(labels))
            for place, part, labels in windows_of(pixels, mask, windowing, ignore=images.meaning.ignore)
        ]
    except BrokenImage as error:
        return str(error)
    except MemoryError as error:  # of the image or of the machine: it ends the job, but is named
        raise UserError(f"{images.where(row)} needs more memory than there is: make it smaller") from error


def _encoded(images, windows, tiling, device, kept, broken) -> RowBlock:
    packed, places = None, [place for _, (place, _, _) in windows]
    if windows:
        gpu = device.type == "cuda"
        pixels = torch.from_numpy(np.stack([pixels for _, (_, pixels, _) in windows]))
        pixels = (pixels.pin_memory() if gpu else pixels).to(device, non_blocking=gpu)
        with torch.no_grad(), full_precision(device):
            packed = pack(tiling.encode(to_float(pixels)), tiling.tokenizer.codebook_size)
    return RowBlock(
        packed=packed,
        labels=[-1] * len(windows),
        keys=[f"{images.keys[row]}#{place[1]},{place[2]}" for row, (place, _, _) in windows],
        targets=Targets(
            masks=pa.array([mask for _, (_, _, mask) in windows], MASK_TYPE),
            windows=window_column(np.array(places, np.int32).reshape(-1, 7)),
        ),
        kept=kept,
        broken=broken,
    )
