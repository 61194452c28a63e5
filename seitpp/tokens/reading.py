"""What commands that read token stores have in common."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ReadsStores:
    """Part of the configuration of a command that reads rows of stores."""

    verify_shards: bool = True
    """check the checksum and the ids of each shard when it is first read, once a process: a gigabyte takes a second, or
    as long as the disk does; off: trust them"""
