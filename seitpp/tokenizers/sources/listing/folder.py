"""The one way to list a folder of images, for all commands and the demo."""

import errno
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.decoding.formats import ending_of, is_image_name
from seitpp.tokenizers.sources.listing.left_out import LeftOut, counted
from seitpp.tokenizers.sources.listing.names import is_hidden, require_utf8


@dataclass(frozen=True)
class Listing:
    """The images of a folder.

    Attributes:
        keys: their paths from it, posix style, sorted as paths are.
        left_out: all else in it, sorted too.
    """

    keys: list[str]
    left_out: list[LeftOut]


def list_images(folder: str | Path, *, advice: str = "expected one folder of images a class") -> Listing:
    """List the images at any depth of a folder. Links are followed; no folder is listed twice.

    Args:
        folder: the root.
        advice: what to do where it holds none.
    Raises: UserError if there is no such folder, a folder in it can't be read, it holds no image, or a name can't be
        stored.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder of images: give one with a folder for each class in it")
    keys, left_out = [], []
    try:
        for key, problem in _walk(folder):
            if problem is None:
                keys.append(key)
            else:
                left_out.append(LeftOut(key, problem))
    except PermissionError as error:
        raise UserError(
            f"{error.filename} can't be read (no permission): ask for leave, or move it elsewhere"
        ) from error
    require_utf8(keys, folder)
    left_out += [LeftOut(name, "class folder without images") for name in _empty_classes(folder, keys, left_out)]
    if not keys:
        found = f", but {counted(left_out)}" if left_out else ""
        raise UserError(f"{folder} holds no images{found}: {advice}")
    return Listing(sorted(keys, key=as_path), sorted(left_out, key=lambda each: as_path(each.file)))


def as_path(key: str) -> list[str]:
    """What keys are sorted by, as paths are."""
    return key.split("/")


def _walk(root: Path) -> Iterator[tuple[str, str | None]]:
    """(key, None) of each image below a folder, (key, why) of what is left out; in any order.

    Folders come before links to folders, and a link to a folder that was walked is left out. So links that lead in a
    circle end, and an image that is there by two ways counts once, under its own name.
    """
    real = os.path.realpath(root)
    seen, folders, links = {real}, deque([("", str(root), real)]), deque()
    while folders or links:
        prefix, path, real = folders.popleft() if folders else links.popleft()
        if prefix and real in seen:
            yield prefix.rstrip("/"), "link to what is listed already"
            continue
        seen.add(real)
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                key = prefix + entry.name
                if not _is_folder(entry):
                    yield key, _problem(entry)
                elif is_hidden(entry.name):
                    yield key, "hidden or system folder"
                elif entry.is_symlink():
                    links.append((f"{key}/", entry.path, os.path.realpath(entry.path)))
                else:
                    folders.append((f"{key}/", entry.path, f"{real}/{entry.name}"))


def _is_folder(entry):
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link that leads to itself
            return False
        raise


def _problem(entry) -> str | None:
    """Why a directory entry, which is no folder, is no image; None for an image."""
    if is_hidden(entry.name):
        return "hidden or system file"
    if entry.is_symlink() and not os.path.exists(entry.path):  # noqa: PTH110
        return "broken link"
    if not entry.is_file():
        return "no regular file"
    return problem_of_name(entry.name)


def problem_of_name(name: str) -> str | None:
    """Why a file of a name is left out; None for an image."""
    if is_hidden(name):
        return "hidden or system file"
    if is_image_name(name):
        return None
    return f"of unknown format {ending_of(name)}" if ending_of(name) else "without an ending"


def _empty_classes(folder, keys, left_out):
    """Folders of the first level without an image, of those that are not left out themselves."""
    known = {key.split("/", 1)[0] for key in keys} | {each.file for each in left_out}
    return [entry.name for entry in os.scandir(folder) if _is_folder(entry) and entry.name not in known]
