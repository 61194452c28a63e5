"""The rows of a segmentation store: windows of images with their label maps, encoded in bounded memory."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Window:
    """A row that waits to be encoded.

    Attributes:
        place: the numbers of the column `window`.
        pixels: (3, height, width) uint8.
        mask: its label map as PNG.
        truth: that of the whole image at its own size, where the window is the image's first and it is kept.
    """

    place: tuple[int, ...]
    pixels: np.ndarray
    mask: bytes
    truth: bytes | None


def window_rows(
    images: SegmentationImages, tokenizer: Tokenizer, windowing: Windowing, *, tiles: bool | None = None,
    own_size: bool = False,
) -> StoreRows:  # fmt: skip
    """A row a window.

    Args:
        images: SegmentationImages.
        tokenizer: a Tokenizer.
        windowing: how images become windows.
        tiles: as for `tiling_of`.
        own_size: whether label maps of whole images are kept too, at the images' own size.
    Raises: UserError if the tokenizer can't encode such windows.
    """
    tiling = tiling_of(tokenizer, windowing.size, tiles=tiles)
    meaning = images.meaning

    def blocks(source: Any, rows: range, device: torch.device, threads: ThreadPoolExecutor, batch_size: int):
        return _blocks(source, rows, tiling, windowing, own_size, device, threads, batch_size)

    windows = {
        "size": list(windowing.size), "stride": list(windowing.stride), "short_side": windowing.short_side,
        "tile": list(tiling.tile),
    }  # fmt: skip
    return StoreRows(
        blocks=blocks,
        grid=tiling.grid,
        preprocessing={**tokenizer.preprocessing, "image_size": list(windowing.size), "resize": _RESIZED},
        images_per_shard=_IMAGES_PER_SHARD,
        targets=Targets.of(masks=[], windows=[], truths=[] if own_size else None),
        about={
            "windows": windows,
            "layout": images.layout,
            "mask_classes": meaning.classes,
            "mask_values": _told(meaning),
            "own_size": own_size,
        },
        manifest={"mask": {"classes": meaning.classes, "ignore": meaning.ignore}, "windows": windows},
    )


def _told(meaning) -> list[list[int]]:
    """[value, class or -1] of each value that annotations may have."""
    return [[value, int(meaning.numbers[value])] for value in np.flatnonzero(meaning.numbers >= -1).tolist()]


def _blocks(
    images: SegmentationImages, rows: range, tiling: Tiling, windowing: Windowing, own_size: bool,
    device: torch.device, threads: ThreadPoolExecutor, batch_size: int,
) -> Iterator[RowBlock]:  # fmt: skip
    """Encode the windows of a range of images; as many pixels a pass as `batch_size` of the tokenizer's own size."""
    own, whole = tiling.tokenizer.image_size, tiling.window
    at_once = max(1, batch_size * own[0] * own[1] // (whole[0] * whole[1]))
    waiting: list[Window] = []
    kept, broken = [], []
    for row, windows in _decoded(images, rows, windowing, own_size, threads):
        if isinstance(windows, str):
            broken.append((row, windows))
            continue
        waiting += windows
        kept.append(row)
        while len(waiting) >= at_once:
            yield _encoded(images, waiting[:at_once], tiling, own_size, device, kept, broken)
            waiting, kept, broken = waiting[at_once:], [], []
    if waiting or kept or broken:
        yield _encoded(images, waiting, tiling, own_size, device, kept, broken)


def _decoded(images, rows, windowing, own_size, threads) -> Iterator[tuple[int, list[Window] | str]]:
    """(image, its windows, or why it can't be decoded), in order, a few images ahead."""
    waiting = deque()
    try:
        for row in rows:
            waiting.append((row, threads.submit(_windows, images, row, windowing, own_size)))
            if len(waiting) > IMAGES_AHEAD:
                first, task = waiting.popleft()
                yield first, task.result()
        while waiting:
            first, task = waiting.popleft()
            yield first, task.result()
    finally:
        for _, task in waiting:
            task.cancel()


def _windows(images: SegmentationImages, row: int, windowing: Windowing, own_size: bool) -> list[Window] | str:
    """The windows of an image; why there are none, where it can't be decoded."""
    try:
        pixels, mask = images.read_pair(row)
        height, width = pixels.shape[:2]
        sizes = (*windowing.resized(height, width), height, width)
        whole = encode_mask(mask) if own_size else None
        return [
            Window(
                place=(row, *place, *sizes),
                pixels=rearrange(part, "h w c -> c h w"),
                mask=encode_mask(labels),
                truth=whole if place == (0, 0) else None,
            )
            for place, part, labels in windows_of(pixels, mask, windowing, ignore=images.meaning.ignore)
        ]
    except BrokenImage as error:
        return str(error)
    except MemoryError as error:  # of the image or of the machine: it ends the job, but is named
        raise UserError(f"{images.where(row)} needs more memory than there is: make it smaller") from error


def _encoded(images, windows, tiling, own_size, device, kept, broken) -> RowBlock:
    packed, places = None, [window.place for window in windows]
    if windows:
        gpu = device.type == "cuda"
        pixels = torch.from_numpy(np.stack([window.pixels for window in windows]))
        pixels = (pixels.pin_memory() if gpu else pixels).to(device, non_blocking=gpu)
        with torch.no_grad(), full_precision(device):
            packed = pack(tiling.encode(to_float(pixels)), tiling.tokenizer.codebook_size)
    return RowBlock(
        packed=packed,
        labels=[-1] * len(windows),
        keys=[f"{images.keys[place[0]]}#{place[1]},{place[2]}" for place in places],
        targets=Targets(
            masks=pa.array([window.mask for window in windows], MASK_TYPE),
            windows=window_column(np.array(places, np.int32).reshape(-1, 7)),
            truths=pa.array([window.truth for window in windows], MASK_TYPE) if own_size else None,
        ),
        kept=kept,
        broken=broken,
    )
