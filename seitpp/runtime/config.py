"""What every stage can be told: where it writes, its seed, how it resumes."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar, get_args

from seitpp.runtime.errors import UserError
from seitpp.runtime.locations import Location
from seitpp.runtime.schema import shown

Config = TypeVar("Config")


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """Every stage has a run folder, a seed and a way to resume."""

    output_dir: Location
    """run folder: everything that the stage writes lies in it"""
    resume: Location = "auto"
    """auto: resume from this run folder's newest checkpoint, if any; none: start afresh; or the path of a checkpoint"""
    seed: int = 0
    """seed of all random streams: order, augmentation, masks, initialisation, dropout"""

    def __post_init__(self):
        require_seed(self)


def require(config: object, field: str, condition: object, demand: str) -> None:
    """Raise a UserError that names `field`, its value and the demand, unless `condition` holds."""
    if not condition:
        raise UserError(f"{type(config).__name__}: {field} = {getattr(config, field)!r} {demand}")


def require_each_once(config: object, *fields: str) -> None:
    """Raise a UserError that names the first of some fields that is empty, or names something twice."""
    for field in fields:
        values = getattr(config, field)
        require(config, field, 0 < len(values) == len(set(values)), "must name one or more, each once")


def require_between(config: object, field: str, least: int, most: int) -> None:
    """Raise a UserError that names `field` unless its value lies in [least, most]."""
    require(config, field, getattr(config, field) >= least, f"must be at least {least}")
    require(config, field, getattr(config, field) <= most, f"must be at most {most}")


def require_seed(config: Any) -> None:
    """Raise a UserError unless `config.seed` is one that every generator takes, and that of a few runs more."""
    require(config, "seed", 0 <= config.seed < 2**63, "must lie in [0, 2^63)")


def from_dict(config_class: type[Config], values: Mapping[str, Any], source: object) -> Config:
    """Build a dataclass from plain values, as `asdict` and JSON leave them: dictionaries and lists inside.

    Args:
        config_class: the dataclass; its fields may be dataclasses, tuples, Literals and optional.
        values: field name to value; what is missing has its default.
        source: where they are from, for messages, such as a file.
    Raises: UserError if a field is unknown, lacks a value or has one of another type or outside its limits.
    """
    import dacite

    if not isinstance(values, Mapping):
        raise UserError(f"{source} is no {config_class.__name__}: expected its fields, got {shown(repr(values), 80)}")
    try:
        return dacite.from_dict(config_class, values, dacite.Config(strict=True, cast=[tuple]))
    except (dacite.DaciteError, UserError, TypeError, ValueError, ArithmeticError) as error:
        raise UserError(f"{source} is no {config_class.__name__} of this version: {shown(error, 400)}") from error


def flattened(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with keys such as `model.encoder.width`; an empty one is a value."""
    flat = {}
    for key, value in content.items():
        nested = isinstance(value, dict) and value
        flat |= flattened(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def field_names(config_class: Any, prefix: str = "") -> list[str]:
    """All keys of a configuration class in dotted form, nested dataclasses included."""
    names = []
    for field in fields(config_class):
        names.append(prefix + field.name)
        if hasattr(field.type, "__dataclass_fields__"):
            names += field_names(field.type, f"{prefix}{field.name}.")
    return names


def optional_fields(config_class: Any, prefix: str = "") -> list[str]:
    """Those keys of a configuration class, in dotted form, whose value may be None."""
    names = []
    for field in fields(config_class):
        if type(None) in get_args(field.type):
            names.append(prefix + field.name)
        if hasattr(field.type, "__dataclass_fields__"):
            names += optional_fields(field.type, f"{prefix}{field.name}.")
    return names
