"""A tiny world with label maps: scenes whose classes are known exactly, and a segmentation store written by hand.

The ids of a store tell the class (`7 * class + noise`), so that a segmenter can learn them in seconds.
"""

from pathlib import Path

import numpy as np
import torch

import tiny
from seitpp.tokenizers.segmentation.windowing import Windowing, resize_mask
from seitpp.tokens.codec import pack
from seitpp.tokens.format.targets import Targets
from seitpp.tokens.store import write_manifest, write_shard

CLASSES = ("sky", "grass", "road")
IGNORE = 255
TOKEN = 4
"""Pixels a side of a token."""
WINDOW = (16, 24)
"""Pixels of a window; its grid is 4 x 6."""
SIZES = ((16, 24), (20, 31), (40, 17), (9, 30), (33, 48))
"""(height, width) of the images: as large as a window, odd, portrait, lower than a window, several windows."""


def make_scene(height, width, *, seed=0, classes=3):
    """A label map (height, width) uint8: a class above a slanted line, others below, a box of ignored pixels."""
    random = np.random.default_rng([seed, height, width])
    lines, columns = np.mgrid[:height, :width]
    mask = np.full((height, width), random.integers(classes), np.uint8)
    for _ in range(2):
        slope, start = random.uniform(-0.5, 0.5), random.uniform(0.2, 0.9) * height
        mask[lines > start + slope * columns] = random.integers(classes)
    top, left = random.integers(height - 2), random.integers(width - 2)
    mask[top : top + 2, left : left + 3] = IGNORE
    return mask


def make_picture(mask, *, seed=0):
    """An image (height, width, 3) uint8 of a label map: a colour of its own for each class, and noise."""
    random = np.random.default_rng(seed)
    colours = np.full((256, 3), 20)
    colours[:6] = [(200, 60, 60), (60, 200, 60), (60, 60, 200), (200, 200, 60), (200, 60, 200), (60, 200, 200)]
    return (colours[mask] + random.integers(-15, 16, (*mask.shape, 3))).astype(np.uint8)


def token_ids(mask, *, seed=0, token=TOKEN):
    """Ids (h, w) of a window's label map: 7 times the class that most of a token's pixels have, plus 0, 1 or 2."""
    height, width = mask.shape[0] // token, mask.shape[1] // token
    blocks = mask.reshape(height, token, width, token).swapaxes(1, 2).reshape(height, width, token * token)
    counts = np.stack([(blocks == number).sum(axis=-1) for number in range(5)], axis=-1)
    noise = np.random.default_rng(seed).integers(3, size=(height, width))
    return (7 * counts.argmax(axis=-1) + noise) % tiny.CODES


def make_segmentation_store(
    folder, sizes=SIZES, *, window=WINDOW, stride=None, short_side=16, classes=CLASSES, masks=None, seed=0,
    images_per_shard=2, token=TOKEN, fingerprint="a" * 64, truths=True,
):  # fmt: skip
    """Write a segmentation store by hand; returns (folder, label maps of the images at their own sizes).

    Args:
        folder: where it goes.
        sizes: (height, width) of each image.
        window, stride: pixels; the stride is the window where it is None.
        short_side: of the resized images; None: they keep their size.
        classes: names of the masks' values.
        masks: label maps instead of made-up ones, one for each of `sizes`.
        seed: of scenes and noise.
        images_per_shard: all windows of an image are in one shard.
        token: pixels a side of a token.
        truths: keep label maps at the images' own size too.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    windowing = Windowing(size=window, stride=stride or window, short_side=short_side)
    if masks is None:
        masks = [make_scene(*size, seed=seed + place, classes=len(classes)) for place, size in enumerate(sizes)]
    shards = []
    for start in range(0, len(sizes), images_per_shard):
        ids, keys, labelled, places, whole_maps = [], [], [], [], []
        for image in range(start, min(start + images_per_shard, len(sizes))):
            resized = windowing.resized(*masks[image].shape)
            whole = resize_mask(masks[image], resized)
            for top, left in windowing.places(*resized):
                part = windowing.fill(whole, (top, left), outside=IGNORE)
                ids.append(token_ids(part, seed=image, token=token))
                keys.append(f"{image:04d}.png#{top},{left}")
                labelled.append(part)
                whole_maps.append(masks[image] if (top, left) == (0, 0) else None)
                places.append((image, top, left, *resized, *masks[image].shape))
        path = folder / f"shard-{len(shards):05d}.arrow"
        packed = pack(torch.from_numpy(np.stack(ids)), tiny.CODES).numpy()
        targets = Targets.of(masks=labelled, windows=places, truths=whole_maps if truths else None)
        shards.append(write_shard(path, packed, [-1] * len(ids), keys, targets))
    write_manifest(
        folder, tokenizer={"name": "vq", "fingerprint": fingerprint}, lookup="euclidean",
        codebook=torch.from_numpy(np.random.default_rng(3).standard_normal((tiny.CODES, 5))).float(),
        grid=(window[0] // token, window[1] // token), preprocessing={"image_size": list(window)}, classes=[],
        shards=shards, mask={"classes": list(classes), "ignore": IGNORE},
        windows={
            "size": list(window), "stride": list(stride or window), "short_side": short_side, "tile": list(window)
        },
    )  # fmt: skip
    return folder, masks
