"""What storing tokens instead of images saves: bytes of token stores against those of the same images as files."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from einops import rearrange
from PIL import Image

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.decoding.resize import resize_of
from seitpp.tokenizers.sources.pixels import BrokenImage, open_image, quiet_decoding, read_image
from seitpp.tokens.files import LocalFiles
from seitpp.tokens.format.layout import row_bytes_of
from seitpp.tokens.format.manifest import check_owners, read_manifest
from seitpp.tokens.format.row_numbers import read_row_numbers
from seitpp.tokens.format.shard import Shard
from seitpp.tokens.format.size import store_size

MOST_IMAGES = 1000
ENCODINGS = {
    "PNG": {"format": "PNG"},
    "JPEG, quality 75": {"format": "JPEG", "quality": 75},
    "JPEG, quality 90": {"format": "JPEG", "quality": 90},
}
COLUMNS = ("kind", "bytes_per_image", "total_bytes", "measured_images")


@quiet_decoding()
def storage_table(store_folders: Sequence[str | Path], images_folder: str | Path | None = None) -> pd.DataFrame:
    """Compare token stores with the images that they were made of.

    PNGs and JPEGs are made of the pixels that the tokenizer saw (same size and resize), in memory, of at most 1,000
    images evenly spaced, and scaled up to all.

    Args:
        store_folders: folders of token stores.
        images_folder: the folder that was tokenised, or one that holds those folders (train, test); None: only the
            stores are measured.
    Returns: DataFrame with the columns kind, bytes_per_image, total_bytes and measured_images (fewer than all where the
        total is scaled up). The kinds: "packed tokens" or "coded tokens", "token store" (shards, codebook, tables and
        manifest; of a subset, its rows' part of the shards), "PNG files" (the files themselves; "image files" and "PNG"
        where they are of another size or format) and two qualities of JPEG.
    Raises: UserError if `images_folder` doesn't hold the images of each store.
    """
    stores = [(Path(folder), read_manifest(Path(folder) / "store.json")) for folder in store_folders]
    sizes = [_size(folder, manifest) for folder, manifest in stores]
    images = sum(size.rows for size in sizes)
    if not images:
        return pd.DataFrame(columns=COLUMNS)
    rows = [
        (f"{_coding(stores)} tokens", sum(size.tokens for size in sizes), images),
        ("token store", sum(size.total for size in sizes), images),
    ]
    if images_folder is not None:
        files = [file for folder, manifest in stores for file in _sized_images(folder, manifest, images_folder)]
        encoded, measured, as_is = _encoded_bytes(files)
        rows.append(("PNG files" if as_is else "image files", sum(path.stat().st_size for path, *_ in files), images))
        for kind, size in encoded.items():
            if not (as_is and kind == "PNG"):
                rows.append((kind, round(size / measured * images), measured))
    return pd.DataFrame([(kind, total / images, total, measured) for kind, total, measured in rows], columns=COLUMNS)


def _coding(stores):
    """How the tokens of stores are written: "packed" or, where any is, "coded"."""
    return "packed" if all(row_bytes_of(manifest) is not None for _, manifest in stores) else "coded"


def _size(folder, manifest):
    """StoreSize of a store, of which only store.json and its neighbours are looked at."""
    try:
        return store_size(manifest, lambda name: (folder / name).stat().st_size)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing: run the command that made the store again") from error


def folder_bytes(folder: str | Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def break_even(fixed_bytes: float, bytes_per_image: float, other_bytes_per_image: float) -> int | None:
    """Number of images from which a fixed cost has paid off; None if it never does."""
    saved = other_bytes_per_image - bytes_per_image
    return None if saved <= 0 else int(np.ceil(fixed_bytes / saved))


def find_images(store_folder: str | Path, manifest: dict[str, Any], images_folder: str | Path) -> list[Path] | None:
    """The images of a store, in the order of its rows.

    They are looked for in the folder in `images_folder` that has the store's name, in `images_folder` itself, then in
    the other folders in it.

    Returns: list of paths; None where no folder has all of them.
    """
    images_folder = Path(images_folder)
    keys = _keys(LocalFiles(store_folder), manifest)
    inside = sorted(path for path in images_folder.iterdir() if path.is_dir()) if images_folder.is_dir() else []
    for folder in (images_folder / Path(store_folder).resolve().name, images_folder, *inside):
        paths = [folder / key for key in keys]
        if all(path.is_file() for path in paths):
            return paths
    return None


def _sized_images(store_folder, manifest, images_folder):
    """[(path, (height, width) that the tokenizer saw, how the image was resized)] of a store's images."""
    paths = find_images(store_folder, manifest, images_folder)
    if paths is None:
        raise UserError(
            f"{images_folder} does not hold all images of the store {store_folder}: give --images the folder that was "
            "tokenised"
        )
    size = manifest["preprocessing"].get("image_size")
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int and 0 < side < 65536 for side in size):
        raise UserError(f"{store_folder} does not say at which size its images were read: leave out --images")
    resize = resize_of(manifest["preprocessing"])
    return [(path, tuple(size), resize) for path in paths]


def _keys(files, manifest):
    """Keys of all rows, by the format's own parts: a TokenStore would bring torch."""
    subset = manifest.get("subset")
    if subset:
        check_owners(manifest, files.manifest, files.folder)
    keys = []
    for entry in manifest["shards"]:
        keys += Shard(files.path(entry), entry, row_bytes_of(manifest)).keys()
    if subset:
        name = f"{files.folder}/{subset['file']}"
        chosen = read_row_numbers(files.read(subset["file"]), subset, len(keys), name)
        keys = [keys[row] for row in chosen.tolist()]
    return keys


def _encoded_bytes(files):
    """Bytes of a sample of images in each encoding, of the pixels that the tokenizer saw.

    Args:
        files: [(path, (height, width), resize)].
    Returns: ({kind: bytes}, number of images, whether all of them are PNG files of just these pixels).
    """
    sample = [files[index] for index in np.unique(np.linspace(0, len(files) - 1, MOST_IMAGES).astype(np.int64))]
    total = dict.fromkeys(ENCODINGS, 0)
    as_is = all(path.suffix.lower() == ".png" for path, *_ in files)
    for path, size, resize in sample:
        try:
            pixels = read_image(path, size, resize)
        except BrokenImage as error:
            raise UserError(f"{path} can't be decoded ({error}): remove or mend it") from error
        for kind, options in ENCODINGS.items():
            buffer = io.BytesIO()
            Image.fromarray(rearrange(pixels, "c h w -> h w c")).save(buffer, **options)
            total[kind] += buffer.tell()
        with open_image(path) as image:
            as_is = as_is and image.size == (size[1], size[0])
    return total, len(sample), as_is
