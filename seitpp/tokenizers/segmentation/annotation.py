"""One annotation, a PNG whose pixels are numbers of classes, to the label map of a store."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.pixels import BrokenImage, image_faults

_DEPTHS = {"L;2": 85, "L;4": 17}
"""Rawmodes whose numbers Pillow stretches to 8 bits, and by how much."""
_DEEP = ("I;16", "I;16B", "I")


@dataclass(frozen=True)
class Meaning:
    """What the values of a data set's annotations mean.

    Attributes:
        classes: names; a label map of a store holds an index into them.
        numbers: (values,) int32, the index of each value of the files, -1 of one that counts for nothing, -2 of one
            that there must not be.
        palette: whether PNGs with a palette are read, as their indices.
    """

    classes: list[str]
    numbers: np.ndarray
    palette: bool = False

    @property
    def ignore(self) -> int:
        """The value of pixels that count for nothing in a store: 255, or 65535 where there are more classes."""
        return 255 if len(self.classes) <= 255 else 65535

    @classmethod
    def of(
        cls,
        classes: list[str],
        ignored: Sequence[int],
        *,
        of_values: Sequence[int] | None = None,
        palette: bool = False,
    ) -> "Meaning":
        """The meaning of values.

        Args:
            classes: names.
            ignored: values that count for nothing.
            of_values: the value of each class; None: the lowest that are not ignored, in order.
            palette: as the attribute.
        """
        left = iter(value for value in range(65536) if value not in ignored)
        values = [next(left) for _ in classes] if of_values is None else list(of_values)
        numbers = np.full(65536, -2, np.int32)
        numbers[list(ignored)] = -1
        numbers[values] = np.arange(len(classes))
        return cls(list(classes), numbers, palette)


def read_annotation(file: str | Path, meaning: Meaning, size: tuple[int, int], image: object) -> np.ndarray:
    """Read and check a label map.

    Args:
        file: a PNG, greyscale of up to 16 bits, or with a palette where the data set has such.
        meaning: of its values.
        size: (height, width) of its image.
        image: where that lies, for the message.
    Returns: (height, width) uint8, or uint16 where there are more than 255 classes: an index into the classes, or
        `meaning.ignore`.
    Raises: UserError in one line where it is no such file, of another size, or has a value that is no class; OSError
        where reading it failed, which may work the next time.
    """
    values = _values(file, meaning)
    if values.shape != size:
        raise UserError(
            f"{file} is of {values.shape[1]} x {values.shape[0]} pixels, its image {image} of {size[1]} x {size[0]} "
            f"(upright): annotate the image as it is, or leave both out"
        )
    numbers = meaning.numbers[values]
    if (numbers == -2).any():
        wrong, named = int(values[numbers == -2].min()), len(meaning.classes)
        place = np.argwhere(values == wrong)[0]
        raise UserError(
            f"{file} has the value {wrong} (column {place[1]}, line {place[0]}), which is none of the {named} classes "
            f"nor ignored: mend it, or name all classes and the ignored value"
        )
    return np.where(numbers < 0, meaning.ignore, numbers).astype(np.uint8 if meaning.ignore == 255 else np.uint16)


def _values(file: str | Path, meaning: Meaning) -> np.ndarray:
    """(height, width) of the numbers in a PNG, as they stand in it."""
    try:
        with image_faults(), Image.open(file, formats=("PNG",)) as image:
            mode, raw = image.mode, str(image.tile[0][3]) if image.tile else ""
            if mode == "P" and not meaning.palette:
                raise UserError(
                    f"{file} is a PNG with a palette, whose numbers may be no classes: if they are (as in Pascal VOC, "
                    f"--layout voc), save them as greyscale (Pillow: Image.fromarray(numpy.array(image)))"
                )
            if mode not in ("1", "L", "P", *_DEEP):
                raise UserError(
                    f"{file} is a colour picture (mode {mode}), expected a greyscale PNG of class numbers: convert "
                    f"its colours to numbers"
                )
            values = np.asarray(image)
    except BrokenImage as error:
        raise UserError(f"{file} can't be read as PNG ({error}): mend it, or leave its image out") from error
    if mode in _DEEP:
        return values.astype(np.uint16)
    return values.astype(np.uint8) // _DEPTHS.get(raw, 1)
