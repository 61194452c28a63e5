"""Where images and annotations lie in the official archives of data sets, and in any two folders.

ade20k      ADEChallengeData2016/images|annotations/training|validation, objectInfo150.txt; 0 is ignored
cityscapes  leftImg8bit/train/CITY/*_leftImg8bit.png, gtFine/train/CITY/*_gtFine_labelIds.png; the 19 train classes
voc         JPEGImages, SegmentationClass (PNGs with a palette), ImageSets/Segmentation/train.txt; 255 is ignored
folders     --images and --masks, a PNG for every image under the same name, and --mask_classes
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from seitpp.runtime.errors import UserError
from seitpp.runtime.rights import check_readable
from seitpp.runtime.tables import read_utf8
from seitpp.tokenizers.segmentation.annotation import Meaning
from seitpp.tokenizers.segmentation.images import SegmentationImages
from seitpp.tokenizers.segmentation.official import (
    CITYSCAPES,
    CITYSCAPES_IDS,
    CITYSCAPES_VALUES,
    VOC,
    VOC_IGNORED,
    read_ade_classes,
)
from seitpp.tokenizers.sources.listing.folder import list_images

_PARTS = {"ade20k": {"train": "training", "val": "validation"}}
_ROOTS = (".", "ADEChallengeData2016", "VOCdevkit/VOC2012", "VOC2012")
_SIGNS = {
    "ade20k": ("images", "annotations"),
    "cityscapes": ("leftImg8bit", "gtFine"),
    "voc": ("JPEGImages", "SegmentationClass"),
}
"""Folders that show a layout."""


def open_segmentation(
    images: str | Path, *, layout: str | None = None, split: str = "train", masks: str | Path | None = None,
    classes: Sequence[str] | None = None, ignore: int | None = None,
) -> SegmentationImages:  # fmt: skip
    """List the images of a data set and their annotations; none is decoded.

    Args:
        images: the data set's folder; of the layout folders, the folder of images.
        layout: one of those above; None: what the folders show.
        split: part of the data set, "train" or "val", or as it is called there; not of the layout folders.
        masks: folder of annotations, of the layout folders.
        classes: names of the masks' values; None: the data set's own, which the layout folders has none of.
        ignore: of the layout folders, the value that counts for nothing; None: 255, or 65535 of more classes.
    Raises: UserError in one line if the layout can't be told, or a folder, list or annotation is missing.
    """
    root, layout = _found(Path(images), layout, masks)
    if layout == "folders":
        if masks is None or classes is None:
            lacking = "--masks FOLDER" if masks is None else "--mask_classes FILE, names of the masks' values"
            raise UserError(f"--layout folders needs {lacking}")
        value = (255 if len(classes) <= 255 else 65535) if ignore is None else ignore
        listing = list_images(root)
        files = _paired(root, listing.keys, lambda key: Path(masks) / Path(key).with_suffix(".png"))
        meaning = Meaning.of(list(classes), [value])
        return SegmentationImages(root, listing.keys, files, meaning, layout, listing.left_out)
    if ignore is not None:
        raise UserError(f"--mask_ignore is for --layout folders: {layout} says itself what is ignored")
    part = _PARTS.get(layout, {}).get(split, split)
    return {"ade20k": _ade20k, "cityscapes": _cityscapes, "voc": _voc}[layout](root, part, classes)


def _found(folder: Path, layout: str | None, masks: str | Path | None) -> tuple[Path, str]:
    """(the data set's own folder, its layout)."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder of a segmentation data set: check --images")
    if layout == "folders" or (layout is None and masks is not None):
        return folder, "folders"
    for root in (folder / name for name in _ROOTS):
        for name, signs in _SIGNS.items():
            if layout in (None, name) and all((root / sign).is_dir() for sign in signs):
                return root, name
    if layout is not None:
        raise UserError(f"{folder} has no folders {' and '.join(_SIGNS[layout])}, as --layout {layout} has them")
    raise UserError(
        f"{folder} is laid out neither as ADE20K, Cityscapes nor Pascal VOC: give --masks FOLDER and "
        f"--mask_classes FILE"
    )


def _ade20k(root: Path, part: str, classes: Sequence[str] | None) -> SegmentationImages:
    names = read_ade_classes(root / "objectInfo150.txt") if classes is None else list(classes)
    keys, left_out = _listed(root, f"images/{part}")
    files = _paired(root, keys, lambda key: root / "annotations" / part / f"{Path(key).stem}.png")
    return SegmentationImages(root, keys, files, Meaning.of(names, [0]), "ade20k", left_out)


def _cityscapes(root: Path, part: str, classes: Sequence[str] | None) -> SegmentationImages:
    keys, left_out = _listed(root, f"leftImg8bit/{part}")
    keys = [key for key in keys if Path(key).stem.endswith("_leftImg8bit")]

    def mask_of(key: str) -> Path:
        name = Path(key).stem.removesuffix("_leftImg8bit")
        return root / "gtFine" / part / Path(key).parent.name / f"{name}_gtFine_labelIds.png"

    ignored = [value for value in CITYSCAPES_IDS if value not in CITYSCAPES_VALUES]
    meaning = Meaning.of(_own(classes, CITYSCAPES, root), ignored, of_values=CITYSCAPES_VALUES)
    return SegmentationImages(root, keys, _paired(root, keys, mask_of), meaning, "cityscapes", left_out)


def _voc(root: Path, part: str, classes: Sequence[str] | None) -> SegmentationImages:
    names = [line.strip() for line in _lines(root / "ImageSets" / "Segmentation" / f"{part}.txt") if line.strip()]
    if not names:
        raise UserError(f"{root}/ImageSets/Segmentation/{part}.txt names no image")
    keys = [f"JPEGImages/{name}.jpg" for name in names]
    if missing := [key for key in keys if not (root / key).is_file()]:
        raise UserError(f"{root / missing[0]} is missing, which ImageSets/Segmentation/{part}.txt names")
    if len(set(keys)) < len(keys):
        twice = max(names, key=names.count)
        raise UserError(f"{root}/ImageSets/Segmentation/{part}.txt names {twice} twice")
    files = _paired(root, keys, lambda key: root / "SegmentationClass" / f"{Path(key).stem}.png")
    meaning = Meaning.of(_own(classes, VOC, root), VOC_IGNORED, palette=True)
    return SegmentationImages(root, keys, files, meaning, "voc")


def _own(classes: Sequence[str] | None, official: Sequence[str], root: Path) -> list[str]:
    if classes is not None and len(classes) != len(official):
        raise UserError(f"--mask_classes names {len(classes)} classes, {root} has {len(official)}: leave it out")
    return list(official if classes is None else classes)


def _listed(root: Path, part: str) -> tuple[list[str], list]:
    """(paths of the images of a part from the root, what is left out)."""
    if not (root / part).is_dir():
        there = sorted(path.name for path in (root / part).parent.iterdir() if path.is_dir())
        raise UserError(f"{root / part} is missing: choose --split among {', '.join(there) or 'none'}")
    listing = list_images(root / part)
    return [f"{part}/{key}" for key in listing.keys], listing.left_out


def _paired(root: Path, keys: Sequence[str], mask_of: Callable[[str], Path]) -> list[Path]:
    """The annotation of each image.

    Raises: UserError naming the first that is missing.
    """
    files = [mask_of(key) for key in keys]
    missing = [(key, file) for key, file in zip(keys, files, strict=True) if not file.is_file()]
    if missing:
        key, file = missing[0]
        further = f", as {len(missing) - 1:,} others are" if len(missing) > 1 else ""
        raise UserError(f"{file} is missing, the annotation of {root / key}{further}: add it, or leave the image out")
    return files


def _lines(file: Path) -> list[str]:
    if not file.is_file():
        there = sorted(path.stem for path in file.parent.glob("*.txt"))
        raise UserError(f"{file} is missing: choose --split among {', '.join(there) or 'none'}")
    check_readable(file)
    return read_utf8(file).splitlines()
