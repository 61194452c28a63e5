"""Images inside tar files, read in any order: an index of places made by one pass over the headers.

A sample of the WebDataset convention is all members with one name up to the first dot of the base name: `00012.jpg`
beside `00012.cls`, which holds the class number. Tars without any `.cls` hold class folders, or unlabelled images.
"""

import io
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.labels import label_by_name, label_by_number
from seitpp.tokenizers.sources.pixels import EXTENSIONS, read_image

BLOCK = 512
_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
_ENDINGS = (".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz", ".tar.zst")


@dataclass(frozen=True)
class TarImages:
    """Images in tar files, tar after tar, each in the order of its members.

    Attributes:
        tars: paths of the files.
        keys: name of each image's member; with several tars, after the tar's name.
        labels: class index of each, -1 where unknown, (n,) int32.
        classes: class names.
        places: tar, first byte and size in bytes of each, (n, 3) int64.
    """

    tars: list
    keys: list
    labels: np.ndarray
    classes: list
    places: np.ndarray

    def __len__(self):
        return len(self.keys)

    def read(self, index: int, size: tuple[int, int]) -> np.ndarray:
        """Pixels of one image, see `read_image`."""
        tar, offset, length = self.places[index].tolist()
        return read_image(io.BytesIO(_bytes_at(self.tars[tar], offset, length)), size)

    def where(self, index: int) -> str:
        """The tar and the member of one image, for messages."""
        key = self.keys[index]
        return f"{self.tars[self.places[index][0]]}, {key.split('/', 1)[1] if len(self.tars) > 1 else key}"

    def sizes(self, rows: Sequence[int]) -> np.ndarray:
        """Bytes of some images' members, (rows,) int64."""
        return self.places[np.asarray(rows, np.int64), 2]


def is_tar_name(name: str) -> bool:
    """Whether a file's name says that it is a tar, compressed or not."""
    return name.lower().endswith(_ENDINGS)


def open_tars(paths: Sequence[str | Path], classes: Sequence[str] | None = None) -> "TarImages":
    """Index tar files.

    Args:
        paths: the files, sorted.
        classes: class names of another store whose indices are to be kept; None: those found.
    Returns: TarImages.
    Raises: UserError for a file that is missing, compressed, broken or no tar, and where no image is found.
    """
    members = [_members(Path(path)) for path in paths]
    names, places, class_files = [], [], {}
    for tar, found in enumerate(members):
        for name, (offset, length) in found.items():
            if name.endswith(".cls"):
                class_files[tar, _sample(name)] = (offset, length)
            elif Path(name).suffix.lower() in EXTENSIONS:
                names.append((tar, name))
                places.append((tar, offset, length))
    if class_files:  # then `00012.seg.png` is no image but another part of the sample
        chosen = [row for row, (_, name) in enumerate(names) if _extension(name) in EXTENSIONS]
        names, places = [names[row] for row in chosen], [places[row] for row in chosen]
    if not names:
        raise UserError(
            f"{paths[0]}{' and the others' * (len(paths) > 1)}: no images ({', '.join(sorted(EXTENSIONS))})"
        )
    if class_files:
        labels, classes = label_by_number(_numbers(paths, names, class_files), None, classes, paths[0])
    else:
        labels, classes = label_by_name(_class_folders([name for _, name in names]), classes, paths[0])
    stems = _stems(paths)
    keys = [name if len(paths) == 1 else f"{stems[tar]}/{name}" for tar, name in names]
    return TarImages([Path(path) for path in paths], keys, labels, classes, np.array(places, np.int64))


def _members(path):
    """{name: (first byte, size)} of the files in a tar; of two with one name, the later one, as tar has it."""
    try:
        with path.open("rb") as file:
            start = file.read(6)
            for magic, command in _COMPRESSED.items():
                if start.startswith(magic):
                    raise UserError(f"{path} is compressed, so it can't be read in any order: {command} it first")
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                found = {}
                while (member := tar.next()) is not None:
                    tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue] - or all headers of all images stay in memory
                    if member.isreg():
                        found[member.name.removeprefix("./")] = (member.offset_data, member.size)
                _check_end(path, file, tar.offset)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: check --images") from error
    except tarfile.TarError as error:
        raise UserError(f"{path} is no tar, or cut off ({error}): make or fetch it again") from error
    return found


def _check_end(path, file, offset):
    """Refuse a broken header that Python takes for the end: a true end is a block of zeros, or no more bytes."""
    file.seek(offset)
    if file.read(BLOCK).strip(b"\0"):
        raise UserError(f"{path} is broken at byte {offset}: make or fetch it again")


def _bytes_at(path, offset, length):
    """Bytes of a file by a positional read, which needs no lock between threads, nor a file that stays open."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        content = os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)
    if len(content) < length:
        raise OSError(f"{path} was cut off")
    return content


def _sample(name):
    folder, _, base = name.rpartition("/")
    return f"{folder}/{base.split('.')[0]}"


def _extension(name):
    return "." + name.rpartition("/")[2].partition(".")[2].lower()


def _numbers(paths, names, class_files):
    """The numbers in .cls members, -1 for images without one."""
    numbers = np.full(len(names), -1, np.int64)
    for row, (tar, name) in enumerate(names):
        place = class_files.get((tar, _sample(name)))
        if place is not None:
            text = _bytes_at(paths[tar], *place).decode(errors="replace").strip()
            if not text.removeprefix("-").isdecimal():
                raise UserError(f"{paths[tar]}: the .cls beside {name} holds {text[:20]!r}, expected a number")
            numbers[row] = int(text)
    return numbers


def _class_folders(names):
    """The first folder of each name, None without one; folders around everything are no class."""
    parts = [name.split("/") for name in names]
    while len({each[0] for each in parts}) == 1 and all(len(each) > 2 for each in parts):
        parts = [each[1:] for each in parts]
    return [each[0] if len(each) > 1 else None for each in parts]


def _stems(paths):
    """A name for each tar: its own without the ending, or with as many folders as tell it from the others."""
    parts = [Path(path).absolute().with_suffix("").parts for path in paths]
    depth = next(depth for depth in range(1, 99) if len({each[-depth:] for each in parts}) == len(parts))
    return ["/".join(each[-depth:]) for each in parts]
