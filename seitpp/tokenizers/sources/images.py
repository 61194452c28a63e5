"""Folders of images: which there are, their labels, and batches of their pixels."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.decoding.resize import Resize
from seitpp.tokenizers.sources.labels import label_by_name
from seitpp.tokenizers.sources.listing.folder import list_images
from seitpp.tokenizers.sources.listing.left_out import LeftOut, sentence, write_skipped
from seitpp.tokenizers.sources.listing.names import refuse_split
from seitpp.tokenizers.sources.pixels import quiet_decoding, read_image
from seitpp.tokenizers.sources.tolerant_reader import TolerantReader
from seitpp.tokens.order.permutation import permute

if TYPE_CHECKING:
    from seitpp.tokenizers.sources.source import ImageSource
from seitpp.tokens.order.sample_order import SampleOrder


@dataclass(frozen=True)
class ImageFolder:
    """A folder of class folders. Images that lie above the level of these are unlabelled.

    Attributes:
        folder: the root.
        keys: paths relative to it, posix style, sorted.
        labels: class index of each, -1 for unlabelled ones, (n,) int32.
        classes: class names, sorted.
        left_out: what else the folder holds.
        notices: what a user might not expect of the classes, lines.
    """

    folder: Path
    keys: list
    labels: np.ndarray
    classes: list
    left_out: list[LeftOut] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def __len__(self):
        return len(self.keys)

    def read(self, index: int, size: tuple[int, int], resize: Resize = "crop") -> np.ndarray:
        """Pixels of one image, see `read_image`."""
        return read_image(self.folder / self.keys[index], size, resize)

    def where(self, index: int) -> str:
        """The file of one image, for messages."""
        return str(self.folder / self.keys[index])

    def sizes(self, rows: Sequence[int]) -> np.ndarray:
        """Bytes of some files, (rows,) int64."""
        return np.array([(self.folder / self.keys[row]).stat().st_size for row in rows], np.int64)


def open_image_folder(
    folder: str | Path, classes: Sequence[str] | None = None, *, class_level: int | None = 0
) -> "ImageFolder":
    """List a folder of images.

    Args:
        folder: the root.
        classes: class names of another folder whose indices are to be kept; None: those of this folder.
        class_level: which of the folders above an image is its class: 0 the first below the root, -1 the last; None:
            none is.
    Raises: UserError if there is no such folder, no image in it, or a class that `classes` lacks; if a folder in it
        can't be read; if its folders are the parts of a split data set; if no image lies so deep.
    """
    folder = Path(folder)
    listing = list_images(folder)
    if class_level is None:
        return ImageFolder(folder, listing.keys, np.full(len(listing.keys), -1, np.int32), [], listing.left_out)
    names = [folder_at(key, class_level) for key in listing.keys]
    found = sorted({name for name in names if name is not None})
    if class_level == 0:
        refuse_split(listing.keys, found, classes, folder)
    elif not found:
        raise UserError(f"no image of {folder} lies in so many folders: --class_level {class_level} is too deep")
    labels = label_by_name(names, classes, folder)
    notices = _notices(folder, listing.keys, names, class_level)
    return ImageFolder(folder, listing.keys, *labels, listing.left_out, notices)


def folder_at(key: str, level: int) -> str | None:
    """The folder of a path at a level: 0 is the first, -1 the last; None where it has no such folder."""
    folders = key.split("/")[:-1]
    return folders[level] if -len(folders) <= level < len(folders) else None


def _notices(folder, keys, names, level):
    if level == 0 and len(set(names)) == 1 and all(key.count("/") > 1 for key in keys):
        return [f"{folder} has one class, {names[0]}; are the folders in it the classes? --class_level 1"]
    above = [key for key, name in zip(keys, names, strict=True) if name is None and "/" in key]
    if above:
        return [
            f"{folder}: {len(above):,} of {len(keys):,} images, the first {above[0]}, are unlabelled: in too few "
            f"folders for --class_level {level}"
        ]
    return []


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 pixels to float32 in [0, 1]."""
    return images.to(torch.float32) / 255.0


