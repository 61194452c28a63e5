"""What a bucket or web server holds, listed once: all that is asked of it before images are read.

It is kept as an Arrow file beside the working files of the store that is made, so that a job that goes on, and each
further process of it, reads the same addresses and asks for no list again.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from seitpp.runtime.files import replacing
from seitpp.tokenizers.sources.listing.left_out import LeftOut
from seitpp.tokenizers.sources.remote.addresses import addresses_of, is_web, path_of, shown_url
from seitpp.tokenizers.sources.remote.place import Found
from seitpp.tokenizers.sources.tars.index import TarIndex

_FORMAT = b"seitpp listing 1"


@dataclass(frozen=True)
class FolderListing:
    """The images of a folder.

    Attributes:
        keys: their paths from it, sorted as paths are.
        sizes: bytes of each, (n,) int64.
        left_out: all else in it.
        digest: SHA-256 over names, sizes and versions.
    """

    keys: list[str]
    sizes: np.ndarray
    left_out: list[LeftOut]
    digest: str


@dataclass(frozen=True)
class TarListing:
    """Tar files.

    Attributes:
        tars: where they lie.
        indexes: what each holds.
        left_out: what lies beside them.
    """

    tars: list[Found]
    indexes: list[TarIndex]
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """SHA-256 over names, sizes and versions of the tars."""
        return digest_of((path_of(each.url), each.size, each.version) for each in self.tars)


Listing = FolderListing | TarListing


def digest_of(files: Iterable[tuple[str, int, str]]) -> str:
    """SHA-256 over (name, size, version) of files, in their order."""
    digest = hashlib.sha256()
    for each in files:
        digest.update(json.dumps(each).encode())
    return digest.hexdigest()


def write_listing(path: str | Path, spec: str, listing: Listing) -> None:
    """Keep a listing.

    Args:
        path: of the file.
        spec: what was listed, as the user names it; only its checksum is kept, as there may be a signature in it.
        listing: what was found.
    """
    about: dict[str, Any] = {"left_out": [[each.file, each.kind, each.detail] for each in listing.left_out]}
    if isinstance(listing, FolderListing):
        about["digest"] = listing.digest
        columns = {"key": pa.array(listing.keys, pa.string()), "size": pa.array(listing.sizes, pa.int64())}
    else:
        about["tars"] = [{**asdict(each), "url": shown_url(each.url)} for each in listing.tars]
        columns = _columns(listing.indexes)
    table = pa.table(columns, metadata={"format": _FORMAT, "spec": _checksum(spec), "about": json.dumps(about)})
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with replacing(path) as temporary, pa.ipc.new_file(str(temporary), table.schema, options=options) as writer:
        writer.write_table(table)


def read_listing(content: bytes | None, spec: str) -> Listing | None:
    """What `write_listing` kept, None where there is none, or one of something else.

    Args:
        content: of the file.
        spec: what is to be listed.
    """
    if content is None:
        return None
    try:
        table = pa.ipc.open_file(content).read_all()
        table.validate(full=True)
        known: dict[bytes, bytes] = table.schema.metadata or {}
        if known.get(b"format") != _FORMAT or known.get(b"spec") != _checksum(spec).encode():
            return None
        about = json.loads(known[b"about"])
        left_out = [LeftOut(*each) for each in about["left_out"]]
        if "digest" in about:
            return FolderListing(
                table["key"].to_pylist(), table["size"].to_numpy().astype(np.int64), left_out, about["digest"]
            )
        tars = [Found(**each) for each in about["tars"]]
        if any(is_web(each.url) for each in tars):  # with the signatures, which are not kept
            urls = sorted(set(addresses_of(spec)))
            tars = [replace(each, url=url) for each, url in zip(tars, urls, strict=True)]
        return TarListing(tars, _indexes(table, len(tars)), left_out)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None


def _checksum(spec: str) -> str:
    return hashlib.sha256(spec.encode()).hexdigest()


def _columns(indexes: list[TarIndex]) -> dict[str, Any]:
    """A row a member, and one for what is no file of use, which has a problem instead of a place."""
    rows = [
        row
        for tar, index in enumerate(indexes)
        for row in (
            *((tar, name, *place, index.numbers.get(name), None) for name, place in index.members.items()),
            *((tar, name, 0, 0, None, why) for name, why in index.problems.items()),
        )
    ]
    kinds = {
        "tar": pa.int32(), "name": pa.string(), "offset": pa.int64(), "size": pa.int64(), "number": pa.string(),
        "problem": pa.string(),
    }  # fmt: skip
    values = zip(*rows, strict=True) if rows else [()] * len(kinds)
    return {name: pa.array(column, kind) for (name, kind), column in zip(kinds.items(), values, strict=True)}


def _indexes(table: pa.Table, count: int) -> list[TarIndex]:
    indexes = [TarIndex() for _ in range(count)]
    for batch in table.to_batches(max_chunksize=1 << 16):
        for tar, name, offset, size, number, problem in zip(*(column.to_pylist() for column in batch), strict=True):
            if problem is not None:
                indexes[tar].problems[name] = problem
                continue
            indexes[tar].members[name] = (offset, size)
            if number is not None:
                indexes[tar].numbers[name] = number
    return indexes
