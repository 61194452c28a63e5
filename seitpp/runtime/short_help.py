"""`--help` of a stage: what it does, an example, and a line for each of its own flags; `--help_all` says all of them.

Parts that are configurations of their own (`--augment.…`) and what every training has are named, with how many flags
each has.
"""

import inspect
import re
import shutil
import sys
import textwrap
from dataclasses import MISSING, fields, is_dataclass

from seitpp.runtime.config import field_names
from seitpp.runtime.help_text import as_typed

_WIDEST = 26
_COMMAND = re.compile(r" {4}(\w+=\S+ )*(seitpp|python|accelerate|find) ")
_MOST_LINES = 2
"""Of a flag that is the stage's own; flags that stages share have one."""


def short_help(config_class: type, command: str) -> str:
    """The text of `--help`, at most 120 lines.

    Args:
        config_class: the stage's configuration.
        command: as it is typed, such as "seitpp finetune".
    """
    width = min(100, shutil.get_terminal_size((80, 24)).columns)
    texts = _texts(config_class)
    required = [each.name for each in fields(config_class) if each.default is each.default_factory is MISSING]
    usage = " ".join([command, "[--config RECIPE]", *(f"--{name} …" for name in required), "[--flag value …]"])
    lines = textwrap.wrap(f"usage: {usage}", width, subsequent_indent=" " * 7)
    lines += ["", *textwrap.wrap((config_class.__doc__ or "").strip(), width)]
    if examples := _examples(config_class):
        lines += ["", "examples:", *(line for example in examples for line in _wrapped(example, width))]
    for title, names in _groups(config_class, required).items():
        if names:
            lines += [
                "",
                f"{title}:",
                *(
                    line
                    for name in names
                    for line in _lines(config_class, name, texts, width, 1 if "every" in title else _MOST_LINES)
                ),
            ]
    lines += [
        "",
        "  --config RECIPE, --print_config, --debug (the traceback of an error)",
        f"{command} --help_all says all of every flag; seitpp recipes lists recipes.",
    ]
    return "\n".join(lines)


def _examples(config_class: type) -> list[str]:
    """The indented commands of the docstring of the stage's module."""
    module = sys.modules.get(config_class.__module__)
    text = inspect.cleandoc(getattr(module, "__doc__", None) or "").splitlines()
    return [line.strip() for line in text if _COMMAND.match(line)]


def _wrapped(example: str, width: int) -> list[str]:
    """A command in lines of a terminal, which a shell takes as one; a remark behind it goes below it."""
    command, _, remark = re.sub(r"\s{2,}(?=--)", " ", example).partition("  ")
    lines = [""]
    for part in re.split(r" (?=--)", command):  # never within a value, whose quotes would keep the backslash
        if lines[-1] and len(lines[-1]) + len(part) > width - 9:
            lines.append("")
        lines[-1] = f"{lines[-1]} {part}".strip()
    indented = [f"{'  ' if number == 0 else '      '}{line}" for number, line in enumerate(lines)]
    shown = [*(f"{line} \\" for line in indented[:-1]), indented[-1]]
    if not remark.strip():
        return shown
    if len(shown[-1]) + len(remark.strip()) + 4 <= width:
        return [*shown[:-1], f"{shown[-1]}    {remark.strip()}"]
    return [*shown, *(f"      # {line}" for line in textwrap.wrap(remark.strip(), width - 8))]


def _groups(config_class: type, required: list[str]) -> dict[str, list[str]]:
    """Flags by what they are of: needed, the stage's own, those that it shares with others."""
    own = [name for name in config_class.__annotations__ if name not in required]
    shared = [each.name for each in fields(config_class) if each.name not in (*required, *own)]
    return {
        "needed": required,
        "of this stage": own,
        "of every training" if any(name == "blr" for name in shared) else "of every stage": shared,
    }


def _texts(config_class: type) -> dict[str, str]:
    """What the docstring under each field says."""
    from docstring_parser import parse_from_object

    parts = [parse_from_object(each) for each in reversed(config_class.__mro__) if each is not object]
    return {each.arg_name: each.description or "" for part in parts for each in part.params}


def _lines(config_class: type, name: str, texts: dict[str, str], width: int, most: int) -> list[str]:
    """One flag: its name, as much of its text as fits in so many lines, its default."""
    field = next(each for each in fields(config_class) if each.name == name)
    flag = f"  --{name}"
    if is_dataclass(field.type):
        flag, default = f"  --{name}.…", f" ({len(field_names(field.type))} flags)"
    else:
        value = field.default if field.default_factory is MISSING else field.default_factory()
        default = "" if value is MISSING or value in ((), {}) else f" ({as_typed(value)})"
    room = width - _WIDEST
    text = " ".join(texts.get(name, "").split())
    if len(flag) >= _WIDEST:
        text = f"{flag[_WIDEST - 1 :]} {text}"
        flag = flag[: _WIDEST - 1]
    shortened = textwrap.wrap(text, room, max_lines=most, placeholder=" …")
    while len(textwrap.wrap(f"{' '.join(shortened)}{default}", room)) > most:
        text = text.rsplit(" ", 1)[0]
        shortened = [f"{text} …"]
    said = textwrap.wrap(f"{' '.join(shortened)}{default}", room)
    return [f"{flag:<{_WIDEST}}{said[0] if said else ''}".rstrip(), *(" " * _WIDEST + line for line in said[1:])]
