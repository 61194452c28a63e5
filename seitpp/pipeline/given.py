"""The images that a fit is given: whole, to be split, or split already into train/ and test/ or val/."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seitpp.pipeline.facts import Facts, machine, short_side
from seitpp.pipeline.leak_free import hash_of
from seitpp.pipeline.photos import Photos, open_photos
from seitpp.pipeline.split import SplitConfig, described, fingerprint_of_photos, is_split, write_split
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import replacing
from seitpp.tokenizers.sources.listing.left_out import LeftOut

_TRAIN = ("train", "training")
_TEST = ("test", "testing", "val", "valid", "validation", "eval", "dev")
"""Names of the parts of a split folder; of several test parts the first of these counts."""


@dataclass(frozen=True)
class Given:
    """Images, and how they are divided.

    Attributes:
        train: the images to learn from; where they are not split, all.
        test: those to measure on; None: a part of the others, by a split.
        fingerprint: what tells them from others.
        beside: folders that are not read, where the images are split already.
    """

    train: Photos
    test: Photos | None
    fingerprint: str
    beside: list[str]

    @property
    def left_out(self) -> list[LeftOut]:
        """What gives no image."""
        return [*self.train.left_out, *(self.test.left_out if self.test else [])]

    @property
    def classes(self) -> list[str]:
        """Class names."""
        return sorted({each for each in self.train.classes if each is not None})

    def facts(self, test_part: float, grid: tuple[int, int] | None) -> Facts:
        """What the sizes are chosen by.

        Args:
            test_part: fraction that a split takes away for testing.
            grid: of the tokenizer that is given.
        """
        keys, classes = self.train.keys, self.train.classes
        labelled = sum(each is not None for each in classes)
        part = 0.0 if self.test else test_part
        whole = labelled or len(keys)  # where some have a class, the others are all for training
        tested = len(self.test.keys) if self.test else round(part * whole)
        return Facts(
            images=len(keys) - (0 if self.test else tested), labelled=round(labelled * (1 - part)),
            test_images=tested, classes=len(self.classes), side=short_side(self.train.folder, keys),
            grid=grid, **machine(),
        )  # fmt: skip


def open_given(
    folder: str | Path, *, labels: str | None = None, unlabelled: bool = False, class_level: int = 0
) -> Given:
    """List the images of a folder; none is decoded.

    Args:
        folder: with train/ and test/ or val/ in it, or to be split: see `open_photos`.
        labels: see `open_photos`.
        unlabelled: likewise.
        class_level: likewise.
    Raises: UserError where there are no images, or they and `labels` do not fit.
    """
    folder = Path(folder)
    parts = {path.name.casefold(): path for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else {}
    train, test = (next((parts[name] for name in names if name in parts), None) for names in (_TRAIN, _TEST))
    if train is None or test is None:
        photos = open_photos(folder, labels=labels, unlabelled=unlabelled, class_level=class_level)
        return Given(photos, None, fingerprint_of_photos(photos), [])
    if labels is not None:
        raise UserError(
            f"{folder} is split already ({train.name}, {test.name}), where classes are folders: no --labels"
        )
    both = [open_photos(part, unlabelled=unlabelled, class_level=class_level) for part in (train, test)]
    known = {each for each in both[0].classes if each is not None}
    strange = sorted({each for each in both[1].classes if each is not None} - known)
    if strange:
        raise UserError(f"{test} has a class {strange[0]!r} that {train} lacks: add images of it, or move it elsewhere")
    digest = hashlib.sha256("".join(fingerprint_of_photos(each) for each in both).encode()).hexdigest()
    beside = sorted(path.name for path in parts.values() if path not in (train, test) and path.name[0] != ".")
    return Given(both[0], both[1], digest, beside)


def divide_given(given: Given, folder: Path, config: SplitConfig) -> list[str]:
    """Make the folder that holds train and test: a split, or links to the parts that there are.

    Args:
        given: the images.
        folder: to make; nothing is done where it is there.
        config: how they are split.
    Returns: lines that say what it holds.
    """
    if given.test is None:
        if not is_split(folder):
            write_split(config, given.train)
        return described(folder)
    parts: Sequence[tuple[str, Photos]] = (("train", given.train), ("test", given.test))
    if not (folder / "train").exists():
        with replacing(folder) as fresh:
            fresh.mkdir()
            for name, photos in parts:
                write_links(fresh / name, photos, photos.places)
    return [f"{photos.folder}: {len(photos.keys):,} images for {name}" for name, photos in parts]


def write_links(folder: Path, photos: Photos, places: Sequence[str]) -> None:
    """Make a folder of links to some images of others, given by their places in it."""
    key_of = dict(zip(photos.places, photos.keys, strict=True))
    for place in places:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).symlink_to(os.path.abspath(photos.folder / key_of[place]))  # noqa: PTH100 - links stay links


def sample_of(photos: Photos, count: int, most_classes: int = 8) -> list[str]:
    """Places of some images: of the classes with the most images in turn, by hash."""
    found: dict[str | None, list[str]] = {}
    for place, label in zip(photos.places, photos.classes, strict=True):
        found.setdefault(label, []).append(place)
    largest = sorted((label for label in found if label is not None), key=lambda label: (-len(found[label]), label))
    queues = [sorted(found[label], key=hash_of) for label in largest[:most_classes] or [None] if label in found]
    chosen: list[str] = []
    for row in range(max(map(len, queues), default=0)):
        chosen += [queue[row] for queue in queues if row < len(queue)]
    return chosen[:count]
