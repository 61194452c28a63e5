"""Files and folders that a configuration names: which of its fields they are, and `~` in them."""

import os
from dataclasses import is_dataclass, replace
from typing import Any, TypeVar, get_args, get_type_hints

from typing_extensions import TypeAliasType

Config = TypeVar("Config")

Location = TypeAliasType("Location", str)
"""The type of a field that names a file, a folder or a URL. To type checkers and jsonargparse it is str."""


def with_home(location: str) -> str:
    """A location with the home for a leading `~` or `~user`. Shells put it into `--flag ~/x`, not into `--flag=~/x`."""
    return os.path.expanduser(location)  # noqa: PTH111 - a Path would make one / of a URL's two


def with_homes(config: Config) -> Config:
    """A configuration, a dataclass, in whose Locations, at any depth, `~` is the home."""
    return _expanded(config, type(config))


def _expanded(value: Any, kind: Any) -> Any:
    """`value` of the type `kind`, with the home in every Location in it."""
    inside = get_args(kind)
    if is_dataclass(value) and not isinstance(value, type):
        kinds = get_type_hints(type(value))
        return replace(value, **{name: _expanded(getattr(value, name), kinds[name]) for name in kinds})
    if isinstance(value, tuple):
        return tuple(_expanded(each, inside[0]) for each in value)
    if isinstance(value, dict):
        return {name: _expanded(each, inside[1]) for name, each in value.items()}
    if isinstance(value, str) and (kind is Location or Location in inside):
        return with_home(value)
    return value
