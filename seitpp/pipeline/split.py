"""Divide your images into training and test images, with look-alikes on one side; the images stay as they are.

    seitpp split photos --test 0.2 --output_dir photos-split
    seitpp split photos --labels birds.csv --output_dir photos-split       classes from a table with columns key,label
    seitpp split photos --unlabelled true --output_dir photos-split        its folders are no classes
    seitpp split photos --form lists --output_dir photos-split             tables of files instead of links

    photos-split/train/<class>/…   links to the training images; unlabelled ones lie directly in train/
    photos-split/test/<class>/…    likewise; with --form lists instead train.csv, test.csv: columns key,label,file
    photos-split/split.csv         columns key,label,part,group: where each image went; images of one group look alike
    photos-split/skipped.csv       what was left out, and why
    photos-split/split.json        of what, by which settings, how many

Every other command takes photos-split/train or photos-split/train.csv as --images. The same images, test fraction and
seed give the same split everywhere. Each image is decoded once, to 16 x 16 pixels: memory is 0.9 KB an image.
"""

import csv
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from seitpp.pipeline.leak_free import divide
from seitpp.pipeline.look_alikes import find_look_alikes
from seitpp.pipeline.photos import Photos, open_photos
from seitpp.runtime.command import run_command
from seitpp.runtime.config import require, require_seed
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import replacing, write_json
from seitpp.runtime.locations import Location, with_home
from seitpp.runtime.ownership import visible
from seitpp.runtime.places import check_places
from seitpp.runtime.positional import positional_field
from seitpp.runtime.schema import anything, read_described, record, table
from seitpp.tokenizers.sources.images import ImageFolder
from seitpp.tokenizers.sources.labels import label_by_name
from seitpp.tokenizers.sources.listing.left_out import counted, write_skipped
from seitpp.tokenizers.sources.source import source_fingerprint

FILE = "split.json"
_SHOWN = 30
"""Classes that are printed one a line."""


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Divide images into training and test images, look-alikes on one side: seitpp split FOLDER --output_dir DIR."""

    output_dir: Location
    """folder to make"""
    images: tuple[str, ...] = positional_field()
    """the folder of images, written without a flag: one folder a class, nested at will; what lies directly in it is
    unlabelled. It stays as it is"""
    test: float = 0.2
    """fraction of each class's images that is for testing"""
    labels: Location | None = None
    """CSV with columns key,label: classes of the images instead of their folders; key is the path from the folder"""
    class_level: int = 0
    """which of the folders above an image is its class: 0 the first below the folder, -1 the last"""
    unlabelled: bool = False
    """whether the folders in it are no classes"""
    form: Literal["links", "hard_links", "lists"] = "links"
    """links: symbolic links; hard_links: of the same files, on one disk; lists: train.csv and test.csv"""
    seed: int = 0
    """another seed gives another split"""

    def __post_init__(self):
        require(self, "images", len(self.images) == 1, "must name one folder of images")
        require(self, "test", 0 < self.test < 1, "must lie in (0, 1)")
        require(self, "unlabelled", not (self.unlabelled and self.labels), "and labels exclude each other")
        require(self, "class_level", not (self.class_level and (self.labels or self.unlabelled)), "excludes the others")
        require_seed(self)


def main(config: SplitConfig) -> None:
    """Divide, write, and say how many there are of each class."""
    folder = Path(config.output_dir)
    check_places(config)
    photos = open_photos(
        with_home(config.images[0]), labels=config.labels, unlabelled=config.unlabelled,
        class_level=config.class_level,
    )  # fmt: skip
    print("\n".join(photos.notices), end="\n" if photos.notices else "")
    if not _is_there(config, photos):
        write_split(config, photos)
    print("\n".join(described(folder)))


def write_split(config: SplitConfig, photos: Photos) -> None:
    """Find look-alikes, divide, and write the folder in one go.

    Raises: UserError if no image can be decoded, all of them look alike, or hard links can't be made.
    """
    files = [str(photos.folder / key) for key in photos.keys]
    looks = find_look_alikes(files, photos.keys)
    keys = [photos.keys[place] for place in looks.whole]
    classes = [photos.classes[place] for place in looks.whole]
    is_test = divide(looks.groups, classes, keys, test_part=config.test, seed=config.seed)
    if not is_test.any():
        raise UserError(
            f"{photos.folder}: {len(keys)} images in {len(set(looks.groups.tolist()))} groups of look-alikes leave "
            "nothing to test on: add images"
        )
    parts = np.where(is_test, "test", "train").tolist()
    with replacing(config.output_dir) as fresh:
        fresh.mkdir()
        rows = list(zip(keys, [label or "" for label in classes], parts, looks.groups.tolist(), strict=True))
        write_rows(fresh / "split.csv", ("key", "label", "part", "group"), rows)
        for part in ("train", "test"):
            mine = [place for place, each in zip(looks.whole, parts, strict=True) if each == part]
            _write_part(fresh, part, [(photos.places[i], photos.classes[i], files[i]) for i in mine], config.form)
        left_out = sorted([*photos.left_out, *looks.broken], key=lambda each: each.file)
        write_skipped(fresh / "skipped.csv", left_out)
        found = {"images": len(keys), "left_out": counted(left_out), **_look_alikes(looks.groups), "classes": {}}
        for label in sorted(set(classes) - {None}, key=str):
            own = Counter(part for part, each in zip(parts, classes, strict=True) if each == label)
            found["classes"][str(label)] = [own["train"], own["test"]]
        free = Counter(part for part, each in zip(parts, classes, strict=True) if each is None)
        found["unlabelled"] = [free["train"], free["test"]]
        write_json(fresh / FILE, {**_settings(config, photos), **found})