class ImageBatches:
    """Shuffled batches of pixels as a function of the step, for the stages that train on images.

    The same order as TrainingBatches. Small sets are kept in memory once decoded; larger ones are decoded by threads.
    An image that can't be decoded is replaced by the next of `rows`, as far as the reader goes on without it.

    Args:
        reader: of an ImageSource.
        rows: indices to use, (n,) int64.
        batch_size, seed, device, accum_iter, rank, world_size: as for TrainingBatches.
        cache_bytes: sets of fewer decoded bytes are kept in memory.
    """

    def __init__(
        self,
        reader: TolerantReader,
        rows: np.ndarray,
        batch_size: int,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        accum_iter: int = 1,
        rank: int = 0,
        world_size: int = 1,
        cache_bytes: int = 1 << 30,
    ):
        self.reader = reader
        self.rows = np.asarray(rows)
        self.device = torch.device(device)
        self.order = SampleOrder(
            length=len(self.rows), batch_size=batch_size, seed=seed, accum_iter=accum_iter, rank=rank,
            world_size=world_size,
        )  # fmt: skip
        self.cache = {} if len(self.rows) * 3 * reader.size[0] * reader.size[1] < cache_bytes else None
        self.threads = ThreadPoolExecutor(max_workers=4)

    def __call__(self, step, micro=0):
        """(pixels (b, 3, height, width) float32 in [0, 1], positions (b,) int64) for a step and micro-step."""
        chosen, positions = self.order.at(step, micro)
        pixels = np.stack(list(self.threads.map(self._read, chosen.tolist())))
        return to_float(torch.from_numpy(pixels).to(self.device)), torch.from_numpy(positions).to(self.device)

    def _read(self, place):
        if self.cache is None:
            return self.reader.read_one_of(self.rows, place)[1]
        if place not in self.cache:
            self.cache[place] = self.reader.read_one_of(self.rows, place)[1]
        return self.cache[place]


def read_all(
    images: "ImageSource", rows: Iterable[int], size: tuple[int, int], resize: Resize = "crop"
) -> torch.Tensor:
    """Decode rows of an ImageSource at once: (n, 3, height, width) float32 in [0, 1].

    Raises: UserError that names the first that can't be decoded.
    """
    return read_rows(TolerantReader(images, size, resize), rows)


def read_rows(reader: TolerantReader, rows: Iterable[int], threads: int = 4) -> torch.Tensor:
    """Decode rows at once, those that can be: (n, 3, height, width) float32 in [0, 1]."""
    with quiet_decoding(), ThreadPoolExecutor(max_workers=threads) as pool:
        pixels = [each for each in pool.map(reader.read, (int(row) for row in rows)) if each is not None]
    if not pixels:
        raise UserError(f"{reader.left_out[-1].file} and the others can't be decoded: mend them")
    return to_float(torch.from_numpy(np.stack(pixels)))


def say_left_out(folder: Path, reader: TolerantReader) -> None:
    """Print what a training was done without, where there is such, and list it in skipped.csv of its run's folder.

    Of images that can't be decoded these are those that this process has met.
    """
    if left_out := reader.left_out:
        table = folder / "skipped.csv"
        write_skipped(table, left_out)
        print(f"{folder}: {len(reader.images)} images{sentence(left_out, table)}")


def split_rows(count: int, held_out: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(training rows, held-out rows) of `count` images; at least one image on both sides.

    Raises: UserError if there are fewer than two.
    """
    if count < 2:
        raise UserError(f"there is {count} image, too few to train on some and to hold some out: give --images more")
    order = permute(range(count), count, seed=seed, stream="validation images")
    held = min(max(1, round(count * held_out)), count - 1)
    return order[held:], order[:held]
