"""Patterns that name many files: {000..012} counts, {a,b} are alternatives."""

import re
from itertools import product

from seitpp.runtime.errors import UserError

_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{},]*(?:,[^{},]*)+))\}")
_MOST = 1_000_000


def expand_braces(pattern: str, spec: str) -> list[str]:
    """All names of a pattern, in its order; wildcards stay as they are.

    Args:
        pattern: with any number of {first..last}, the width of `first` kept, and of {one,other}.
        spec: what the user gave, for messages.
    Raises: UserError if a range counts backwards, or there are more than a million names.
    """
    parts, choices, end, count = [], [], 0, 1
    for match in _BRACES.finditer(pattern):
        first, last, alternatives = match.groups()
        number = int(last) - int(first) + 1 if alternatives is None else alternatives.count(",") + 1
        if number < 1:
            raise UserError(f"{spec}: {match.group()} counts backwards")
        count *= number
        if count > _MOST:
            raise UserError(f"{spec}: {match.group()} makes more than {_MOST:,} names: write fewer")
        parts.append(pattern[end : match.start()])
        choices.append(
            [f"{each:0{len(first)}d}" for each in range(int(first), int(last) + 1)]
            if alternatives is None
            else alternatives.split(",")
        )
        end = match.end()
    fixed = [*parts, pattern[end:]]
    return [
        "".join(text for pair in zip(fixed, (*chosen, ""), strict=True) for text in pair)
        for chosen in product(*choices)
    ]
