"""A bucket or web server that images are read from: what it lists, files and parts of them, asked with patience."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.remote.addresses import is_web, shown_url
from seitpp.tokenizers.sources.remote.web_parts import web_part
from seitpp.tokens.transfer import Server

ATTEMPTS = 8
"""How often something is asked for: with the pauses between, about a minute of trouble is waited out."""
_VERSIONS = ("ETag", "etag", "generation", "mtime", "LastModified", "last_modified", "updated", "created")
_PROBED = 512


@dataclass(frozen=True, slots=True)
class Found:
    """A file or folder that lies there.

    Attributes:
        url: its address.
        size: bytes.
        version: what changes with its content, as far as that is told.
        is_folder: whether it is a folder.
    """

    url: str
    size: int
    version: str
    is_folder: bool = False


class Place:
    """Where images lie; many threads may use it.

    Args:
        url: of anything there.
        attempts: how often something is asked for.
        wait: how to wait some seconds between attempts.
    Raises: UserError if the protocol's package is missing.
    """

    def __init__(self, url: str, attempts: int = ATTEMPTS, wait: Callable[[float], object] = time.sleep) -> None:
        self.server = Server(url, attempts, wait, missing="check --images")
        self.system: Any = self.server.system
        self.protocol = url.partition("://")[0]

    def find(self, url: str) -> Found:
        """A file's size and version.

        Raises: UserError if it is not there, or can't be read in parts.
        """
        if is_web(url):
            _, size, version = self._patiently(url, lambda: web_part(self.system, url, 0, _PROBED))
            return Found(url, size, version)
        return self._found(self._patiently(url, lambda: self.system.info(self._path(url))))

    def entries(self, url: str) -> Iterator[Found]:
        """What lies directly in a folder, in any order; nothing where there is none."""
        path = self._path(url).rstrip("/")
        try:
            listed = self._patiently(url, lambda: self.system.ls(path, detail=True, refresh=True))
        except UserError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return
            raise
        finally:
            self.system.invalidate_cache()  # or the lists of a million images stay in memory
        for entry in listed:
            if entry["name"].rstrip("/") != path:  # a marker, which stands for the folder itself
                yield self._found(entry)

    def glob(self, url: str) -> list[Found]:
        """Files whose addresses fit a pattern, sorted."""
        found: Mapping[str, Any] = self._patiently(url, lambda: self.system.glob(self._path(url), detail=True))
        return [self._found(found[name]) for name in sorted(found) if found[name]["type"] == "file"]

    def part(self, found: Found, start: int, length: int) -> bytes:
        """Some bytes of a file.

        Raises: UserError if it is another than the one that was found.
        """
        content, version = self._patiently(found.url, lambda: self._part(found.url, start, length))
        if len(content) != max(0, min(length, found.size - start)) or (version and version != found.version):
            raise changed(found.url)
        return content

    def whole(self, url: str, size: int) -> bytes:
        """A small file.

        Args:
            url: its address.
            size: bytes that it was listed with.
        Raises: UserError if it has another size now.
        """
        content = self._patiently(url, lambda: self.system.cat_file(self._path(url), start=0, end=size + 1))
        if len(content) != size:
            raise changed(url)
        return content

    def _part(self, url: str, start: int, length: int) -> tuple[bytes, str]:
        if is_web(url):
            content, _, version = web_part(self.system, url, start, length)
            return content, version
        return self.system.cat_file(self._path(url), start=start, end=start + length), ""

    def _patiently(self, url: str, action: Callable[[], Any]) -> Any:
        name = shown_url(url)

        def told() -> Any:
            with self.server.told(name):
                return action()

        return self.server.patiently(told, name)

    def _path(self, url: str) -> str:
        return self.system._strip_protocol(url)

    def _found(self, entry: Mapping[str, Any]) -> Found:
        version = next((str(entry[name]) for name in _VERSIONS if entry.get(name)), "")
        name = entry["name"] if "://" in entry["name"] else f"{self.protocol}://{entry['name'].lstrip('/')}"
        return Found(name, int(entry.get("size") or 0), version, entry["type"] == "directory")


def changed(url: str) -> UserError:
    """What is said where a file is not the one that was listed."""
    return UserError(
        f"{shown_url(url)} has changed since it was listed: choose another --output_dir, or --resume none to begin anew"
    )
