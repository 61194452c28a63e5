"""Read each image of a source once, small: which can be decoded, and which look alike."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from einops import rearrange

from seitpp.pipeline.leak_free import THUMBNAIL_SIZE, merge_near_duplicates
from seitpp.runtime.errors import UserError
from seitpp.runtime.progress import Progress
from seitpp.tokenizers.sources.listing.left_out import LeftOut
from seitpp.tokenizers.sources.pixels import BrokenImage, quiet_decoding, read_image
from seitpp.tokenizers.tokenize import spare_cores

_AT_ONCE = 512


@dataclass(frozen=True)
class LookAlikes:
    """What reading all images told.

    Attributes:
        whole: places of the images that can be decoded, (n,) int64.
        groups: group index of each of these, (n,) int64; images of one group look alike.
        broken: the others.
    """

    whole: np.ndarray
    groups: np.ndarray
    broken: list[LeftOut]


def find_look_alikes(files: list[str], keys: list[str]) -> LookAlikes:
    """Decode every image to 16 x 16 pixels (768 bytes, all that is kept of it) and group those that look alike.

    Args:
        files: path of each image.
        keys: name of each, for what is left out.
    Raises: UserError if none can be decoded.
    """
    thumbnails = np.empty((len(files), THUMBNAIL_SIZE, THUMBNAIL_SIZE, 3), np.uint8)
    whole, broken = [], []
    with quiet_decoding(), ThreadPoolExecutor(spare_cores()) as threads, Progress(len(files), "compare") as progress:
        for start in range(0, len(files), _AT_ONCE):
            for place, found in enumerate(threads.map(_small, files[start : start + _AT_ONCE]), start):
                if isinstance(found, str):
                    broken.append(LeftOut(keys[place], "not decodable", found))
                else:
                    thumbnails[len(whole)] = found
                    whole.append(place)
            progress.update(min(len(files), start + _AT_ONCE))
    if not whole:
        raise UserError(f"none of the {len(files)} images can be decoded (first: {files[0]}: {broken[0].detail})")
    return LookAlikes(np.array(whole), merge_near_duplicates(thumbnails[: len(whole)]), broken)


def _small(file: str) -> np.ndarray | str:
    """(16, 16, 3) uint8 of the whole image, or why there is none."""
    try:
        return rearrange(read_image(file, (THUMBNAIL_SIZE, THUMBNAIL_SIZE), "squash", reduced=True), "c h w -> h w c")
    except BrokenImage as error:
        return str(error)
