"""Images inside tar files, read in any order: an index of places made by one pass over the headers.

A sample of the WebDataset convention is all members with one name up to the first dot of the base name: `00012.jpg`
beside `00012.cls`, which holds the class number. A name may have further dots: `a.v2.jpg` belongs to `a.v2.cls` where
there is one. Tars without any `.cls` hold class folders, or unlabelled images.
"""

import io
import os
import posixpath
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.decoding.formats import ending_of, is_image_name
from seitpp.tokenizers.sources.decoding.resize import Resize
from seitpp.tokenizers.sources.labels import label_by_name, label_by_number
from seitpp.tokenizers.sources.listing.left_out import LeftOut, counted
from seitpp.tokenizers.sources.listing.names import is_hidden, refuse_split, require_utf8
from seitpp.tokenizers.sources.pixels import image_faults, read_image

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
        left_out: members that give no image.
    """

    tars: list
    keys: list
    labels: np.ndarray
    classes: list
    places: np.ndarray
    left_out: list[LeftOut] = field(default_factory=list)

    def __len__(self):
        return len(self.keys)

    def read(self, index: int, size: tuple[int, int], resize: Resize = "crop") -> np.ndarray:
        """Pixels of one image, see `read_image`."""
        tar, offset, length = self.places[index].tolist()
        with image_faults():
            return read_image(io.BytesIO(_bytes_at(self.tars[tar], offset, length)), size, resize)

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


def open_tars(
    paths: Sequence[str | Path], classes: Sequence[str] | None = None, beside: Sequence[LeftOut] = ()
) -> "TarImages":
    """Index tar files.

    Args:
        paths: the files, sorted.
        classes: class names of another store whose indices are to be kept; None: those found.
        beside: what was left out where they lie.
    Returns: TarImages.
    Raises: UserError for a file that is missing, compressed, broken or no tar, and where no image is found; if the
        class folders are the parts of a split data set.
    """
    stems = _stems(paths)
    names, places, class_files, left_out = [], [], {}, list(beside)
    for tar, path in enumerate(paths):
        prefix = "" if len(paths) == 1 else f"{stems[tar]}/"
        members, problems = _members(Path(path))
        labels = {name.removesuffix(".cls"): place for name, place in members.items() if name.endswith(".cls")}
        images, others = _images_of(members, labels)
        names += [(tar, name) for name in images]
        places += [(tar, *members[name]) for name in images]
        class_files |= {(tar, name): place for name, place in labels.items()}
        left_out += [LeftOut(f"{prefix}{name}", why) for name, why in (problems | others).items()]
    if not names:
        found = f", but {counted(left_out)}" if left_out else ""
        raise UserError(f"{paths[0]}{' and the others' * (len(paths) > 1)}: no images{found}")
    if class_files:
        labels, classes = label_by_number(_numbers(paths, names, class_files), None, classes, paths[0])
    else:
        inner = _without_common_folders([name for _, name in names])
        folders = [name.split("/", 1)[0] if "/" in name else None for name in inner]
        refuse_split(inner, sorted({name for name in folders if name is not None}), classes, paths[0])
        labels, classes = label_by_name(folders, classes, paths[0])
    keys = [name if len(paths) == 1 else f"{stems[tar]}/{name}" for tar, name in names]
    require_utf8(keys, paths[0])
    return TarImages([Path(path) for path in paths], keys, labels, classes, np.array(places, np.int64), left_out)


def _images_of(members, labels):
    """(names of the images, {name: why} of what else there is) of one tar.

    Where there are class numbers, members whose names are longer than the sample's (`00012.seg.png`) are other parts of
    it: no image, unless they have a number of their own or are the only image of the sample.
    """
    images, others = [], {}
    for name in members:
        if is_image_name(name):
            images.append(name)
        elif not name.endswith(".cls"):
            others[name] = f"of unknown format {ending_of(name)}" if ending_of(name) else "without an ending"
    if not labels:
        return images, others
    stems, parts = {_stem(name) for name in images}, Counter(_sample(name) for name in images)
    others = {name: why for name, why in others.items() if _sample(name) not in parts}  # a caption is part of a sample
    for name in images:
        stem, sample = _stem(name), _sample(name)
        if stem != sample and stem not in labels and (sample in stems or (sample in labels and parts[sample] > 1)):
            others[name] = "another image of a sample"
    return [name for name in images if name not in others], others


def _members(path):
    """({name: (first byte, size)} of the files in a tar, {name: why} of what is no file of use).

    Of two with one name the later one counts, as tar has it. A link inside the tar is the file that it leads to.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for, for ever
        raise UserError(f"{path} is no file but a folder, pipe or device: name a tar file")
    try:
        with path.open("rb") as file:
            start = file.read(6)
            for magic, command in _COMPRESSED.items():
                if start.startswith(magic):
                    raise UserError(f"{path} is compressed, so it can't be read in any order: {command} it first")
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                found, links, problems = {}, {}, {}
                while (member := tar.next()) is not None:
                    tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue] - or all headers of all images stay in memory
                    name = member.name.removeprefix("./")
                    if any(is_hidden(part) for part in name.split("/") if part != "."):
                        problems[name] = "hidden or system file"
                    elif member.isreg():
                        found[name] = (member.offset_data, member.size)
                    elif member.islnk() or member.issym():
                        folder = "" if member.islnk() else posixpath.dirname(name)
                        links[name] = posixpath.normpath(posixpath.join(folder, member.linkname))
                    elif not member.isdir():
                        problems[name] = "no regular file"
                _check_end(path, file, tar.offset)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: check --images") from error
    except tarfile.TarError as error:
        raise UserError(f"{path} is no tar, or cut off ({error}): make or fetch it again") from error
    targets = {name: found[target] for name, target in links.items() if target in found}
    return found | targets, problems | dict.fromkeys(links.keys() - targets.keys(), "broken link")


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


def _stem(name):
    """A name up to the last dot."""
    return name.rpartition(".")[0]


def _sample(name):
    """A name up to the first dot after its folders."""
    folders, slash, base = name.rpartition("/")
    return f"{folders}{slash}{base.split('.')[0]}"


def _numbers(paths, names, class_files):
    """The numbers in .cls members, -1 for images without one."""
    numbers = np.full(len(names), -1, np.int64)
    for row, (tar, name) in enumerate(names):
        place = class_files.get((tar, _stem(name)), class_files.get((tar, _sample(name))))
        if place is not None:
            text = _bytes_at(paths[tar], *place).decode(errors="replace").strip()
            if not text.removeprefix("-").isdecimal():
                raise UserError(f"{paths[tar]}: the .cls beside {name} holds {text[:20]!r}, expected a number")
            numbers[row] = int(text)
    return numbers


def _without_common_folders(names):
    """Names without the folders around everything, which are no classes."""
    parts = [name.split("/") for name in names]
    while len({each[0] for each in parts}) == 1 and all(len(each) > 2 for each in parts):
        parts = [each[1:] for each in parts]
    return ["/".join(each) for each in parts]


def _stems(paths):
    """A name for each tar: its own without the ending, or with as many folders as tell it from the others."""
    parts = [Path(path).absolute().with_suffix("").parts for path in paths]
    depth = next(depth for depth in range(1, 99) if len({each[-depth:] for each in parts}) == len(parts))
    return ["/".join(each[-depth:]) for each in parts]
