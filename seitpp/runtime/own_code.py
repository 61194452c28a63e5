"""What a user has written: found by its import path, `package.module:Name`."""

import importlib
import sys
from pathlib import Path
from typing import Any

from seitpp.runtime.errors import UserError


def import_own(spec: str) -> Any:
    """Import what an import path names; the current directory is importable, too.

    Returns: what is called so; None where the module has no such name.
    Raises: UserError if the module can't be imported, with what it said.
    """
    module, _, name = spec.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        found = importlib.import_module(module)
    except Exception as error:  # whatever the user's module raises
        raise UserError(
            f"{spec}: {module} can't be imported ({short(error)}); expected package.module:Class"
        ) from error
    return getattr(found, name, None)


def make_own(kind: Any, spec: str) -> Any:
    """Make an object of a user's class without arguments.

    Raises: UserError if it can't be made so.
    """
    try:
        return kind()
    except Exception as error:
        raise UserError(f"{spec} can't be made without arguments ({short(error)})") from error


def short(value: Any) -> str:
    """A tensor's type and shape, an error with its kind, or a value, in one line."""
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    if dtype is not None and shape is not None:
        return f"{str(dtype).removeprefix('torch.')} {tuple(shape)}"
    words = f"{type(value).__name__}: {value}" if isinstance(value, Exception) else repr(value)
    return " ".join(words.split())[:100]
