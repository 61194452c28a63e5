"""Folders of images: which there are, their labels, and batches of their pixels."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.labels import label_by_name
from seitpp.tokenizers.sources.pixels import DECODING_ERRORS, EXTENSIONS, quiet_decoding, read_image
from seitpp.tokens.order.permutation import permute

if TYPE_CHECKING:
    from seitpp.tokenizers.sources.source import ImageSource
from seitpp.tokens.order.sample_order import SampleOrder


@dataclass(frozen=True)
class ImageFolder:
    """A folder of class folders. Images that lie directly in it are unlabelled.

    Attributes:
        folder: the root.
        keys: paths relative to it, posix style, sorted.
        labels: class index of each, -1 for unlabelled ones, (n,) int32.
        classes: class names, sorted.
    """

    folder: Path
    keys: list
    labels: np.ndarray
    classes: list

    def __len__(self):
        return len(self.keys)

    def read(self, index: int, size: tuple[int, int]) -> np.ndarray:
        """Pixels of one image, see `read_image`."""
        return read_image(self.folder / self.keys[index], size)

    def where(self, index: int) -> str:
        """The file of one image, for messages."""
        return str(self.folder / self.keys[index])

    def sizes(self, rows: Sequence[int]) -> np.ndarray:
        """Bytes of some files, (rows,) int64."""
        return np.array([(self.folder / self.keys[row]).stat().st_size for row in rows], np.int64)


def open_image_folder(folder: str | Path, classes: Sequence[str] | None = None) -> "ImageFolder":
    """List a folder of images.

    Args:
        folder: the root.
        classes: class names of another folder whose indices are to be kept; None: those of this folder.
    Raises: UserError if there is no such folder, no image in it, or a class that `classes` lacks.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder of images: give one with a folder for each class in it")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
    if not paths:
        raise UserError(f"{folder} holds no images ({', '.join(sorted(EXTENSIONS))}): expected one folder a class")
    keys = [path.relative_to(folder).as_posix() for path in paths]
    names = [key.split("/")[0] if "/" in key else None for key in keys]
    return ImageFolder(folder, keys, *label_by_name(names, classes, folder))


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 pixels to float32 in [0, 1]."""
    return images.to(torch.float32) / 255.0


class ImageBatches:
    """Shuffled batches of pixels as a function of the step, for the stages that train on images.

    The same order as TrainingBatches. Small sets are kept in memory once decoded; larger ones are decoded by threads.

    Args:
        images: an ImageSource.
        rows: indices to use, (n,) int64.
        size: (height, width).
        batch_size, seed, device, accum_iter, rank, world_size: as for TrainingBatches.
        cache_bytes: sets of fewer decoded bytes are kept in memory.
    """

    def __init__(
        self,
        images: "ImageSource",
        rows: np.ndarray,
        size: tuple[int, int],
        batch_size: int,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        accum_iter: int = 1,
        rank: int = 0,
        world_size: int = 1,
        cache_bytes: int = 1 << 30,
    ):
        self.images = images
        self.rows = np.asarray(rows)
        self.size = size
        self.device = torch.device(device)
        self.order = SampleOrder(
            length=len(self.rows), batch_size=batch_size, seed=seed, accum_iter=accum_iter, rank=rank,
            world_size=world_size,
        )  # fmt: skip
        self.cache = {} if len(self.rows) * 3 * size[0] * size[1] < cache_bytes else None
        self.threads = ThreadPoolExecutor(max_workers=4)

    def __call__(self, step, micro=0):
        """(pixels (b, 3, height, width) float32 in [0, 1], positions (b,) int64) for a step and micro-step."""
        chosen, positions = self.order.at(step, micro)
        pixels = np.stack(list(self.threads.map(self._read, self.rows[chosen])))
        return to_float(torch.from_numpy(pixels).to(self.device)), torch.from_numpy(positions).to(self.device)

    def _read(self, index):
        if self.cache is None:
            return read_or_explain(self.images, index, self.size)
        if index not in self.cache:
            self.cache[index] = read_or_explain(self.images, index, self.size)
        return self.cache[index]


def read_or_explain(images: "ImageSource", index: int, size: tuple[int, int]) -> np.ndarray:
    """`images.read`, with a UserError that names the file where it can't be decoded."""
    try:
        return images.read(index, size)
    except DECODING_ERRORS as error:
        raise UserError(f"{images.where(index)} can't be decoded ({error}): remove or mend it") from error


def read_all(images: "ImageSource", rows: Iterable[int], size: tuple[int, int], threads: int = 4) -> torch.Tensor:
    """Decode rows of an ImageSource at once: (n, 3, height, width) float32 in [0, 1]."""
    with quiet_decoding(), ThreadPoolExecutor(max_workers=threads) as pool:
        pixels = list(pool.map(partial(read_or_explain, images, size=size), rows))
    return to_float(torch.from_numpy(np.stack(pixels)))


def split_rows(count: int, held_out: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(training rows, held-out rows) of `count` images; at least one image on both sides.

    Raises: UserError if there are fewer than two.
    """
    if count < 2:
        raise UserError(f"there is {count} image, too few to train on some and to hold some out: give --images more")
    order = permute(range(count), count, seed=seed, stream="validation images")
    held = min(max(1, round(count * held_out)), count - 1)
    return order[held:], order[:held]
