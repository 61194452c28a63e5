"""How a store's files are reached: what a reader asks of them, and files on this machine."""

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from seitpp.tokens.format.manifest import read_manifest
from seitpp.tokens.format.shard import check_size

Entries = Sequence[dict[str, Any]]
"""Of some shards, what the manifest says of them."""


class StoreFiles(Protocol):
    """What TokenStore and the loader ask of a store's files; LocalFiles and RemoteFiles answer.

    Attributes:
        folder: the store's folder or URL.
        window: rows that training shuffles among each other; None: all.
    """

    folder: Any
    window: int | None

    def manifest(self, place: str = "") -> dict[str, Any]:
        """Content of store.json, checked: of this store, or of another at a place as seen from it, such as ../train."""
        ...

    def read(self, name: str) -> bytes:
        """Bytes of a small file."""
        ...

    def check(self, shards: Entries) -> None:
        """Refuse a store whose shards can't be read."""
        ...

    def check_windows(self, shards: Entries) -> None:
        """Refuse a store that can't be read window by window."""
        ...

    def check_whole(self, shards: Entries) -> None:
        """Refuse a store whose rows can't be read in any order."""
        ...

    def path(self, entry: dict[str, Any]) -> Path:
        """Where a shard lies on this machine."""
        ...

    def keeps(self, entry: dict[str, Any]) -> bool:
        """Whether a shard stays where it lies."""
        ...

    def prefetch(self, shards: Entries) -> None:
        """Begin to fetch shards."""
        ...


class LocalFiles:
    """Files of a store on this machine.

    Args:
        folder: the store's folder.

    Attributes:
        folder: the same as a Path.
        window: None: rows are shuffled over the whole store.
    """

    window: int | None = None

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def manifest(self, place: str = "") -> dict[str, Any]:
        """Content of store.json, of this store or of another at a place as seen from it."""
        return read_manifest(self.folder / place / "store.json")

    def read(self, name: str) -> bytes:
        """Bytes of a small file.

        Raises: FileNotFoundError if there is none; a pipe, which would be waited for, or a device is none.
        """
        path = self.folder / name
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return path.read_bytes()

    def check(self, shards: Entries) -> None:
        """Refuse a store of which a shard is missing or cut off."""
        for entry in shards:
            check_size(self.path(entry), entry)

    def check_windows(self, shards: Entries) -> None:
        """Nothing to do: rows here are shuffled over the whole store."""

    def check_whole(self, shards: Entries) -> None:
        """Nothing to do: rows here can be read in any order."""

    def path(self, entry: dict[str, Any]) -> Path:
        """Where a shard of the manifest lies."""
        return self.folder / entry["file"]

    def keeps(self, entry: dict[str, Any]) -> bool:
        """Whether a shard stays here by itself."""
        return True

    def prefetch(self, shards: Entries) -> None:
        """Nothing to do: the shards are here."""
