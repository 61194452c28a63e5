"""Advice for a name that nobody knows: the nearest known one."""

import difflib


def did_you_mean(word, known, otherwise=None, *, dashes=""):
    """The end of an error line about an unknown name.

    Args:
        word: what was given, without dashes.
        known: the names that there are.
        otherwise: advice where none of them is near; None: the list of them.
        dashes: what is written before a name.
    """
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if near:
        return f"did you mean {dashes}{near[0]}?"
    return otherwise or f"there are: {', '.join(known) or 'none'}"
