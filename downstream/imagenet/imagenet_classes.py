"""The 1,000 classes of ImageNet, those that its benchmarks show, and their places in a classifier.

timm ships the lists; classes are numbered here from 0 in the order of their sorted WordNet ids, as everywhere.
"""

import pkgutil
from collections.abc import Sequence
from functools import cache

import numpy as np

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.class_order import listed

COUNT = 1000


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """WordNet ids of ImageNet's classes, sorted."""
    from timm.data.imagenet_info import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())


@cache
def classes_of_benchmark(letter: str) -> tuple[int, ...]:
    """The classes that ImageNet-A ("a") or ImageNet-R ("r") shows, 200 each, rising."""
    return tuple(int(line) for line in timm_list(f"imagenet_{letter}_indices.txt").split())


def timm_list(name: str) -> str:
    """The text of a file of timm's `data/_info`."""
    content = pkgutil.get_data("timm.data", f"_info/{name}")
    assert content is not None
    return content.decode()


def places_in(known: Sequence[str]) -> np.ndarray:
    """Where a classifier has each of ImageNet's classes.

    Args:
        known: class names in the order of its logits: WordNet ids in any order, ImageNet-100's for instance; or the
            numbers 0 to 999, which a classifier has whose classes were given no names, for the sorted WordNet ids.
    Returns: (1000,) int64, -1 for classes that it lacks.
    Raises: UserError if its classes are neither.
    """
    place_of = {name: place for place, name in enumerate(known)}
    places = np.array([place_of.get(name, -1) for name in imagenet_wnids()], np.int64)
    if (places >= 0).any():
        return places
    if list(known) == [str(number) for number in range(COUNT)]:
        return np.arange(COUNT)
    raise UserError(
        f"--benchmarks need a classifier of ImageNet's classes, named by WordNet ids (n01440764, …) or by the "
        f"numbers 0 to {COUNT - 1} in their order; this one knows {listed(known)}"
    )


def is_whole(known: Sequence[str]) -> bool:
    """Whether a classifier knows exactly ImageNet's 1,000 classes."""
    if len(known) != COUNT:
        return False
    return set(known) == set(imagenet_wnids()) or list(known) == [str(number) for number in range(COUNT)]