def described(folder: str | Path) -> list[str]:
    """Lines that say what a split holds."""
    folder = Path(folder)
    found = read_described(folder / FILE, record({"classes": table(anything)}), "make the split again")
    left_out = f"; left out: {found['left_out']}, see {folder / 'skipped.csv'}" if found["left_out"] else ""
    unlabelled, classes = found["unlabelled"], found["classes"]
    lines = [f"{found['folder']}: {found['images']:,} images, {len(classes)} classes{left_out}"]
    lines.append(
        f"look-alikes: {found['groups']:,} groups of {found['in_groups']:,} images, each on one side"
        if found["groups"] else "look-alikes: none"
    )  # fmt: skip
    shown = dict(list(classes.items())[:_SHOWN]) | ({"(unlabelled)": unlabelled} if sum(unlabelled) else {})
    width = max(map(len, ["all", *shown]))
    lines.append(f"{'':<{width}}  {'train':>7}  {'test':>7}")
    lines += [f"{label:<{width}}  {train:7,}  {test:7,}" for label, (train, test) in shown.items()]
    if len(classes) > _SHOWN:
        lines.append(f"… and {len(classes) - _SHOWN:,} more classes, see {folder / FILE}")
    both = [sum(column) for column in zip(unlabelled, *classes.values(), strict=True)]
    lines.append(f"{'all':<{width}}  {both[0]:7,}  {both[1]:7,}")
    small = [label for label, (_, test) in classes.items() if not test]
    if small:
        more = f" and {len(small) - 8} more" if len(small) > 8 else ""
        lines.append(f"too small to be tested (one image, or all alike): {', '.join(small[:8])}{more}")
    lists = (folder / "train.csv").exists()
    ends = [folder / f"{part}{'.csv' if lists else ''}" for part in ("train", "test")]
    lines.append(f"{ends[0]} and {ends[1]} are for --images; {folder / 'split.csv'} says where each image is")
    return lines


def is_split(folder: str | Path) -> bool:
    """Whether a folder is a split that `seitpp split` made."""
    return (Path(folder) / FILE).is_file() and (Path(folder) / "split.csv").is_file()


def _is_there(config: SplitConfig, photos: Photos) -> bool:
    """Whether this very split is there; a UserError where something else is."""
    folder = Path(config.output_dir)
    if not visible(folder):
        return False
    if not is_split(folder):
        raise UserError(f"{folder} holds {visible(folder)[0]} and is no split: choose another --output_dir")
    former = read_described(folder / FILE, record({}), "remove it, or choose another --output_dir")
    other = [name for name, value in _settings(config, photos).items() if former.get(name) != value]
    if other:
        raise UserError(
            f"{folder} holds another split ({', '.join(other)} differ): choose another --output_dir, or remove it"
        )
    return True


def _settings(config: SplitConfig, photos: Photos) -> dict[str, object]:
    chosen = {name: value for name, value in asdict(config).items() if name in ("test", "form", "seed")}
    return {"folder": str(photos.folder.resolve()), "fingerprint": fingerprint_of_photos(photos), **chosen}


def fingerprint_of_photos(photos: Photos) -> str:
    """SHA-256 over names, sizes in bytes and classes: what tells these images from others."""
    images = ImageFolder(photos.folder, photos.keys, *label_by_name(photos.classes, None, photos.folder))
    return source_fingerprint(images)


def _look_alikes(groups: np.ndarray) -> dict[str, int]:
    counts = np.bincount(groups)
    return {"groups": int((counts > 1).sum()), "in_groups": int(counts[counts > 1].sum())}


def _write_part(folder: Path, part: str, images: list[tuple[str, str | None, str]], form: str) -> None:
    """Links or a table; of (place, class, file)."""
    if form == "lists":
        rows = [(place, label or "", os.path.abspath(file)) for place, label, file in images]  # noqa: PTH100
        write_rows(folder / f"{part}.csv", ("key", "label", "file"), rows)
        return
    (folder / part).mkdir()
    for place, _, file in images:
        link = folder / part / place
        link.parent.mkdir(parents=True, exist_ok=True)
        if form == "links":
            link.symlink_to(os.path.abspath(file))  # noqa: PTH100 - a link of the user's is not resolved
            continue
        try:
            os.link(os.path.realpath(file), link)
        except OSError as error:
            raise UserError(
                f"{file} can't be hard-linked to {folder.parent} ({error.strerror}): --form links"
            ) from error


def write_rows(path: Path, columns: tuple[str, ...], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file with a header line."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def cli() -> None:
    """Run the stage from the command line."""
    run_command(main, SplitConfig, recipes="split")


if __name__ == "__main__":
    cli()
