"""Files of a token store behind a URL: whole shards are fetched into a local cache that never outgrows its bound.

The cache is addressed by source and content (the SHA-256 of a shard's URL and checksum is its name), so processes of a
machine, a store and its subsets share it. What does not match its checksum never gets in; the longest unused shards
leave first.
"""

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seitpp.runtime.config import require
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import HOST
from seitpp.runtime.locations import Location, with_home
from seitpp.runtime.locks import lacks_locks
from seitpp.runtime.schema import shown
from seitpp.tokens.files import Entries
from seitpp.tokens.format.manifest import check_manifest, inside
from seitpp.tokens.transfer import Missing, Passing, Server

_STALE_SECONDS = 3600
_OWN = re.compile(r"[0-9a-f]{64}\.arrow|\.[0-9a-f]{64}\.([A-Za-z0-9-]+\.)?\d+\.tmp")
"""Names of shards in a cache, finished or not: nothing else is counted or removed."""


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """How stores behind a URL are read; local stores need none of it."""

    folder: Location | None = None
    """where fetched shards are kept; None: $SEITPP_CACHE, or ~/.cache/seitpp"""
    gigabytes: float = 20.0
    """the most that the folder may hold, 10^9 bytes each; all processes of a machine share it"""
    window: int = 262144
    """rows that training shuffles among each other: each process goes through its shards window by window"""
    attempts: int = 6
    """how often a fetch is tried where a server is busy or silent: after half a second, and each time twice as long"""

    def __post_init__(self) -> None:
        require(self, "folder", "://" not in (self.folder or ""), "is a URL: name a folder of this machine")
        require(self, "gigabytes", self.gigabytes > 0, "must be above 0")
        require(self, "window", self.window >= 1, "must be at least 1")
        require(self, "attempts", self.attempts >= 1, "must be at least 1")

    @property
    def path(self) -> Path:
        """The folder that it comes to."""
        return Path(with_home(self.folder or os.environ.get("SEITPP_CACHE") or "~/.cache/seitpp"))


