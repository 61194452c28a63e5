"""Class folders in a bucket: listed once, each image read whole."""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.decoding.resize import Resize
from seitpp.tokenizers.sources.labels import label_by_name
from seitpp.tokenizers.sources.listing.folder import as_path, problem_of_name
from seitpp.tokenizers.sources.listing.left_out import LeftOut, counted
from seitpp.tokenizers.sources.listing.names import is_hidden, refuse_split, require_utf8
from seitpp.tokenizers.sources.pixels import BrokenImage, image_faults, read_image
from seitpp.tokenizers.sources.remote.listing import FolderListing, digest_of
from seitpp.tokenizers.sources.remote.place import Place
from seitpp.tokens.transfer import Missing

_AT_ONCE = 16
"""Folders that are listed at the same time."""


@dataclass(frozen=True)
class RemoteFolder:
    """Images in a bucket, see `ImageSource`. Images that lie directly in the folder are unlabelled.

    Attributes:
        place: that they lie at.
        url: of the folder.
        listing: what it holds.
        labels: class index of each, -1 for unlabelled ones, (n,) int32.
        classes: class names, sorted.
    """

    place: Place
    url: str
    listing: FolderListing
    labels: np.ndarray
    classes: list[str]

    @property
    def keys(self) -> list[str]:
        """Paths from the folder."""
        return self.listing.keys

    @property
    def left_out(self) -> list[LeftOut]:
        """What else it holds."""
        return self.listing.left_out

    def __len__(self) -> int:
        return len(self.listing.keys)

    def read(self, index: int, size: tuple[int, int], resize: Resize = "crop") -> np.ndarray:
        """Pixels of one image, see `read_image`."""
        try:
            content = self.place.whole(self.where(index), int(self.listing.sizes[index]))
        except Missing as error:
            raise BrokenImage("it is not there any more") from error
        with image_faults():
            return read_image(io.BytesIO(content), size, resize)

    def where(self, index: int) -> str:
        """The address of one image, for messages."""
        return f"{self.url}/{self.listing.keys[index]}"

    def sizes(self, rows: Sequence[int]) -> np.ndarray:
        """Bytes of some images, (rows,) int64."""
        return self.listing.sizes[np.asarray(rows, np.int64)]


def open_remote_folder(
    place: Place, url: str, listing: FolderListing, classes: Sequence[str] | None = None
) -> RemoteFolder:
    """The images of a folder that was listed.

    Args:
        place: that it lies at.
        url: of the folder.
        listing: of it.
        classes: class names of another folder whose indices are to be kept; None: those of this folder.
    Raises: UserError for a class that `classes` lacks, or if its folders are the parts of a split data set.
    """
    names = [key.split("/", 1)[0] if "/" in key else None for key in listing.keys]
    refuse_split(listing.keys, sorted({name for name in names if name is not None}), classes, url)
    return RemoteFolder(place, url, listing, *label_by_name(names, classes, url))


def list_remote_folder(place: Place, url: str) -> FolderListing:
    """List the images at any depth of a folder: a paginated listing a folder, many folders at a time.

    Raises: UserError if it holds no image, or a name can't be stored.
    """
    files: list[tuple[str, int, str]] = []
    left_out: list[LeftOut] = []
    first_level: set[str] = set()
    waiting, seen = [""], {""}
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as threads:
        while waiting:
            listed = threads.map(lambda folder: _list_one(place, url, folder), waiting)
            deeper = []
            for folders, images, others in listed:
                files += images
                left_out += others
                deeper += [each for each in folders if each not in seen]
            first_level = first_level or set(deeper)
            seen |= set(deeper)
            waiting = deeper
    files.sort(key=lambda each: as_path(each[0]))
    keys = [key for key, _, _ in files]
    require_utf8(keys, url)
    known = {key.split("/", 1)[0] for key in keys}
    left_out += [LeftOut(name, "class folder without images") for name in first_level - known]
    if not keys:
        found = f", but {counted(left_out)}" if left_out else ""
        raise UserError(f"{url} holds no images{found}: expected one folder of images a class; check --images")
    left_out.sort(key=lambda each: as_path(each.file))
    return FolderListing(keys, np.array([size for _, size, _ in files], np.int64), left_out, digest_of(files))


def _list_one(place: Place, url: str, folder: str) -> tuple[list[str], list[tuple[str, int, str]], list[LeftOut]]:
    """(folders, images, what is left out) directly in a folder, by their paths from `url`."""
    folders, images, others = [], [], []
    for found in place.entries(f"{url}/{folder}" if folder else url):
        name = found.url.rstrip("/").rsplit("/", 1)[-1]
        key = f"{folder}/{name}" if folder else name
        if not found.is_folder:
            problem = problem_of_name(name)
            if problem is None:
                images.append((key, found.size, found.version))
            else:
                others.append(LeftOut(key, problem))
        elif is_hidden(name):
            others.append(LeftOut(key, "hidden or system folder"))
        else:
            folders.append(key)
    return folders, images, others
