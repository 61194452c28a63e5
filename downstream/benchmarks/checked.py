"""Sets of images opened and checked whole, before anything runs: what is missing of all of them is said at once."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from seitpp.downstream.benchmarks.layout import Layout, SplitImages
from seitpp.downstream.benchmarks.layouts import own_folders
from seitpp.downstream.benchmarks.layouts.known import LAYOUTS
from seitpp.downstream.benchmarks.sets import BenchmarkSet
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.images import ImageFolder
from seitpp.tokenizers.sources.listing.names import is_hidden

_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class CheckedSet:
    """A set whose files are all there.

    Attributes:
        name: in results.
        metric: the one that the field reports.
        images: to learn from and to measure on.
        place: where they lie.
    """

    name: str
    metric: str
    images: SplitImages
    place: str


def open_sets(
    wanted: Sequence[BenchmarkSet], data: str | Path | None, own: Mapping[str, tuple[str, str]]
) -> list[CheckedSet]:
    """Open sets and check them against what is known of them. No image is decoded.

    Args:
        wanted: rows of the table.
        data: folder in which their folders lie.
        own: name to (images to learn from, images to measure on), without a table; measured by accuracy.
    Raises: one UserError that names what is missing or wrong, of every set.
    """
    opened, problems = [], []
    for each in wanted:
        try:
            opened.append(_open_known(each, Path(data or ".")))
        except UserError as error:
            problems.append(f"{each.name}: {error}")
    for name, (train, test) in own.items():
        try:
            images = own_folders.read(train, test)
            opened.append(CheckedSet(name=name, metric="accuracy", images=images, place=train))
        except UserError as error:
            problems.append(f"{name}: {error}")
    if problems:
        count = f"{len(problems)} of {len(wanted) + len(own)} sets"
        raise UserError(f"{count} can't be used, and nothing was begun: {'; '.join(problems)}")
    return opened


def set_folder(each: BenchmarkSet, data: Path) -> Path:
    """The folder of a set: the first of those that the table names that is there; where none is, the first."""
    return next((data / name for name in each.folders if (data / name).is_dir()), data / each.folders[0])


def _open_known(each: BenchmarkSet, data: Path) -> CheckedSet:
    layout, root = LAYOUTS[each.layout], set_folder(each, data)
    _refuse_missing_parts(each, layout, root)
    images = layout.read(root)
    problems = [*_missing_files(images, root), *_unknown_folders(images, root), *_other_counts(each, images)]
    if problems:
        raise UserError(f"{root}: {', '.join(problems)}")
    return CheckedSet(name=each.name, metric=each.metric, images=images, place=str(root))


def _refuse_missing_parts(each, layout: Layout, root: Path):
    for name, why in layout.refused.items():
        if not root.is_dir() and (root.parent / name).is_dir():
            raise UserError(f"{root.parent / name} {why}, and unpack it beside")
    missing = layout.missing(root)
    if not root.is_dir():
        size = f", {each.bytes / 1e9:.3g} GB" if each.bytes else ""
        raise UserError(f"{root} is not there: unpack {', '.join(missing)} there ({each.address}{size})")
    if missing:
        parts = [f"{_few(names)} (comes in {archive})" for archive, names in missing.items()]
        raise UserError(f"{root} lacks {', '.join(parts)}: unpack it there")


def _missing_files(images: SplitImages, root: Path):
    """Listed images that are not there, each folder read once."""
    listed = [each.keys for each in (images.train, images.test) if isinstance(each, ImageFolder)]
    there: dict[str, set[str]] = {}
    missing, count = [], 0
    for key in (key for keys in listed for key in keys):
        folder, _, name = key.rpartition("/")
        if folder not in there:
            there[folder] = _names(root / folder)
        count += 1
        if name not in there[folder]:
            missing.append(key)
    if missing:
        yield (
            f"{len(missing):,} of {count:,} listed images are not there (first: {missing[0]}): an archive was not "
            "unpacked whole, unpack it again"
        )


def _unknown_folders(images: SplitImages, root: Path):
    """Folders beside those of classes that no listed image lies in."""
    known: dict[str, set[str]] = {}
    for each in (images.train, images.test):
        if isinstance(each, ImageFolder):
            for folder in {key.rpartition("/")[0] for key in each.keys}:
                parts = folder.split("/")
                for depth in range(1, len(parts)):
                    known.setdefault("/".join(parts[:depth]), set()).add(parts[depth])
    for parent, names in known.items():
        if not (root / parent).is_dir():
            continue  # its images are missing, which is said
        entries = [entry for entry in os.scandir(root / parent) if entry.is_dir() and not is_hidden(entry.name)]
        unknown = sorted(entry.name for entry in entries if entry.name not in names)
        if unknown:
            yield f"{parent}/{unknown[0]} is the folder of no class of the set: move it elsewhere"


def _other_counts(each: BenchmarkSet, images: SplitImages):
    found = {
        "classes": len(images.train.classes), "training images": len(images.train), "test images": len(images.test)
    }  # fmt: skip
    expected = (each.classes, each.train_images, each.test_images)
    wrong = [
        f"{count:,} {name} instead of {right:,}"
        for (name, count), right in zip(found.items(), expected, strict=True)
        if count != right
    ]
    if wrong:
        yield f"it has {', '.join(wrong)}: it is not whole, or another version"


def _names(folder: Path) -> set[str]:
    try:
        return {entry.name for entry in os.scandir(folder)}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _few(names):
    more = [f"{len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return ", ".join([*names[:_SHOWN], *more])
