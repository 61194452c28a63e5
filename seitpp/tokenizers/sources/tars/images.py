"""Images inside tar files, read in any order: an index of places made by one pass over the headers.

A sample of the WebDataset convention is all members with one name up to the first dot of the base name: `00012.jpg`
beside `00012.cls`, which holds the class number. A name may have further dots: `a.v2.jpg` belongs to `a.v2.cls` where
there is one. Tars without any `.cls` hold class folders, or unlabelled images.
"""

import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.decoding.formats import ending_of, is_image_name
from seitpp.tokenizers.sources.decoding.resize import Resize
from seitpp.tokenizers.sources.labels import label_by_name, label_by_number
from seitpp.tokenizers.sources.listing.left_out import LeftOut, counted
from seitpp.tokenizers.sources.listing.names import refuse_split, require_utf8
from seitpp.tokenizers.sources.pixels import image_faults, read_image
from seitpp.tokenizers.sources.tars.file import TarFile
from seitpp.tokenizers.sources.tars.index import CLASS_ENDING, TarIndex


@dataclass(frozen=True)
class TarImages:
    """Images in tar files, tar after tar, each in the order of its members.

    Attributes:
        tars: the files.
        keys: name of each image's member; with several tars, after the tar's name.
        labels: class index of each, -1 where unknown, (n,) int32.
        classes: class names.
        places: tar, first byte and size in bytes of each, (n, 3) int64.
        left_out: members that give no image.
    """

    tars: list[TarFile]
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
            return read_image(io.BytesIO(self.tars[tar].bytes_at(offset, length)), size, resize)

    def where(self, index: int) -> str:
        """The tar and the member of one image, for messages."""
        key = self.keys[index]
        return f"{self.tars[self.places[index][0]]}, {key.split('/', 1)[1] if len(self.tars) > 1 else key}"

    def sizes(self, rows: Sequence[int]) -> np.ndarray:
        """Bytes of some images' members, (rows,) int64."""
        return self.places[np.asarray(rows, np.int64), 2]


def open_tars(
    tars: Sequence[TarFile],
    classes: Sequence[str] | None = None,
    beside: Sequence[LeftOut] = (),
    indexes: Iterable[TarIndex] | None = None,
) -> TarImages:
    """The images of tar files.

    Args:
        tars: the files, sorted.
        classes: class names of another store whose indices are to be kept; None: those found.
        beside: what was left out where they lie.
        indexes: of each, where they are known; None: they are made.
    Raises: UserError for a file that is missing, compressed, broken or no tar, and where no image is found; if the
        class folders are the parts of a split data set.
    """
    stems = _stems(tars)
    names, places, class_texts, left_out = [], [], {}, list(beside)
    for tar, index in enumerate(indexes if indexes is not None else (each.index() for each in tars)):
        prefix = "" if len(tars) == 1 else f"{stems[tar]}/"
        labels = {name.removesuffix(CLASS_ENDING) for name in index.members if name.endswith(CLASS_ENDING)}
        images, others = _images_of(index.members, labels)
        names += [(tar, name) for name in images]
        places += [(tar, *index.members[name]) for name in images]
        class_texts |= {(tar, name): index.numbers[f"{name}{CLASS_ENDING}"] for name in labels}
        left_out += [LeftOut(f"{prefix}{name}", why) for name, why in (index.problems | others).items()]
    if not names:
        found = f", but {counted(left_out)}" if left_out else ""
        raise UserError(f"{tars[0]}{' and the others' * (len(tars) > 1)}: no images{found}")
    if class_texts:
        labels, classes = label_by_number(_numbers(tars, names, class_texts), None, classes, tars[0])
    else:
        inner = _without_common_folders([name for _, name in names])
        folders = [name.split("/", 1)[0] if "/" in name else None for name in inner]
        refuse_split(inner, sorted({name for name in folders if name is not None}), classes, tars[0])
        labels, classes = label_by_name(folders, classes, tars[0])
    keys = [name if len(tars) == 1 else f"{stems[tar]}/{name}" for tar, name in names]
    require_utf8(keys, tars[0])
    return TarImages(list(tars), keys, labels, classes, np.array(places, np.int64), left_out)


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


def _stem(name):
    """A name up to the last dot."""
    return name.rpartition(".")[0]


def _sample(name):
    """A name up to the first dot after its folders."""
    folders, slash, base = name.rpartition("/")
    return f"{folders}{slash}{base.split('.')[0]}"


def _numbers(tars, names, class_texts):
    """The numbers in .cls members, -1 for images without one."""
    numbers = np.full(len(names), -1, np.int64)
    for row, (tar, name) in enumerate(names):
        text = class_texts.get((tar, _stem(name)), class_texts.get((tar, _sample(name))))
        if text is not None:
            if not text.removeprefix("-").isdecimal():
                raise UserError(f"{tars[tar]}: the .cls beside {name} holds {text[:20]!r}, expected a number")
            numbers[row] = int(text)
    return numbers


def _without_common_folders(names):
    """Names without the folders around everything, which are no classes."""
    parts = [name.split("/") for name in names]
    while len({each[0] for each in parts}) == 1 and all(len(each) > 2 for each in parts):
        parts = [each[1:] for each in parts]
    return ["/".join(each) for each in parts]


def _stems(tars):
    """A name for each tar: its own without the ending, or with as many folders as tell it from the others."""
    parts = [each.parts for each in tars]
    depth = next(depth for depth in range(1, 99) if len({each[-depth:] for each in parts}) == len(parts))
    return ["/".join(each[-depth:]) for each in parts]
