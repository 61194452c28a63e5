"""ImageNet-ReaL: several true labels for each image of ImageNet's validation set, or none.

`real.json` is a list of 50,000 lists of classes, in the order of the validation images' numbers. Images of an empty
list are left out; an answer is right if it is among the image's labels. timm ships the same list.

Source: Beyer et al. 2020 (arXiv 2006.07159).
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from seitpp.downstream.imagenet.imagenet_classes import COUNT, timm_list
from seitpp.runtime.errors import UserError
from seitpp.runtime.tables import read_utf8

TIMM = "timm"
"""Given for a file: the list that timm ships."""
_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})")


class RealLabels:
    """The true labels of validation images, by their keys.

    Args:
        file: real.json, or "timm".
        places: where the classifier has each class, (1000,) int64, -1 where it lacks it.

    Raises: UserError if the file is no such list.
    """

    def __init__(self, file: str | Path, places: Sequence[int]):
        self.file = file
        text = timm_list("imagenet_real_labels.json") if str(file) == TIMM else read_utf8(file)
        try:
            lists = json.loads(text)
            self.lists = [[places[_class(each)] for each in labels] for labels in lists]
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{file} is no real.json of ImageNet-ReaL ({error}): expected a list of lists of classes 0 to "
                f"{COUNT - 1}, in the order of the validation images"
            ) from error

    def __call__(self, key: str) -> tuple[int, ...]:
        """The true classes of an image, their places in the classifier; () for one that is left out.

        Raises: UserError if the key is not that of a validation image.
        """
        match = _NUMBER.search(key.rsplit("/", 1)[-1])
        number = int(match[1]) if match else 0
        if not 1 <= number <= len(self.lists):
            raise UserError(
                f"ImageNet-ReaL has no labels for {key}: expected --images of ImageNet's validation set, named "
                f"ILSVRC2012_val_00000001.JPEG to {len(self.lists):08d}"
            )
        return tuple(place for place in self.lists[number - 1] if place >= 0)


def _class(value):
    if not isinstance(value, int) or not 0 <= value < COUNT:
        raise ValueError(f"{value!r} is no class")
    return value
