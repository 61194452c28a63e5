"""Files of a token store behind a URL: whole shards are fetched into a local cache that never outgrows its bound.

The cache is addressed by source and content (the SHA-256 of a shard's URL and checksum is its name), so processes of a
machine, a store and its subsets share it. What does not match its checksum never gets in; the longest unused shards
leave first.
"""

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from seitpp.runtime.config import require
from seitpp.runtime.errors import UserError
from seitpp.runtime.schema import shown
from seitpp.tokens.files import Entries
from seitpp.tokens.format.manifest import check_manifest, inside

_Answer = TypeVar("_Answer")
_BLOCK = 1 << 22
_STALE_SECONDS = 3600


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """How stores behind a URL are read; local stores need none of it."""

    folder: str | None = None
    """where fetched shards are kept; None: $SEITPP_CACHE, or ~/.cache/seitpp"""
    gigabytes: float = 20.0
    """the most that the folder may hold, 10^9 bytes each; all processes of a machine share it"""
    window: int = 262144
    """rows that training shuffles among each other: each process goes through its shards window by window"""
    attempts: int = 4
    """how often a fetch is tried, each after twice the pause of the one before"""

    def __post_init__(self) -> None:
        require(self, "gigabytes", self.gigabytes > 0, "must be above 0")
        require(self, "window", self.window >= 1, "must be at least 1")
        require(self, "attempts", self.attempts >= 1, "must be at least 1")

    @property
    def path(self) -> Path:
        """The folder that it comes to."""
        return Path(self.folder or os.environ.get("SEITPP_CACHE") or Path.home() / ".cache" / "seitpp")


class RemoteFiles:
    """Files of a store behind a URL; see seitpp.tokens.files.StoreFiles.

    Args:
        url: of the store's folder, of any file system that fsspec knows.
        config: a CacheConfig.

    Attributes:
        window: rows that training shuffles among each other.
    Raises: UserError if fsspec does not know the protocol, or a package for it is missing.
    """

    def __init__(self, url: str | Path, config: CacheConfig) -> None:
        import fsspec

        self.folder = str(url).rstrip("/")
        self.config = config
        self.window: int | None = config.window
        self.bound = int(config.gigabytes * 1e9)
        self.cache = config.path
        try:
            self.system, _ = fsspec.core.url_to_fs(self.folder)
            self.cache.mkdir(parents=True, exist_ok=True)
        except (ImportError, ValueError) as error:
            raise UserError(f"{self.folder} can't be read: {error}") from error
        self._fetcher = ThreadPoolExecutor(max_workers=2, thread_name_prefix="shards")
        self._coming: dict[str, Future[Path]] = {}

    def manifest(self, place: str = "") -> dict[str, Any]:
        """Content of store.json, of this store or of another at a place as seen from it."""
        import json

        name = inside(self.folder, f"{place}/store.json" if place else "store.json")
        try:
            manifest = json.loads(self._patiently(lambda: self.system.cat_file(name), name))
        except FileNotFoundError as error:
            raise UserError(f"{name.removesuffix('/store.json')} is not a token store (no store.json there)") from error
        except (ValueError, RecursionError) as error:
            raise UserError(f"{name} can't be read ({shown(error, 80)}): upload the store again") from error
        return check_manifest(manifest, name)

    def read(self, name: str) -> bytes:
        """Bytes of a small file."""
        url = inside(self.folder, name)
        return self._patiently(lambda: self.system.cat_file(url), url)

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
                self._patiently(lambda: self._download(url, entry, target), url)
            os.utime(target)
        return target

    def _download(self, url: str, entry: dict[str, Any], target: Path) -> None:
        temporary = self.cache / f".{self._key(entry)}.{os.getpid()}.tmp"
        try:
            with self.system.open(url, "rb", block_size=_BLOCK) as source:
                self._reserve(temporary, entry.get("bytes") or source.size or 0)
                digest, room = hashlib.sha256(), entry.get("bytes", self.bound)
                with temporary.open("r+b") as file:
                    while block := source.read(_BLOCK):
                        room -= len(block)
                        if room < 0:  # a server may go on without end
                            raise OSError("it is longer than store.json says")
                        digest.update(block)
                        file.write(block)
            if digest.hexdigest() != entry["sha256"]:
                raise OSError("the checksum differs from store.json")
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

    def _patiently(self, action: Callable[[], _Answer], url: str) -> _Answer:
        """Do something that the network may spoil, again after a pause; a file that is not there is not waited for."""
        failure: Exception | None = None
        for attempt in range(self.config.attempts):
            try:
                return action()
            except FileNotFoundError as error:
                if url.endswith("store.json"):
                    raise
                raise UserError(f"{url} is missing: upload the store again") from error
            except Exception as error:  # each file system has errors of its own
                failure = error
                if attempt + 1 < self.config.attempts:
                    time.sleep(0.25 * 2**attempt)
        reason = " ".join(str(failure).split()) or type(failure).__name__
        raise UserError(f"{url} can't be fetched ({reason}), tried {self.config.attempts} times") from failure


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """(path, stat) of the shards in a cache, finished or not; those that are given up meanwhile are left out."""
    for path in folder.iterdir():
        if path.suffix in (".arrow", ".tmp"):
            with suppress(FileNotFoundError):
                yield path, path.stat()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock among processes and threads."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
