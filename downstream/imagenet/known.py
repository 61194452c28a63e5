"""The benchmarks that robustness knows by name, and how each is opened."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seitpp.downstream.imagenet.class_folders import Layout, open_class_folders
from seitpp.downstream.imagenet.imagenet_c import find_corrupted
from seitpp.downstream.imagenet.imagenet_classes import classes_of_benchmark, imagenet_wnids, places_in
from seitpp.downstream.imagenet.objectnet import open_objectnet
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.source import ImageSource

IMAGENET_C, REAL, OBJECTNET = "imagenet-c", "imagenet-real", "objectnet"
Truths = Callable[[str], tuple[int, ...]]
"""Gives the true classes of an image by its key, places in the classifier; () for one that is not to be measured."""


@dataclass(frozen=True, kw_only=True)
class ClassFolders:
    """A benchmark that is one folder of images for each class.

    Attributes:
        title: its name for people.
        archive: what it is given out as.
        images: how many its authors give out.
        only: "a" or "r" of ImageNet-A and -R, whose 200 classes alone are shown and may be answered; "": all.
        numbered: whether folders are the numbers 0 to 999 instead of WordNet ids.
    """

    title: str
    archive: str
    images: int
    only: str = ""
    numbered: bool = False


FOLDERS = {
    "imagenet-a": ClassFolders(title="ImageNet-A", archive="imagenet-a.tar", images=7500, only="a"),
    "imagenet-r": ClassFolders(title="ImageNet-R", archive="imagenet-r.tar", images=30000, only="r"),
    "imagenet-sketch": ClassFolders(title="ImageNet-Sketch", archive="ImageNet-Sketch.zip", images=50889),
    "imagenet-v2": ClassFolders(
        title="ImageNet-V2", archive="imagenetv2-matched-frequency.tar.gz", images=10000, numbered=True
    ),
    "imagenet-v2-threshold": ClassFolders(
        title="ImageNet-V2 (threshold 0.7)", archive="imagenetv2-threshold0.7.tar.gz", images=10000, numbered=True
    ),
    "imagenet-v2-top": ClassFolders(
        title="ImageNet-V2 (top images)", archive="imagenetv2-top-images.tar.gz", images=10000, numbered=True
    ),
}
_CORRUPTED = ClassFolders(title="ImageNet-C", archive="its archive", images=50000)
BENCHMARKS = (*FOLDERS, REAL, OBJECTNET, IMAGENET_C)


@dataclass(frozen=True, kw_only=True)
class OpenedSet:
    """One set of images of a benchmark.

    Attributes:
        shift: its name in results.
        severity: of a corruption, 1 to 5; else None.
        open: gives the images, an ImageSource whose classes are the classifier's.
        folder: where they lie.
        classes: places of the classes that may be answered; None: all.
        truths: the true classes of each image where it may have several; None: its label.
        about: what else the pixels depend on.
        complete: how many images its authors give out of it, where the classifier knows all its classes; else None.
    """

    shift: str
    severity: int | None = None
    open: Callable[[], ImageSource]
    folder: Path
    classes: tuple[int, ...] | None = None
    truths: Truths | None = None
    about: dict[str, object]
    complete: int | None = None


def open_benchmark(name: str, folder: str | Path, known: list[str]) -> list[OpenedSet]:
    """Find the images of a benchmark other than ImageNet-ReaL, which has none of its own.

    Args:
        name: of BENCHMARKS.
        folder: where its authors' archive was unpacked.
        known: class names in the order of the classifier's logits.
    Returns: its sets; those of ImageNet-C, five a corruption, list their images only when they are opened.
    Raises: UserError in one line where a folder lacks something, or has what does not belong there.
    """
    folder, places = Path(folder), places_in(known)
    if name == OBJECTNET:
        images, truths = open_objectnet(folder, places, known)
        return [OpenedSet(shift=name, open=lambda: images, folder=folder, truths=truths, about={"border": 2})]
    if name == IMAGENET_C:
        layout = layout_of(_CORRUPTED, places)
        return [
            OpenedSet(
                shift=corrupted_shift(each.corruption), severity=each.severity, folder=each.folder, about={},
                open=lambda place=each.folder: open_class_folders(place, layout, known),
                complete=_complete(_CORRUPTED, layout),
            )
            for each in find_corrupted(folder, layout)
        ]  # fmt: skip
    benchmark = FOLDERS[name]
    layout = layout_of(benchmark, places)
    answers = tuple(sorted(place for place in layout.places.values() if place >= 0)) if benchmark.only else None
    if answers == ():
        raise UserError(f"--benchmarks {name}: the classifier knows none of the {len(layout.places)} classes in it")
    images = open_class_folders(folder, layout, known)
    return [
        OpenedSet(
            shift=name, open=lambda: images, folder=folder, classes=answers, about={},
            complete=_complete(benchmark, layout),
        )
    ]  # fmt: skip


def corrupted_shift(corruption: str) -> str:
    """What results call a corruption of the ImageNet-C that is given out; one that is generated has its own name."""
    return f"{IMAGENET_C}:{corruption}"


def layout_of(benchmark: ClassFolders, places: np.ndarray) -> Layout:
    """The class folders that a benchmark must have.

    Args:
        benchmark: of FOLDERS.
        places: where the classifier has each of ImageNet's classes, (1000,) int64.
    """
    numbers = classes_of_benchmark(benchmark.only) if benchmark.only else range(len(places))
    wnids = imagenet_wnids()
    names = {str(number) if benchmark.numbered else wnids[number]: int(places[number]) for number in numbers}
    how = {"read_name": _as_number} if benchmark.numbered else {}
    return Layout(title=benchmark.title, archive=benchmark.archive, places=names, **how)


def _as_number(name):
    return str(int(name)) if name.isascii() and name.isdigit() else name


def _complete(benchmark, layout):
    return benchmark.images if min(layout.places.values()) >= 0 else None
