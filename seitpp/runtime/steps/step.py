"""One step of many: its command, and what must come before it."""

from dataclasses import dataclass


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
