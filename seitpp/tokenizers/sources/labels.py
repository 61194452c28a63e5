"""Class numbers of images, from the names or numbers that their source has for them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from seitpp.runtime.errors import UserError


def label_by_name(names: Sequence[Any], classes: Sequence[str] | None, where: object) -> tuple[np.ndarray, list[str]]:
    """Number the classes of images.

    Args:
        names: the class name of each, None where unknown.
        classes: class names whose indices are to be kept; None: those in `names`, sorted.
        where: what the images are, for the message.
    Returns: labels (n,) int32, -1 where unknown; class names.
    Raises: UserError for a name that `classes` lacks.
    """
    found = sorted({name for name in names if name is not None})
    if classes is None:
        classes = found
    elif set(found) - set(classes):
        raise UserError(f"{where} has a class {sorted(set(found) - set(classes))[0]!r} that the classifier lacks")
    index = {name: place for place, name in enumerate(classes)}
    return np.array([-1 if name is None else index[name] for name in names], np.int32), list(classes)


def label_by_number(
    numbers: Any, names: Sequence[str] | None, classes: Sequence[str] | None, where: object
) -> tuple[np.ndarray, list[str]]:
    """Labels that are numbers already.

    Args:
        numbers: class number of each image, -1 where unknown, (n,).
        names: class name of each number; None: they have none.
        classes: class names whose indices are to be kept; None: `names`.
        where: what the images are, for the message.
    Returns: labels (n,) int32; class names; where there are none, the numbers as strings.
    Raises: UserError for a number without a name, or a name that `classes` lacks.
    """
    numbers = np.asarray(numbers)
    known = names if names is not None else classes
    if numbers.dtype.kind not in "iu" or numbers.ndim != 1:
        raise UserError(f"{where} has labels that are not one whole number an image: they can't be class numbers")
    lowest, highest = (int(numbers.min()), int(numbers.max())) if len(numbers) else (-1, -1)
    if lowest < -1 or (known is not None and highest >= len(known)):
        most = f" to {len(known) - 1}" if known is not None else ""
        wrong = lowest if lowest < -1 else highest
        raise UserError(f"{where} has a class number {wrong}: expected numbers from -1 (unknown){most}")
    if names is not None and classes is not None and list(names) != list(classes):
        return label_by_name([names[number] if number >= 0 else None for number in numbers], classes, where)
    known = [str(number) for number in range(highest + 1)] if known is None else known
    return numbers.astype(np.int32), list(known)
