"""Which class of a classifier each class of a data set is: the same name, else the same number."""

from collections.abc import Sequence

import numpy as np

from seitpp.runtime.errors import UserError

_SHOWN = 5


def match_classes(
    found: Sequence[str], known: Sequence[str], where: object, *, used: Sequence[int] | np.ndarray | None = None,
    first: int | None = None,
) -> np.ndarray:  # fmt: skip
    """Number the classes of a data set as a classifier does.

    1. Names that the classifier knows are its classes of these names.
    2. A classifier whose classes are named 0, 1, 2, … was told no names: its classes are as many names, sorted.
    3. Names that are numbers, of folders such as 0 to 999, count the classifier's classes: from `first`, or, sorted as
       numbers, all of them; else from 0 or 1, whichever the numbers show.

    Args:
        found: class names of the data set.
        known: class names in the order of the classifier's logits.
        where: the data set, for messages.
        used: places in `found` of classes that occur; the others need no match. None: all occur.
        first: the number of the classifier's first class, where numbers are to be read so.
    Returns: place in `known` of each class, (found,) int64; -1 for those that don't occur and match none.
    Raises: UserError that shows both lists if a class has no match, or if numbers might count from 0 or from 1.
    """
    known, used = list(known), range(len(found)) if used is None else used
    wanted = [found[place] for place in used]
    numbers = _numbers(wanted)
    if first is None and list(found) == list(known):
        return np.arange(len(found))
    if first is None and set(wanted) <= set(known):
        match = _by_name(wanted, known, where)
    elif first is None and len(found) == len(known) and list(known) == [str(place) for place in range(len(known))]:
        match = {name: place for place, name in enumerate(_sorted(found))}
    elif numbers is not None:
        match = dict(zip(wanted, _by_number(numbers, known, where, first), strict=True))
    else:
        alien = min(set(wanted) - set(known))
        raise UserError(
            f"{where} has a class {alien!r} that the classifier lacks: it has the classes {listed(found)}, the "
            f"classifier knows {listed(known)}; name them alike, or by number in the classifier's order"
        )
    return np.array([match.get(name, -1) for name in found], np.int64)


def listed(names: Sequence[str]) -> str:
    """The first of some names and how many there are: "ant, bee, cow, … (1000)"."""
    return f"{', '.join([*names[:_SHOWN], *(['…'] if len(names) > _SHOWN else [])])} ({len(names)})"


def _by_name(names, known, where):
    twice = sorted(name for name in set(names) if known.count(name) > 1) if len(set(known)) < len(known) else []
    if twice:
        raise UserError(f"{where} has a class {twice[0]!r}, and the classifier knows two of this name: use numbers")
    places = {name: place for place, name in enumerate(known)}
    return {name: places[name] for name in names}


def _by_number(numbers, known, where, first):
    """Places in `known` that numbers mean."""
    values = _numbers(known)
    if first is None and values is not None and set(numbers) <= set(values):  # 07 is the class 7
        return [values.index(number) for number in numbers]
    distinct = sorted(set(numbers))
    if first is None and len(distinct) == len(known):
        return [distinct.index(number) for number in numbers]
    start = _start(distinct, len(known)) if first is None else first
    shown = f"it has the classes {listed([str(each) for each in distinct])}, the classifier knows {listed(known)}"
    if start is None:
        raise UserError(
            f"{where}: do its class numbers count from 0 or from 1? Name the classes as the classifier does, or say "
            f"--first_class to seitpp evaluate; {shown}"
        )
    if distinct and not (distinct[0] >= start and distinct[-1] < start + len(known)):
        raise UserError(f"{where} has class numbers that are not {start} to {start + len(known) - 1}: {shown}")
    return [number - start for number in numbers]


def _start(distinct, count):
    """What numbers count from: 0 if it is among them, 1 if so the last class is; None if nothing shows it."""
    return 0 if not distinct or distinct[0] <= 0 else 1 if distinct[-1] >= count else None


def _numbers(names):
    """Names as whole numbers; None if one is none."""
    return [int(name) for name in names] if all(name.isascii() and name.isdigit() for name in names) else None


def _sorted(names):
    """Sorted as numbers where all are numbers."""
    return sorted(names) if _numbers(names) is None else sorted(names, key=int)
