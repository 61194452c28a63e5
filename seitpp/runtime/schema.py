"""What a file from anywhere may say: types and ranges, checked at one place before any of it is used.

A schema is a function of a value and the name of its field that raises `Mismatch`; larger ones are made of smaller:

    SHARD = record({"file": text(r"[^/]+", "a file name"), "rows": integer(0, 2**40)}, {"bytes": integer(0)})
    shard = read_described("shard.json", SHARD, "make it again")

Files are data of others even where we wrote them: a disk, an editor or a stranger may have changed them since.
"""

import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from seitpp.runtime.errors import UserError
from seitpp.runtime.files import read_json
from seitpp.runtime.rights import check_readable

Schema = Callable[[Any, str], None]


class Mismatch(ValueError):
    """A value that its schema does not allow; says which field, what it is and what it should be."""


def check(value: Any, schema: Schema, source: object, advice: str) -> Any:
    """The value, if its schema allows it.

    Args:
        value: what JSON, YAML or a header gave.
        schema: what is expected.
        source: the file that it is from, for the message.
        advice: what to do.
    Raises: UserError naming the source and the field.
    """
    try:
        schema(value, "")
    except Mismatch as mismatch:
        raise UserError(f"{source}: {mismatch}; {advice}") from mismatch
    return value


def read_lines(file: str | Path, schema: Schema, advice: str) -> list[Any]:
    """What the lines of a JSON Lines file say, each checked; a last line that was cut off by a kill is left out.

    Raises: UserError naming the file and the line.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8").split("\n")[:-1]
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 ({shown(error, 80)}): {advice}") from error
    return [_line(each, schema, f"{file}: line {place}", advice) for place, each in enumerate(lines, 1) if each.strip()]


def _line(line: str, schema: Schema, where: str, advice: str) -> Any:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} can't be read as JSON ({shown(error, 80)}): {advice}") from error
    return check(content, schema, where, advice)


def read_described(file: str | Path, schema: Schema, advice: str) -> Any:
    """Content of a JSON file, checked.

    Raises: UserError if it is missing, no file, no JSON, or not what the schema allows.
    """
    file = Path(file)
    if not file.is_file():
        raise UserError(f"{file} is missing: {advice}")
    check_readable(file)
    try:
        content = read_json(file)
    except ValueError as error:
        raise UserError(f"{file} can't be read as JSON ({shown(error, 80)}): {advice}") from error
    return check(content, schema, file, advice)


def read_yaml(file: str | Path, schema: Schema, advice: str) -> Any:
    """Content of a YAML file, checked.

    Raises: UserError if it is no YAML, or not what the schema allows.
    """
    import yaml

    try:
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that is none
        raise UserError(f"{file} is not YAML ({shown(error, 120)}): {advice}") from error
    return check(content, schema, file, advice)


def shown(text: object, length: int) -> str:
    """Part of a text from a file, on one line and without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(str(text).split()))[:length]


# The parts that schemas are made of


def integer(least: int, most: int = 2**53) -> Schema:
    """A whole number in [least, most]; by default up to what every JSON reader keeps exactly."""

    def schema(value: Any, field: str) -> None:
        if type(value) is not int or not least <= value <= most:  # True is no number
            raise _differs(field, value, f"a whole number from {least} to {most}")

    return schema


def number(least: float = -math.inf, most: float = math.inf) -> Schema:
    """A finite number in [least, most]."""

    def schema(value: Any, field: str) -> None:
        if type(value) not in (int, float) or not least <= value <= most or abs(value) == math.inf:
            raise _differs(field, value, "a finite number" + (f" from {least} to {most}" if least > -math.inf else ""))

    return schema


def measured(value: Any, field: str) -> None:
    """A number that was measured: it may be infinite, or none at all (NaN)."""
    if type(value) not in (int, float) or 1e300 < abs(value) < math.inf:
        raise _differs(field, value, "a number")


def text(pattern: str = r".*", expected: str = "a text") -> Schema:
    """A text that matches a pattern as a whole and that UTF-8 can write: JSON may hold half of a character."""

    def schema(value: Any, field: str) -> None:
        fits = isinstance(value, str) and re.fullmatch(pattern, value, re.DOTALL)
        if not fits or re.search("[\ud800-\udfff]", value):
            raise _differs(field, value, expected)

    return schema


def boolean(value: Any, field: str) -> None:
    """True or false."""
    if not isinstance(value, bool):
        raise _differs(field, value, "true or false")


def anything(value: Any, field: str) -> None:
    """Whatever it is: of fields that nobody reads, or that are checked elsewhere."""


def one_of(*values: Any) -> Schema:
    """One of some values."""

    def schema(value: Any, field: str) -> None:
        if not any(type(value) is type(each) and value == each for each in values):
            raise _differs(field, value, " or ".join(map(repr, values)))

    return schema


def optional(inner: Schema) -> Schema:
    """Null, or what another schema allows."""

    def schema(value: Any, field: str) -> None:
        if value is not None:
            inner(value, field)

    return schema


def both(*schemas: Schema) -> Schema:
    """What each of some schemas allows."""

    def schema(value: Any, field: str) -> None:
        for each in schemas:
            each(value, field)

    return schema


def listing(inner: Schema, length: int | None = None) -> Schema:
    """A list, of a certain length or any, each element of which another schema allows."""

    def schema(value: Any, field: str) -> None:
        if not isinstance(value, list) or (length is not None and len(value) != length):
            raise _differs(field, value, "a list" if length is None else f"a list of {length}")
        for place, each in enumerate(value):
            inner(each, f"{field}[{place}]")

    return schema


def table(inner: Schema) -> Schema:
    """An object with any names, each value of which another schema allows."""

    def schema(value: Any, field: str) -> None:
        if not isinstance(value, Mapping):
            raise _differs(field, value, "an object")
        for name, each in value.items():
            text()(name, f"a name in {field or 'the content'}")
            inner(each, _below(field, name))

    return schema


def record(
    required: Mapping[str, Schema], others: Mapping[str, Schema] | None = None, *, closed: bool = False
) -> Schema:
    """An object with certain fields.

    Args:
        required: fields that must be there.
        others: fields that may be missing.
        closed: whether further fields are refused; else nobody looks at them.
    """
    known = {**required, **(others or {})}

    def schema(value: Any, field: str) -> None:
        if not isinstance(value, Mapping):
            raise _differs(field, value, "an object")
        _refuse_names(required, value, field, "lacks")
        if closed:
            _refuse_names(value, known, field, "has an unknown")
        for name, inner in known.items():
            if name in value:
                inner(value[name], _below(field, name))

    return schema


def _differs(field: str, value: object, expected: str) -> Mismatch:
    return Mismatch(f"{field or 'the content'} is {shown(repr(value), 60)}, expected {expected}")


def _refuse_names(names: Collection[str], there: Collection[str], field: str, what: str) -> None:
    if other := [name for name in names if name not in there]:
        raise Mismatch(f"{field or 'it'} {what} {shown(repr(other[0]), 60)}")


def _below(field: str, name: str) -> str:
    return shown(f"{field}.{name}" if field else name, 80)
