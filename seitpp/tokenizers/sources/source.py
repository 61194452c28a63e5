"""Where images come from: a folder, tar files, both behind a URL too, a table of files, or a data set of timm's."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.decoding.resize import Resize
from seitpp.tokenizers.sources.images import open_image_folder
from seitpp.tokenizers.sources.listed import open_listed
from seitpp.tokenizers.sources.listing.left_out import LeftOut
from seitpp.tokenizers.sources.listing.names import is_hidden
from seitpp.tokenizers.sources.listing.patterns import expand_braces
from seitpp.tokenizers.sources.remote.addresses import is_url
from seitpp.tokenizers.sources.tars.file import LocalTar, is_tar_name
from seitpp.tokenizers.sources.tars.images import TarImages, open_tars

ITERABLE = {
    "hfids": "hfds/NAME opens the same data set, all of it on disk",
    "wds": "name the .tar files themselves, they are read directly",
    "tfds": "export its images to a folder of class folders, or to .tar files",
}
"""timm's kinds that can only be read from the beginning, and what to do instead."""


class ImageSource(Protocol):
    """Labelled images that can be read in any order, by many threads at once.

    Attributes:
        keys: a name for each image, strings; unique, and in the same order whenever the same images are opened.
        labels: class index of each, -1 where unknown, (n,) int32.
        classes: class names.
        left_out: what lies where the images are, but gives none.
    """

    @property
    def keys(self) -> list[str]:
        """A name for each."""
        ...

    @property
    def labels(self) -> np.ndarray:
        """Class index of each, -1 where unknown."""
        ...

    @property
    def classes(self) -> list[str]:
        """Class names."""
        ...

    @property
    def left_out(self) -> list[LeftOut]:
        """What gives no image."""
        ...

    def __len__(self) -> int:
        """How many images there are."""
        ...

    def read(self, index: int, size: tuple[int, int], resize: Resize = "crop") -> np.ndarray:
        """Pixels of one image by the rules of `read_image`: (3, height, width) uint8.

        Raises: BrokenImage where it can't be decoded.
        """
        ...

    def where(self, index: int) -> str:
        """Where one image lies, for messages."""
        ...

    def sizes(self, rows: Sequence[int]) -> np.ndarray:
        """Bytes of some images as they lie there, (rows,) int64, 0 where nobody says; nothing is decoded."""
        ...


def source_fingerprint(images: ImageSource) -> str:
    """SHA-256 over names, sizes in bytes and classes of images, in their order: what tells them from others.

    Their contents would have to be read, which takes hours for a million of them, and the times of files change when
    they are copied or moved.
    """
    digest = hashlib.sha256(json.dumps([images.keys, images.classes]).encode())
    digest.update(images.sizes(range(len(images))).astype("<i8").tobytes())
    digest.update(images.labels.astype("<i4").tobytes())
    return digest.hexdigest()


def open_source(
    spec: str | Path, classes: Sequence[str] | None = None, *, class_level: int | None = 0, **dataset: Any
) -> ImageSource:
    """Open images of any kind.

    Args:
        spec: a folder of class folders; a .tar file, several (`train/{000..012}.tar`, `train/*.tar`) or a folder of
            them; the same behind a URL, see `open_remote`; a .csv file that lists images (`open_listed`); `hfds/NAME`
            for a Hugging Face data set, `torch/NAME` for one of torchvision.
        classes: class names of another store whose indices are to be kept; None: those found.
        class_level: of a folder of images: see `open_image_folder`.
        dataset: of hfds/ and torch/ only: split, root, image_column and label_column, see `open_timm`.
    Returns: an ImageSource.
    Raises: UserError in one line where it can't be opened.
    """
    spec = str(spec)
    if is_url(spec):
        from seitpp.tokenizers.sources.remote.open_images import open_remote

        return open_remote(spec, classes)[0]
    kind = spec.split("/")[0] if "/" in spec and not Path(spec).exists() else ""
    if kind in ITERABLE:
        raise UserError(f"{spec} can only be read from its beginning, not image by image: {ITERABLE[kind]}")
    is_folder = kind not in ("hfds", "torch") and not (is_tar_name(spec) and not Path(spec).is_dir())
    if class_level and not is_folder:
        raise UserError(f"{spec} is no folder of images: --class_level {class_level} is for such alone")
    if kind in ("hfds", "torch"):
        from seitpp.tokenizers.sources.timm_images import open_timm

        return open_timm(spec, classes, **dataset)
    if is_tar_name(spec) and not Path(spec).is_dir():
        return _local_tars(_tars_of(spec), classes)
    folder = Path(spec)
    if folder.suffix.lower() == ".csv" and not folder.is_dir():
        if class_level:
            raise UserError(f"{folder} is a table, which says classes itself: leave out --class_level {class_level}")
        return open_listed(folder, classes)
    inside = sorted(path for path in folder.iterdir() if not is_hidden(path.name)) if folder.is_dir() else []
    tars = [path for path in inside if path.is_file() and is_tar_name(path.name)]
    if tars and any(path.is_dir() for path in inside):
        raise UserError(f"{folder} holds tar files and folders: name the tars ({folder}/*.tar), or move them elsewhere")
    if not tars:
        return open_image_folder(folder, classes, class_level=class_level)
    if class_level:
        raise UserError(f"{folder} holds tar files: --class_level {class_level} is for folders of images alone")
    return _local_tars(tars, classes, [LeftOut(path.name, "beside tar files") for path in inside if path not in tars])


def _local_tars(paths: Sequence[Path], classes: Sequence[str] | None, beside: Sequence[LeftOut] = ()) -> TarImages:
    return open_tars([LocalTar(path) for path in paths], classes, beside)


def _tars_of(spec):
    """Paths of a pattern: every {first..last}, then wildcards; sorted, none twice.

    As much of its beginning as is the name of something stands for itself, whatever signs are in it.
    """
    path = Path(spec)
    there = next(place for place in (path, *path.parents) if place.exists())
    if there == path:
        return [path]
    patterns = expand_braces(str(path.relative_to(there)), spec)
    paths = []
    for pattern in patterns:
        found = _glob(there, pattern) if any(sign in pattern for sign in "*?[") else [there / pattern]
        if not found:
            raise UserError(f"no file fits {there / pattern}: check --images")
        paths += found
    return sorted(set(paths))


def _glob(folder, pattern):
    import glob

    wanted = str(Path(glob.escape(str(folder)), pattern))
    return [Path(path) for path in glob.glob(wanted, recursive=True)]  # noqa: PTH207 - absolute and relative alike
