"""A store in a bucket: each file is written to this machine, then uploaded whole, a shard before what says it is done.

A bucket keeps a file whole or not at all. So a job that was killed finds there the shards that were finished, with
their checksums, and makes the others. Here lies no more than one shard a process, in the folder of the cache.
"""

import hashlib
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from seitpp.runtime.errors import UserError
from seitpp.runtime.files import make_folder, replacing
from seitpp.runtime.ownership import is_job
from seitpp.runtime.places import check_places
from seitpp.tokenizers.sources.remote.addresses import BUCKETS, check_protocol
from seitpp.tokenizers.sources.remote.place import ATTEMPTS
from seitpp.tokenizers.store_place.place import WHAT
from seitpp.tokens.remote import CacheConfig
from seitpp.tokens.transfer import Missing, Passing, Server

_SMALL = re.compile(r"shard-\d{5,}\.json|(job|store)\.json|coding\.safetensors")
"""Files that a job goes on from."""
_OURS = re.compile(
    r"shard-\d{5,}\.(json|arrow)|(job|store)\.json|(coding|codebook)\.safetensors|listing\.arrow|skipped\.csv"
)
_AT_ONCE = 16


class BucketPlace:
    """A folder of a bucket, see `StorePlace`; many processes of many machines may publish there.

    Args:
        url: of the folder.
        attempts: how often an upload or a question is tried.
        wait: how to wait some seconds between attempts.
    Raises: UserError if it is no URL of a bucket, or the protocol's package is missing.
    """

    def __init__(self, url: str, *, attempts: int = ATTEMPTS, wait: Callable[[float], object] = time.sleep) -> None:
        self.name = check_protocol(url.rstrip("/"), BUCKETS)
        if "/" not in self.name.partition("://")[2]:
            raise UserError(f"--output_dir {url} is a whole bucket: name a folder in it, such as {self.name}/store")
        self.server = Server(self.name, attempts, wait, missing="run the same command again")
        self.system: Any = self.server.system
        self.folder = CacheConfig().path / "uploads" / hashlib.sha256(self.name.encode()).hexdigest()[:32]
        self.sizes: dict[str, int] = {}

    def claim(self, config: Any) -> None:
        """Refuse a folder that is another's, or where images lie."""
        check_places(config)
        self._list()
        if self.sizes and "job.json" not in self.sizes:
            raise self._foreign()
        make_folder(self.folder)

    def read(self, file: str) -> bytes | None:
        """Content of a small published file, None where it is not there."""
        try:
            url = self._url(file)
            return self.server.patiently(lambda: self._told(url, lambda _: self.system.cat_file(self._path(url))), url)
        except Missing:
            return None

    def fetch(self, *, anew: bool) -> None:
        """Bring job.json, what is said of finished shards, and tables."""
        self._list()
        for path in self.folder.iterdir() if anew else []:
            if _OURS.fullmatch(path.name):
                path.unlink()
        files = [name for name in self.sizes if _SMALL.fullmatch(name)]
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            list(threads.map(self.bring, files))
        if self.sizes and not is_job(self.folder):
            raise self._foreign()

    def size(self, file: str) -> int | None:
        """Bytes of a published file; None where it is not there."""
        return self.sizes.get(file)

    def publish(self, *files: str) -> None:
        """Upload files, in their order; shards are not kept here.

        Raises: UserError if that fails again and again.
        """
        for file in files:
            path, url = self.folder / file, self._url(file)
            self.server.patiently(lambda path=path, url=url: self._upload(path, url), url, "uploaded")
            self.sizes[file] = path.stat().st_size
            if file.endswith(".arrow"):
                path.unlink()

    def bring(self, file: str) -> Path:
        """Where a published file can be read here; it is downloaded if it is not there."""
        path = self.folder / file
        if not path.exists():
            with replacing(path) as temporary:
                self.server.patiently(lambda: self._download(self._url(file), temporary), self._url(file))
        return path

    def leave(self, file: str) -> None:
        """Remove the copy that lies here."""
        (self.folder / file).unlink(missing_ok=True)

    def remove(self, file: str) -> None:
        """Remove a file here and there."""
        (self.folder / file).unlink(missing_ok=True)
        if self.sizes.pop(file, None) is not None:
            self.server.patiently(lambda: self._told(self._url(file), self._drop), self._url(file), "removed")

    def close(self) -> None:
        """No copy stays here."""
        for path in self.folder.iterdir() if self.folder.is_dir() else []:
            if _OURS.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def forget(self) -> None:
        """The folder goes, if nobody uses it."""
        with suppress(OSError):
            self.folder.rmdir()

    def _list(self) -> None:
        """Learn what lies there."""

        def listed(url: str) -> Any:
            try:
                return self.system.ls(self._path(url), detail=True, refresh=True)
            except FileNotFoundError:
                return []

        found = self.server.patiently(lambda: self._told(self.name, listed), self.name)
        base = self._path(self.name).strip("/")
        names = {entry["name"].strip("/").removeprefix(f"{base}/"): entry for entry in found}
        self.sizes = {name: int(entry.get("size") or 0) for name, entry in names.items() if name != base}

    def _upload(self, path: Path, url: str) -> None:
        self._told(url, lambda url: self.system.put_file(str(path), self._path(url)))
        self.system.invalidate_cache()
        size = self._told(url, lambda url: int(self.system.info(self._path(url))["size"]))
        if size != path.stat().st_size:
            raise Passing(f"{size} of {path.stat().st_size} bytes came there")

    def _download(self, url: str, temporary: Path) -> None:
        self._told(url, lambda url: self.system.get_file(self._path(url), str(temporary)))

    def _drop(self, url: str) -> None:
        with suppress(FileNotFoundError):
            self.system.rm_file(self._path(url))

    def _told(self, url: str, action: Callable[[str], Any]) -> Any:
        with self.server.told(url):
            return action(url)

    def _url(self, file: str) -> str:
        return f"{self.name}/{file}"

    def _path(self, url: str) -> str:
        return self.system._strip_protocol(url)

    def _foreign(self) -> UserError:
        first = sorted(self.sizes)[0]
        return UserError(f"{self.name} holds {first} and is not {WHAT}: choose another --output_dir")
