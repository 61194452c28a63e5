"""What every stage can be told: where it writes, its seed, how it resumes."""

from dataclasses import dataclass, fields

from seitpp.runtime.errors import UserError


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """Every stage has a run folder, a seed and a way to go on."""

    output_dir: str
    """run folder: everything that the stage writes lies in it"""
    resume: str = "auto"
    """auto: go on from this run folder's newest checkpoint, if any; none: start afresh; or the path of a checkpoint"""
    seed: int = 0
    """all chance (order, augmentation, masks, initialisation, dropout) is a function of it"""

    def __post_init__(self):
        require_seed(self)


def require(config, field, condition, demand):
    """Raise a UserError that names `field`, its value and the demand, unless `condition` holds."""
    if not condition:
        raise UserError(f"{type(config).__name__}: {field} = {getattr(config, field)!r} {demand}")


def require_seed(config):
    """Raise a UserError unless `config.seed` is one that every generator takes, and that of a few runs more."""
    require(config, "seed", 0 <= config.seed < 2**63, "must lie in [0, 2^63)")


def flattened(content, prefix=""):
    """Nested dictionaries as one, with keys such as `model.encoder.width`; an empty one is a value."""
    flat = {}
    for key, value in content.items():
        nested = isinstance(value, dict) and value
        flat |= flattened(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def field_names(config_class, prefix=""):
    """All keys of a configuration class in dotted form, nested dataclasses included."""
    names = []
    for field in fields(config_class):
        names.append(prefix + field.name)
        if hasattr(field.type, "__dataclass_fields__"):
            names += field_names(field.type, f"{prefix}{field.name}.")
    return names
