"""Addresses of images behind URLs: which are read, several in one text, and what of them may be shown."""

import re
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.listing.patterns import expand_braces

BUCKETS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory")
"""Protocols of object storage: it lists what it holds, and keeps a file whole or not at all."""
WEB = ("http", "https")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_NEXT = re.compile(r",(?=[A-Za-z][A-Za-z0-9+.-]*://)")


def is_url(spec: object) -> bool:
    """Whether a text names something behind a URL."""
    return "://" in str(spec)


def is_web(url: str) -> bool:
    """Whether a URL is of a web server, which lists nothing."""
    return protocol_of(url) in WEB


def addresses_of(spec: str) -> list[str]:
    """The URLs of a text: separated by commas, {000..012} and {a,b} written out; wildcards stay.

    Raises: UserError if one is of a protocol that is not read.
    """
    return [check_protocol(url) for part in _NEXT.split(spec) for url in expand_braces(part, spec)]


def check_protocol(url: str, allowed: tuple[str, ...] = (*BUCKETS, *WEB)) -> str:
    """A URL, if it is of a protocol that is read.

    A chain of file systems (`zip::…`), a program's pipe or a file of this machine through a URL never is.
    """
    if "::" in url or protocol_of(url) not in allowed:
        known = ", ".join(f"{name}://" for name in allowed if name not in ("memory", "s3a", "gcs", "abfss"))
        hint = ": a folder of this machine is named without file://" if url.startswith(("file:", "local:")) else ""
        raise UserError(f"{shown_url(url)} is of no kind that is read or written here ({known}){hint}")
    return url


def protocol_of(url: str) -> str:
    """The protocol of a URL; "" where it has none."""
    match = _SCHEME.match(url)
    return match[1].lower() if match else ""


def shown_url(url: str) -> str:
    """A URL without what may be secret: a password before the host, a signature after `?`."""
    if not is_web(url):
        return url
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def path_of(url: str) -> str:
    """What comes after the protocol: host or bucket, and path; signs of a web address spelled out."""
    text = shown_url(url).partition("://")[2]
    return unquote(text) if is_web(url) else text


def parts_of(url: str) -> tuple[str, ...]:
    """Host or bucket, folders, and the file's name without its ending."""
    return PurePosixPath(path_of(url)).with_suffix("").parts
