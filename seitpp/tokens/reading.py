"""What commands that read token stores have in common."""

from dataclasses import dataclass
from typing import Any

from seitpp.runtime.locations import Location


@dataclass(frozen=True, kw_only=True)
class ReadsStores:
    """Part of the configuration of a command that reads rows of stores."""

    verify_shards: bool = True
    """check the checksum and the ids of each shard when it is first read, once a process: a gigabyte takes a second, or
    as long as the disk does; off: trust them"""


@dataclass(frozen=True, kw_only=True)
class ReadsLabels:
    """Part of the configuration of a command that takes labels from a table."""

    labels: Location | None = None
    """CSV with columns key,label: another task on the same stores; rows it does not name are left out"""
    key_column: str = "key"
    """column of --labels that says which image: its path from --images, the store's column `key`"""
    label_column: str | None = None
    """column of --labels with the classes; None: label"""
    label_separator: str | None = None
    """between several labels in a cell of --labels; None: | or ;, whichever is there; none: a cell is one name"""


TABLE_FIELDS = ("labels", "key_column", "label_column", "label_separator")
"""Fields of ReadsLabels."""


def label_words(config: Any) -> list[str]:
    """The flags that give another command the table of a ReadsLabels."""
    given = {name: getattr(config, name) for name in TABLE_FIELDS}
    return [] if config.labels is None else [
        word for name, value in given.items() if value is not None for word in (f"--{name}", value)
    ]  # fmt: skip
