"""Words of a command line that belong to no flag, such as the files of `seitpp predict a.jpg b.jpg --top 3`."""

from collections import deque
from collections.abc import Sequence
from dataclasses import field, fields
from typing import Any

_ALONE = ("-h", "--help", "--print_config")
"""Flags that no value follows; all others take one."""


def positional_field() -> Any:
    """The field, a tuple of strings, that takes such words as they are typed; a configuration has at most one."""
    return field(default=(), metadata={"positional": True})


def without_positional(config_class: type, argv: Sequence[str]) -> tuple[list[str], dict[str, tuple[str, ...]]]:
    """Divide a command line into flags with their values, and the words that belong to no flag.

    Args:
        config_class: a dataclass.
        argv: words; all of them after `--` belong to no flag, `-` is a word like others.
    Returns: the flags and values, all of `argv` if no field takes other words; {field: words}, {} if there are none.
    """
    words, flags, rest = [], [], deque(argv)
    name = next((each.name for each in fields(config_class) if each.metadata.get("positional")), None)
    if name is None:
        return list(argv), {}
    while rest:
        word = rest.popleft()
        if word == "--":
            words += rest
            break
        elif word == "-" or not word.startswith("-"):
            words.append(word)
        else:
            flags.append(word)
            if rest and word.startswith("--") and "=" not in word and word not in _ALONE:
                flags.append(rest.popleft())
    return flags, {name: tuple(words)} if words else {}
