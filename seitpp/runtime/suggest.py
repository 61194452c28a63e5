"""Advice for a name that nobody knows: the nearest known one."""

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str], otherwise: str | None = None, *, dashes: str = "") -> str:
    """The end of an error line about an unknown name.

    Args:
        word: what was given, without dashes.
        known: the names that there are.
        otherwise: advice where none of them is near; None: the list of them.
        dashes: what is written before a name.
    """
    names = list(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if near:
        return f"did you mean {dashes}{near[0]}?"
    return otherwise or f"there are: {', '.join(names) or 'none'}"
