"""Turn a user's folder of class folders into small PNGs, split into training and test images without leaks.

    source/cats/a.jpg  source/cats/2024/b.png  source/dogs/c.webp  source/no-label.jpg

becomes, with everything decoded once and the split decided by `seitpp.pipeline.leak_free`:

    folder/train/<class>/<name>-<hash>.png   one image of each group of look-alikes, with its label
    folder/train/<name>-<hash>.png           images without a label, and the rest of those groups: for pre-training
    folder/test/<class>/<name>-<hash>.png    one image of each test group; the rest of a test group is left out
    folder/skipped.csv                       file, reason: what gave no image, and what lost its label

`seitpp.demo.openmoji` writes the same layout with the same functions.
"""

import csv
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from einops import rearrange
from PIL import Image

from seitpp.pipeline.leak_free import THUMBNAIL_SIZE, assign_parts, hash_of, merge_near_duplicates
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import replacing
from seitpp.tokenizers.sources.decoding.resize import Resize
from seitpp.tokenizers.sources.images import ImageFolder, open_image_folder
from seitpp.tokenizers.sources.listing.left_out import LeftOut, counted, read_skipped, write_skipped
from seitpp.tokenizers.sources.pixels import BrokenImage, quiet_decoding, read_image

MIN_CLASS_IMAGES = 4
MAX_BROKEN_PART = 0.1


def prepare_folder(
    source: str | Path, folder: str | Path, *, size: int = 64, max_images: int = 6000, resize: Resize = "crop"
) -> str:
    """Write the images of `source` as a split folder (layout above); do nothing where it is already there.

    Args:
        source: folder with one folder of images a class, nested at will; images directly in it are unlabelled.
        folder: the folder to make; it appears under this name only when it is whole.
        size: side of the written images in pixels, 16 or more.
        max_images: how many images are read at most, chosen by hash, as evenly over the classes as they allow; the
            unlabelled ones count as one more class.
        resize: how the images become square: by default the short side is resized to `size`, then the centre cut.
    Returns: what was left out, and which classes are too small and so unlabelled, counted; "" for nothing.

    Raises:
        UserError: If `source` is missing, no folder, without images, or split already (train, test); if it has fewer
            than two classes of at least 4 usable and 2 distinct images; if more than a tenth of the images cannot be
            read; if `folder` lies in `source` or holds something else.
    """
    source, folder = Path(source), Path(folder)
    check_size(size)
    if is_prepared(folder):
        return counted(read_skipped(folder / "skipped.csv"))
    images = _open(source)
    if folder.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{folder} lies inside the images' folder {source}; name a folder outside it")
    found, unlabelled = _classes(images), {}
    for label in [label for label, names in found.items() if label is not None and len(names) < MIN_CLASS_IMAGES]:
        unlabelled[label] = names = found.pop(label)
        found.setdefault(None, []).extend(names)
    _check_classes(found, unlabelled, source)
    chosen = _choose_evenly(found, max_images)
    with replacing(folder) as fresh, quiet_decoding():
        decoded = fresh / "decoded"
        decoded.mkdir(parents=True)
        whole, thumbnails, skipped = _decode_all(source, chosen, decoded, size, resize)
        _check_broken(skipped, len(chosen), source)
        groups = merge_near_duplicates(np.stack(thumbnails))
        names = [name for name, _ in whole]
        classes, parts = _parts(groups, [label for _, label in whole], names)
        unlabelled |= {label: found[label] for label in found.keys() - {None, *classes}}
        _check_classes(classes, unlabelled, source)
        for index, (name, label, part) in enumerate(zip(names, classes, parts, strict=True)):
            if part != "dropped":
                target = image_path(fresh, part, label, f"{Path(name).stem[:40]}-{hash_of(name)[:12]}")
                (decoded / f"{index}.png").rename(target)
        shutil.rmtree(decoded)
        broken = {each.file for each in skipped}
        small = [LeftOut(name, f"of the small class {label!r}, left unlabelled") for label in sorted(unlabelled)
                 for name in unlabelled[label] if name not in broken]  # fmt: skip
        left_out = sorted([*images.left_out, *skipped, *small], key=lambda each: each.file)
        write_skipped(fresh / "skipped.csv", left_out)
    return counted(left_out)


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


def _open(source: Path) -> ImageFolder:
    """List the images, by the rules of every command."""
    advice = "give a folder that holds one folder of images a class"
    if not source.exists():
        raise UserError(f"{source} does not exist; {advice}")
    if not source.is_dir():
        raise UserError(f"{source} is a file, not a folder; {advice}")
    return open_image_folder(source)


def _classes(images: ImageFolder) -> dict[str | None, list[str]]:
    """The keys of each class, in order; None holds the unlabelled ones."""
    found: dict[str | None, list[str]] = {}
    for key, label in zip(images.keys, images.labels, strict=True):
        found.setdefault(None if label < 0 else images.classes[label], []).append(key)
    return found


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


def _decode_all(source: Path, chosen: list[tuple[str, str | None]], folder: Path, size: int, resize: Resize):
    """Write each image as NUMBER.png; returns (name, label) of each, their thumbnails, and what is not decodable."""
    whole, thumbnails, skipped = [], [], []
    for name, label in chosen:
        try:
            image = _decode(source / name, size, resize)
        except BrokenImage as error:
            skipped.append(LeftOut(name, "not decodable", str(error)))
            continue
        image.save(folder / f"{len(whole)}.png")
        whole.append((name, label))
        thumbnails.append(thumbnail(image))
    return whole, thumbnails, sorted(skipped, key=lambda each: each.file)


def _decode(path: Path, size: int, resize: Resize) -> Image.Image:
    """Read an image as (size, size) RGB."""
    return Image.fromarray(rearrange(read_image(path, (size, size), resize, reduced=True), "c h w -> h w c"))


def _parts(groups: np.ndarray, classes: Sequence[str | None], names: Sequence[str]):
    """(labels, parts) of the images; a class that is too small to be divided loses its label.

    A class needs 4 images, and 2 that differ from each other and from those of other classes.
    """
    classes = list(classes)
    counts = Counter(classes)
    small = {label for label in counts if label is not None and counts[label] < MIN_CLASS_IMAGES}
    while True:
        classes = [None if label in small else label for label in classes]
        parts = assign_parts(groups, classes, names)
        labelled = Counter(label for label, part in zip(classes, parts, strict=True) if part in ("train", "test"))
        small = {label for label in classes if label is not None and labelled[label] < 2}
        if not small:
            return classes, parts


def _check_broken(skipped: list[LeftOut], number: int, source: Path) -> None:
    if len(skipped) > MAX_BROKEN_PART * number:
        raise UserError(
            f"{len(skipped)} of {number} images in {source} cannot be read, such as {skipped[0].file} "
            f"({skipped[0].detail}); mend or remove them"
        )


def _check_classes(labels: Iterable[str | None], unlabelled: dict[str, list[str]], source: Path) -> None:
    """Refuse fewer than two classes."""
    usable = sorted({label for label in labels if label is not None})
    if len(usable) >= 2:
        return
    has = f"one class only, {usable[0]!r}" if usable else "no class folders" if not unlabelled else "no class"
    small = ""
    if unlabelled:
        small = (
            f" (left unlabelled: {', '.join(sorted(unlabelled))}: a class needs {MIN_CLASS_IMAGES} usable images, "
            "two of which differ from each other and from other classes)"
        )
    raise UserError(f"{source} has {has}{small}; give at least two folders of images, one a class")
