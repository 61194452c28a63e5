"""Whether a run folder holds the run that is asked for: inputs are compared by what they are, not by their names."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Described:
    """A run as its folder describes it.

    Attributes:
        config: its configuration, flattened, with its stage.
        inputs: fingerprints of what it reads. One that has the name of a field stands for the field.
    """

    config: dict[str, Any]
    inputs: dict[str, Any]


def differences(there: Described, here: Described, may_change: Collection[str]) -> list[str]:
    """What makes two runs different ones, a text for each field with both values.

    A field whose fingerprint both know is compared by it, however it is spelt; one that only the present run knows the
    fingerprint of (older versions recorded fewer) by its spelling.

    Args:
        there: the run that a folder holds.
        here: the run that is asked for.
        may_change: fields that may differ, unless a fingerprint stands for them.
    """
    known = there.inputs.keys() & here.inputs.keys()
    spelt = (there.config.keys() | here.config.keys()) - known - set(may_change)
    different = [name for name in known if there.inputs[name] != here.inputs[name]]
    different += [name for name in spelt if there.config.get(name) != here.config.get(name)]
    return [_difference(name, there, here, name in known) for name in sorted(different)]


def _difference(name, there, here, known):
    values = [run.config.get(name) for run in (there, here)]
    if not known:
        return f"{name}: {values[0]!r} there, {values[1]!r} now"
    prints = [print_[:12] if isinstance(print_, str) else print_ for print_ in (there.inputs[name], here.inputs[name])]
    if values == [None, None]:
        return f"{name}: {prints[0]} there, {prints[1]} now"
    if values[0] == values[1]:
        return f"{name}: {values[0]!r} is another since, {prints[0]} there, {prints[1]} now"
    return f"{name}: {values[0]!r} ({prints[0]}) there, {values[1]!r} ({prints[1]}) now"