class RemoteFiles:
    """Files of a store behind a URL; see seitpp.tokens.files.StoreFiles.

    Args:
        url: of the store's folder, of any file system that fsspec knows.
        config: a CacheConfig.
        wait: how to wait some seconds between attempts.

    Attributes:
        window: rows that training shuffles among each other.
    Raises: UserError if fsspec does not know the protocol, or a package for it is missing.
    """

    def __init__(self, url: str | Path, config: CacheConfig, *, wait: Callable[[float], object] = time.sleep) -> None:
        self.folder = str(url).rstrip("/")
        self.config = config
        self.window: int | None = config.window
        self.bound = int(config.gigabytes * 1e9)
        self.cache = config.path
        self.server = Server(self.folder, config.attempts, wait)
        self.cache.mkdir(parents=True, exist_ok=True)
        self._fetcher = ThreadPoolExecutor(max_workers=2, thread_name_prefix="shards")
        self._coming: dict[str, Future[Path]] = {}

    def manifest(self, place: str = "") -> dict[str, Any]:
        """Content of store.json, of this store or of another at a place as seen from it."""
        file = f"{place}/store.json" if place else "store.json"
        name = inside(self.folder, file)
        try:
            manifest = json.loads(self.read(file))
        except Missing as error:
            raise UserError(f"{name.removesuffix('/store.json')} is not a token store (no store.json there)") from error
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{name} can't be read ({shown(error, 80)}): check that it was copied there whole"
            ) from error
        return check_manifest(manifest, name)

    def read(self, name: str) -> bytes:
        """Bytes of a small file."""
        return self.server.read(inside(self.folder, name))

    def check(self, shards: Entries) -> None:
        """Refuse a store of which one shard is larger than the cache; nothing is fetched."""
        for entry in shards:
            if entry.get("bytes", 0) > self.bound:
                raise UserError(
                    f"{inside(self.folder, entry['file'])} alone has {entry['bytes'] / 1e9:.3g} GB, the cache only "
                    f"{self.config.gigabytes:g}: allow more (--cache.gigabytes)"
                )

    def check_windows(self, shards: Entries) -> None:
        """Refuse a cache too small for the windows that this machine's processes read, and the next ones."""
        rows = max(1, sum(entry["rows"] for entry in shards))
        total = sum(entry.get("bytes", 0) for entry in shards)
        largest = max((entry.get("bytes", 0) for entry in shards), default=0)
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        needed = min(total, 2 * processes * (total * min(1.0, self.config.window / rows) + 2 * largest))
        if needed > self.bound:
            raise UserError(
                f"{self.folder}: windows of {self.window} rows need up to {needed / 1e9:.3g} GB of cache for "
                f"{processes} processes, it may hold {self.config.gigabytes:g}: allow more (--cache.gigabytes) or "
                f"shuffle fewer rows among each other (--cache.window)"
            )

    def check_whole(self, shards: Entries) -> None:
        """Refuse a cache too small for reading rows of all shards in any order."""
        total = sum(entry.get("bytes", 0) for entry in shards)
        if total > self.bound:
            raise UserError(
                f"{self.folder}: rows are read in any order here, so all {total / 1e9:.3g} GB must fit into the cache; "
                f"it may hold {self.config.gigabytes:g}: allow more (--cache.gigabytes)"
            )

    def path(self, entry: dict[str, Any]) -> Path:
        """Where a shard lies in the cache; it is fetched if it is not there."""
        coming = self._coming.pop(self._key(entry), None)
        if coming is not None:
            coming.result()
        return self._fetch(entry)

    def keeps(self, entry: dict[str, Any]) -> bool:
        """Whether a shard is in the cache still."""
        return self._target(entry).exists()

    def prefetch(self, shards: Entries) -> None:
        """Begin to fetch shards in the background."""
        for entry in shards:
            if self._key(entry) not in self._coming and not self.keeps(entry):
                self._coming[self._key(entry)] = self._fetcher.submit(self._fetch, entry)

    def _key(self, entry: dict[str, Any]) -> str:
        """What a shard is called in the cache.

        Where it lies is part of it: a stranger's manifest that names the checksum of someone's private shard must not
        be answered from the cache.
        """
        return hashlib.sha256(f"{inside(self.folder, entry['file'])}\n{entry['sha256']}".encode()).hexdigest()

    def _target(self, entry: dict[str, Any]) -> Path:
        return self.cache / f"{self._key(entry)}.arrow"

    def _fetch(self, entry: dict[str, Any]) -> Path:
        target = self._target(entry)
        with _locked(self.cache / f".{self._key(entry)[:16]}.lock"):  # one process fetches, the others wait for it
            if not target.exists():
                url = inside(self.folder, entry["file"])
                self.server.patiently(lambda: self._download(url, entry, target), url)
            with suppress(PermissionError):  # someone else's, in a cache that is shared
                os.utime(target)
        return target

    def _download(self, url: str, entry: dict[str, Any], target: Path) -> None:
        temporary = self.cache / f".{self._key(entry)}.{HOST}.{os.getpid()}.tmp"
        try:
            self._reserve(temporary, entry.get("bytes") or self.server.size(url))
            digest, size, most = hashlib.sha256(), 0, entry.get("bytes", self.bound)
            with temporary.open("r+b") as file, closing(self.server.blocks(url)) as blocks:
                for block in blocks:
                    size += len(block)
                    if size > most:  # a server may go on without end
                        break
                    digest.update(block)
                    file.write(block)
            if size != entry.get("bytes", size):
                raise Passing(f"{size} bytes came, store.json says {most}", "check that it was copied there whole")
            if digest.hexdigest() != entry["sha256"]:
                raise Passing("the checksum differs from store.json", "upload that file again")
            with _locked(self.cache / ".room.lock"):  # nobody counts the files meanwhile
                temporary.rename(target)
        finally:
            temporary.unlink(missing_ok=True)

    def _reserve(self, temporary: Path, size: int) -> None:
        """Remove the longest unused shards until `size` bytes more fit, and take their place at once."""
        with _locked(self.cache / ".room.lock"):
            known = list(_files(self.cache))
            total = sum(stat.st_size for _, stat in known)
            for path, stat in sorted(known, key=lambda each: each[1].st_mtime_ns):
                left_behind = path.suffix == ".tmp" and time.time() - stat.st_mtime > _STALE_SECONDS
                if left_behind or (total + size > self.bound and path.suffix == ".arrow"):
                    path.unlink(missing_ok=True)
                    total -= stat.st_size
            with temporary.open("wb") as file:
                file.truncate(size)  # a file of holes: it counts for the others while it is being filled


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """(path, stat) of the shards in a cache, finished or not; those that are given up meanwhile are left out."""
    for path in folder.iterdir():
        if _OWN.fullmatch(path.name):
            with suppress(FileNotFoundError):
                yield path, path.stat()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock among processes and threads; without one, where there are none, a shard may be fetched twice."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if not lacks_locks(error, path):
                raise
        yield
