"""Turn a user's folder of class folders into small PNGs, split into training and test images without leaks.

    source/cats/a.jpg  source/cats/2024/b.png  source/dogs/c.webp  source/no-label.jpg

becomes, with everything decoded once and the split decided by `seitpp.demo.leak_free`:

    folder/train/<class>/<name>-<hash>.png   one image of each group of look-alikes, with its label
    folder/train/<name>-<hash>.png           images without a label, and the rest of those groups: for pre-training
    folder/test/<class>/<name>-<hash>.png    one image of each test group; the rest of a test group is left out
    folder/skipped.csv                       file, reason: the images that could not be read

`seitpp.demo.openmoji` writes the same layout with the same functions.
"""

import csv
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from einops import rearrange
from PIL import Image

from seitpp.demo.leak_free import THUMBNAIL_SIZE, assign_parts, hash_of, merge_near_duplicates
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import replacing
from seitpp.tokenizers.sources.pixels import DECODING_ERRORS, EXTENSIONS, quiet_decoding, read_image

MIN_CLASS_IMAGES = 4
MAX_BROKEN_PART = 0.1
_SPLIT_NAMES = {"train", "training", "test", "val", "valid", "validation"}


def prepare_folder(source: str | Path, folder: str | Path, *, size: int = 64, max_images: int = 6000) -> None:
    """Write the images of `source` as a split folder (layout above); do nothing where it is already there.

    Args:
        source: folder with one folder of images a class, nested at will; images directly in it are unlabelled.
        folder: the folder to make; it appears under this name only when it is whole.
        size: side of the written images in pixels, 16 or more: the short side is resized to it, then the centre cut.
        max_images: how many images are read at most, chosen by hash, as evenly over the classes as they allow; the
            unlabelled ones count as one more class.

    Raises:
        UserError: If `source` is missing, no folder, without images, or split already (train, test); if it has fewer
            than two classes, or one with fewer than 4 usable or 2 distinct images; if more than a tenth of the images
            cannot be read; if `folder` lies in `source` or holds something else.
    """
    source, folder = Path(source), Path(folder)
    check_size(size)
    if is_prepared(folder):
        return
    found = _find_images(source)
    if folder.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{folder} lies inside the images' folder {source}; name a folder outside it")
    chosen = _choose_evenly(found, max_images)
    with replacing(folder) as fresh, quiet_decoding():
        decoded = fresh / "decoded"
        decoded.mkdir(parents=True)
        names, classes, thumbnails, skipped = [], [], [], []
        for name, label in chosen:
            try:
                image = _decode(source / name, size)
            except DECODING_ERRORS as error:
                skipped.append((name, str(error) or type(error).__name__))
                continue
            image.save(decoded / f"{len(names)}.png")
            names.append(name)
            classes.append(label)
            thumbnails.append(thumbnail(image))
        skipped.sort()
        _check_broken(skipped, len(chosen), source)
        _check_classes([label for label in found if label is not None], classes, source)

        groups = merge_near_duplicates(np.stack(thumbnails))
        parts = assign_parts(groups, classes, names)
        _check_distinct(classes, parts, source)
        for index, (name, label, part) in enumerate(zip(names, classes, parts, strict=True)):
            if part != "dropped":
                target = image_path(fresh, part, label, f"{Path(name).stem[:40]}-{hash_of(name)[:12]}")
                (decoded / f"{index}.png").rename(target)
        shutil.rmtree(decoded)
        write_table(fresh / "skipped.csv", ("file", "reason"), skipped)


def thumbnail(image: Image.Image) -> np.ndarray:
    """Area-average an RGB image to the (16, 16, 3) float32 picture in [0, 1] that look-alikes are found by."""
    side = (THUMBNAIL_SIZE, THUMBNAIL_SIZE)
    bands = [band.convert("F").resize(side, Image.Resampling.BOX) for band in image.split()]  # not rounded to 8 bits
    return np.stack([np.asarray(band) for band in bands], axis=-1) / 255


def check_size(size: int) -> None:
    """Refuse images smaller than the thumbnails that they are compared by, with a UserError."""
    if size < THUMBNAIL_SIZE:
        raise UserError(f"size must be {THUMBNAIL_SIZE} pixels or more, got {size}")


def image_path(folder: Path, part: str, label: str | None, name: str) -> Path:
    """Give the place of an image in the layout above and make its folder; `part` is as from `assign_parts`."""
    if part == "unlabelled":
        parent = folder / "train"
    else:
        assert label is not None
        parent = folder / part / label
    parent.mkdir(parents=True, exist_ok=True)
    return parent / f"{name}.png"


