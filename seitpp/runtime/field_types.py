"""Types of a configuration's fields: what a value must be, in words, and lists and mappings as people type them.

--view 8,8                        [8, 8]
--classes ant,bee                 [ant, bee]
--classifiers runs/a              [runs/a]
--domains sketch=photos/sketch    {sketch: photos/sketch}
"""

import json
import types
from collections.abc import Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from seitpp.runtime.locations import Location

_PLAIN = {
    int: ("a whole number", "whole numbers", "8"), float: ("a number", "numbers", "0.5"),
    bool: ("true or false", "true or false", "true"), str: ("a text", "names", "a"),
    Location: ("a file, folder or URL", "files or folders", "runs/a"),
}  # fmt: skip
"""Of each type: one in words, several, an example."""


def field_types(config_class: type, prefix: str = "") -> dict[str, Any]:
    """The type of each key of a configuration class, in dotted form; nested configurations are keys, too."""
    kinds: dict[str, Any] = {}
    for name, kind in get_type_hints(config_class).items():
        if name not in config_class.__dataclass_fields__:  # type: ignore[attr-defined]
            continue
        kinds[prefix + name] = kind
        if is_dataclass(kind):
            kinds |= field_types(kind, f"{prefix}{name}.")  # type: ignore[arg-type]
    return kinds


def in_words(kind: Any) -> str:
    """What a value of a type must be, such as "2 whole numbers, such as 8,8, or None"."""
    inside = get_args(kind)
    if _is_union(kind):
        wanted = [in_words(each) for each in inside if each is not type(None)]
        return " or ".join([*wanted, *(["None"] if type(None) in inside else [])])
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, inside))}"
    if get_origin(kind) is tuple:
        choices = [str(each) for each in get_args(inside[0])] if get_origin(inside[0]) is Literal else []
        if choices:
            return f"some of {', '.join(choices)}, such as {','.join(choices[:2])}"
        _, many, example = _PLAIN.get(inside[0], (in_words(inside[0]), in_words(inside[0]), "a"))
        if inside[-1] is Ellipsis:
            return f"{many}, such as {example} or {example},{example}"
        return f"{len(inside)} {many}, such as {','.join([example] * len(inside))}"
    if get_origin(kind) is dict:
        return "names with values, such as a=b,c=d"
    if is_dataclass(kind):
        return f"a mapping of its parts, such as {{{next(iter(kind.__dataclass_fields__))}: …}}"
    return _PLAIN.get(kind, (str(kind), "", ""))[0]


def lists_as_typed(words: Sequence[str], kinds: dict[str, Any]) -> list[str]:
    """The words of a command line, with lists and mappings as YAML has them.

    Args:
        words: flags and values, `--flag value` or `--flag=value`.
        kinds: type of each key, from `field_types`.
    """
    former, turned = "", []
    for word in words:
        flag, equals, value = word.partition("=")
        if word.startswith("--") and equals and flag.removeprefix("--") in kinds:
            word = f"{flag}={_as_yaml(value, kinds[flag.removeprefix('--')])}"
        elif former.removeprefix("--") in kinds and former.startswith("--"):
            word = _as_yaml(word, kinds[former.removeprefix("--")])
        former = word if word.startswith("--") and not equals else ""
        turned.append(word)
    return turned


def _as_yaml(value: str, kind: Any) -> str:
    """A value that is typed for a list or a mapping, as JSON; YAML's own and all else as it is."""
    kinds = get_args(kind) if _is_union(kind) else (kind,)
    if value in ("None", "null") and type(None) in kinds:
        return value
    text = value.strip()
    if any(get_origin(each) is tuple for each in kinds) and not text.startswith("["):
        alone = Location in [inside for each in kinds for inside in get_args(each)] and Path(value).exists()
        return json.dumps([value] if alone else [each.strip() for each in value.split(",") if each.strip()])
    if any(get_origin(each) is dict for each in kinds) and not text.startswith("{"):
        pairs = [each.partition("=") for each in value.split(",")]
        if all(name.strip() and equals for name, equals, _ in pairs):
            return json.dumps({name.strip(): content.strip() for name, _, content in pairs})
    return value


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)
