"""CIFAR-10 and CIFAR-100 in their binary version: records of one or two label bytes and 3 x 32 x 32 pixels.

The Python version is made of pickles, which run whatever is in them: it is not read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from einops import rearrange
from PIL import Image

from seitpp.downstream.benchmarks.layout import Layout, SplitImages
from seitpp.downstream.benchmarks.official_files import lines_of
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.decoding.resize import Resize
from seitpp.tokenizers.sources.listing.left_out import LeftOut
from seitpp.tokenizers.sources.pixels import to_pixels

SIDE = 32
_PIXELS = 3 * SIDE * SIDE


@dataclass(frozen=True)
class CifarImages:
    """An ImageSource of records in files.

    Attributes:
        files: in order.
        counts: records of each.
        header: label bytes of a record; the last of them is the class.
        labels: class index of each record, (n,) int32.
        classes: class names.
        left_out: nothing.
    """

    files: list[Path]
    counts: list[int]
    header: int
    labels: np.ndarray
    classes: list[str]
    left_out: list[LeftOut] = field(default_factory=list)

    @cached_property
    def keys(self) -> list[str]:
        """File and number of each."""
        return [
            f"{file.name}/{row:05d}"
            for file, count in zip(self.files, self.counts, strict=True)
            for row in range(count)
        ]  # fmt: skip

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int, size: tuple[int, int], resize: Resize = "crop") -> np.ndarray:
        """Pixels of one image, see `read_image`."""
        file, row = self._place(index)
        with file.open("rb") as content:
            content.seek(row * (self.header + _PIXELS) + self.header)
            pixels = np.frombuffer(content.read(_PIXELS), np.uint8)
        if len(pixels) < _PIXELS:
            raise OSError(None, "it has become shorter since it was opened", str(file))
        image = Image.fromarray(rearrange(pixels, "(c h w) -> h w c", c=3, h=SIDE))
        return to_pixels(image, size, resize)

    def where(self, index: int) -> str:
        """File and number of one image."""
        file, row = self._place(index)
        return f"{file}, image {row}"

    def sizes(self, rows: Sequence[int]) -> np.ndarray:
        """Bytes of some records, (rows,) int64."""
        return np.full(len(rows), self.header + _PIXELS, np.int64)

    def _place(self, index):
        ends = np.cumsum(self.counts)
        place = int(np.searchsorted(ends, index, side="right"))
        return self.files[place], int(index - (ends[place] - self.counts[place]))


def read(train: Sequence[str], test: Sequence[str], names: str, header: int, root: Path) -> SplitImages:
    """The images of a folder with binary files and one of class names."""
    classes = lines_of(root / names)
    return SplitImages(*(_images([root / name for name in part], header, classes) for part in (train, test)))


def _images(files, header, classes):
    labels, counts = [], []
    for file in files:
        records, rest = divmod(file.stat().st_size, header + _PIXELS)
        if rest or not records:
            raise UserError(
                f"{file} is no whole number of records of {header + _PIXELS} bytes: it was cut off, unpack it again"
            )
        content = np.memmap(file, np.uint8, "r", shape=(records, header + _PIXELS))
        labels.append(np.array(content[:, header - 1], np.int32))
        counts.append(records)
    numbers = np.concatenate(labels)
    if numbers.max() >= len(classes):
        raise UserError(f"{files[0].parent} has images of class {numbers.max()}, of {len(classes)}: unpack it again")
    return CifarImages(list(files), counts, header, numbers, classes)


def _layout(train: list[str], test: list[str], names: str, header: int, archive: str, pickled: str) -> Layout:
    why = f"holds the Python version, which is pickled and is not read: get the binary version, {archive}"
    return Layout(
        parts=dict.fromkeys((*train, *test, names), archive), read=partial(read, train, test, names, header),
        refused={pickled: why},
    )  # fmt: skip


CIFAR10 = _layout(
    [f"data_batch_{number}.bin" for number in range(1, 6)], ["test_batch.bin"], "batches.meta.txt", 1,
    "cifar-10-binary.tar.gz", "cifar-10-batches-py",
)  # fmt: skip
CIFAR100 = _layout(
    ["train.bin"], ["test.bin"], "fine_label_names.txt", 2, "cifar-100-binary.tar.gz", "cifar-100-python"
)  # fmt: skip