def write_table(path: Path, columns: tuple[str, ...], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file with a header line."""
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def is_prepared(folder: Path) -> bool:
    """Tell whether the split folder is there; a UserError where something else has its name."""
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        return True
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} is there and is not a folder of prepared images; remove it or name another")
    return False


def _find_images(source: Path) -> dict[str | None, list[str]]:
    """List the images of each class by their posix path in `source`, in order; None holds the unlabelled ones."""
    advice = "give a folder that holds one folder of images a class"
    if not source.exists():
        raise UserError(f"{source} does not exist; {advice}")
    if not source.is_dir():
        raise UserError(f"{source} is a file, not a folder; {advice}")
    found: dict[str | None, list[str]] = {}
    try:
        for entry in sorted(source.iterdir()):
            if entry.name.startswith("."):  # .DS_Store, ._photo.jpg and the like
                continue
            if entry.is_dir():
                found[entry.name] = sorted(_images_below(entry, source))
            elif entry.suffix.lower() in EXTENSIONS:
                found.setdefault(None, []).append(entry.name)
    except PermissionError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}; ask for leave to read it") from error
    if not any(found.values()):
        raise UserError(f"{source} holds no images ({', '.join(sorted(EXTENSIONS))}); {advice}")
    labels = [label for label in found if label is not None]
    if len(labels) < 2:
        has = f"one class only, {labels[0]!r}" if labels else "no class folders"
        raise UserError(f"{source} has {has}; give at least two folders of images, one a class")
    if {label.lower() for label in labels} <= _SPLIT_NAMES:
        raise UserError(
            f"{source} is split already ({', '.join(labels)}); give one of its folders, such as {source / labels[0]}"
        )
    _check_classes(labels, [label for label, files in found.items() for _ in files], source)
    return found


def _images_below(class_folder: Path, source: Path) -> Iterator[str]:
    """Yield the posix paths in `source` of the images at any depth below a class folder."""

    def refuse(error: OSError) -> None:
        raise error

    for parent, folders, files in os.walk(class_folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS:
                yield (Path(parent) / name).relative_to(source).as_posix()


def _choose_evenly(found: dict[str | None, list[str]], max_images: int) -> list[tuple[str, str | None]]:
    """Choose at most `max_images` (path, class) pairs, the classes filled evenly, all in order of the paths' hash."""
    left, chosen = max_images, []
    smallest_first = sorted(found.items(), key=lambda item: len(item[1]))
    for position, (label, names) in enumerate(smallest_first):
        count = min(len(names), left // (len(found) - position))
        if label is not None and count < MIN_CLASS_IMAGES:
            least = MIN_CLASS_IMAGES * len(found)
            raise UserError(f"max_images={max_images} is too few for {len(found)} classes; give {least} or more")
        left -= count
        chosen += [(name, label) for name in sorted(names, key=hash_of)[:count]]
    return sorted(chosen, key=lambda pair: hash_of(pair[0]))


def _decode(path: Path, size: int) -> Image.Image:
    """Read an image as (size, size) RGB."""
    return Image.fromarray(rearrange(read_image(path, (size, size), reduced=True), "c h w -> h w c"))


def _check_broken(skipped: list[tuple[str, str]], number: int, source: Path) -> None:
    if len(skipped) > MAX_BROKEN_PART * number:
        name, reason = skipped[0]
        raise UserError(
            f"{len(skipped)} of {number} images in {source} cannot be read, such as {name} ({reason}); "
            "mend or remove them"
        )


def _check_classes(labels: list[str], classes: list[str | None], source: Path) -> None:
    for label in labels:
        count = classes.count(label)
        if count < MIN_CLASS_IMAGES:
            raise UserError(
                f"class {label!r} in {source} has {count} usable images; add some until it has {MIN_CLASS_IMAGES}, "
                "or remove its folder"
            )


def _check_distinct(classes: list[str | None], parts: list[str], source: Path) -> None:
    labelled = [label for label, part in zip(classes, parts, strict=True) if part in ("train", "test")]
    for label in dict.fromkeys(label for label in classes if label is not None):
        if labelled.count(label) < 2:
            raise UserError(
                f"class {label!r} in {source} has no two images that differ from each other and from other classes; "
                "add different ones or remove its folder"
            )
