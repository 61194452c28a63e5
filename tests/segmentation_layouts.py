"""Miniatures of segmentation data sets in the exact layouts of their archives, with label maps that are known.

Sizes are odd, portrait and landscape; one image is smaller than a window of 48 pixels, one is grey.
"""

from fractions import Fraction

import numpy as np
from PIL import Image

import tiny_segmentation

SIZES = ((61, 97), (83, 50), (29, 37), (48, 48), (33, 120))
"""(height, width): landscape, portrait, smaller than a window, a window, long and low. The last but one is grey."""
GREY = 3
CITY_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
ADE_HEAD = "Idx\tRatio\tTrain\tVal\tName\n"


def scenes(sizes=SIZES, *, classes=6, seed=0):
    """Label maps of the sizes: class numbers below `classes`, and 255 where nothing is annotated."""
    return [tiny_segmentation.make_scene(*size, classes=classes, seed=seed + place) for place, size in enumerate(sizes)]


def write_image(path, mask, *, grey=False, seed=0):
    """An image of a label map, JPEG or PNG by its name; grey ones have one channel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(tiny_segmentation.make_picture(mask, seed=seed))
    (image.convert("L") if grey else image).save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))


def write_mask(path, values, *, palette=False):
    """A PNG of numbers, greyscale or with a palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if palette:
        image.putpalette([channel for value in range(256) for channel in (value * 37 % 256, value * 91 % 256, value)])
    image.save(path)


def write_ade20k(root, masks=None, *, parts=("training", "validation")):
    """ADEChallengeData2016: 150 classes, 1 to 150, 0 ignored; returns {key: label map in class numbers}.

    Both parts have the same scenes.
    """
    masks, truth = scenes() if masks is None else masks, {}
    for part in parts:
        short = "train" if part == "training" else "val"
        for place, mask in enumerate(masks):
            name = f"ADE_{short}_{place + 1:08d}"
            write_image(root / "images" / part / f"{name}.jpg", mask, grey=place == GREY)
            values = np.where(mask == 255, 0, mask + 1).astype(np.uint8)
            write_mask(root / "annotations" / part / f"{name}.png", values)
            truth[f"images/{part}/{name}.jpg"] = mask
    names = ["wall", "building, edifice", "sky", *[f"class {number}, another name" for number in range(4, 151)]]
    rows = [f"{number}   \t0.1   \t10 \t5   \t{name}        \n" for number, name in enumerate(names, 1)]
    (root / "objectInfo150.txt").write_text(ADE_HEAD + "".join(rows))
    return truth


def write_cityscapes(root, masks=None, *, part="train"):
    """LeftImg8bit and gtFine of two cities, ids of 0 to 33 in the files; returns {key: label map in train ids}."""
    masks, truth = scenes(classes=19) if masks is None else masks, {}
    for place, mask in enumerate(masks):
        city = ("aachen", "zurich")[place % 2]
        name = f"{city}_{place:06d}_000019"
        key = f"leftImg8bit/{part}/{city}/{name}_leftImg8bit.png"
        write_image(root / key, mask, grey=place == GREY)
        values = np.full(mask.shape, place % 7, np.uint8)  # 0 to 6: ids that are not evaluated
        known = mask != 255
        values[known] = np.array(CITY_IDS, np.uint8)[mask[known]]
        gt = root / "gtFine" / part / city
        write_mask(gt / f"{name}_gtFine_labelIds.png", values)
        write_mask(gt / f"{name}_gtFine_instanceIds.png", values)
        (gt / f"{name}_gtFine_polygons.json").write_text("{}")
        truth[key] = mask
    return truth


def write_voc(root, masks=None):
    """Pascal VOC 2012: PNGs with a palette, 255 ignored, lists of names; returns {key: label map} of train.

    Beside it are images that the list does not name.
    """
    masks, truth = scenes(classes=21) if masks is None else masks, {}
    names = [f"2007_{place:06d}" for place in range(len(masks))]
    for place, (name, mask) in enumerate(zip(names, masks, strict=True)):
        write_image(root / "JPEGImages" / f"{name}.jpg", mask, grey=place == GREY)
        write_mask(root / "SegmentationClass" / f"{name}.png", mask, palette=True)
        truth[f"JPEGImages/{name}.jpg"] = mask
    write_image(root / "JPEGImages" / "2008_000001.jpg", masks[0])
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("".join(f"{name}\n" for name in names))
    (lists / "val.txt").write_text(f"{names[1]}\n")
    return truth


def write_folders(root, masks=None, *, names=("sky", "grass", "road", "sand", "sea", "snow")):
    """Folders images and masks with a sub-folder, and classes.txt; returns {key: label map}."""
    masks, truth = scenes(classes=len(names)) if masks is None else masks, {}
    for place, mask in enumerate(masks):
        name = f"{'north' if place % 2 else 'south'}/{place}"
        write_image(root / "images" / f"{name}.png", mask, grey=place == GREY)
        write_mask(root / "masks" / f"{name}.png", mask)
        truth[f"{name}.png"] = mask
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    return dict(sorted(truth.items(), key=lambda pair: pair[0].split("/")))


def seen(mask, size):
    """A label map resized to the nearest, a pixel at a time: the label under the new pixel's centre."""
    (height, width), (old_height, old_width) = size, mask.shape
    lines = [int(Fraction(2 * line + 1, 2) * old_height / height) for line in range(height)]
    columns = [int(Fraction(2 * column + 1, 2) * old_width / width) for column in range(width)]
    return np.array([[mask[line, column] for column in columns] for line in lines], mask.dtype)
