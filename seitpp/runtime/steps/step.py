"""One step of many: its command, and what must come before it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command of many.

    Attributes:
        name: what the page calls it; unique.
        command: words as a user types them.
        after: names of steps that must be finished first.
        seconds: about how long it takes, for the time left.
        cores: 2 where it uses both lanes' cores, else 1.
    """

    name: str
    command: tuple
    after: tuple
    seconds: float
    cores: int = 1


def flag_words(flags: Mapping[str, Any]) -> tuple[str, ...]:
    """The words `--name value` by which a command takes exactly these values, whatever the texts look like.

    Args:
        flags: field name to value; lists and dictionaries become JSON, in which every text is quoted.
    """
    words: list[str] = []
    for name, value in flags.items():
        text = value if isinstance(value, str) else json.dumps(value)
        words += [f"--{name}={text}"] if text.startswith("-") else [f"--{name}", text]
    return tuple(words)
