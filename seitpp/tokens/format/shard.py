"""One shard of a token store: an Arrow IPC file, uncompressed, of one record batch.

Columns: `tokens` (fixed-size binary, packed by `seitpp.tokens.codec`), `label` (int32, -1 where unknown), `key`
(string: where the image came from), and where rows are annotated so `labels` and `mask` (see `format.targets`).
Further columns are left alone. `pandas.read_feather`, polars, DuckDB and datasets read it as it is.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions when it is imported.

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seitpp.runtime.errors import UserError
from seitpp.runtime.files import replacing
from seitpp.runtime.rights import check_readable
from seitpp.tokens.format.manifest import BASE_COLUMNS
from seitpp.tokens.format.targets import LABELS_TYPE, MASK_TYPE, Targets

_AGAIN = "run the command that made the store again"
_NO_TARGETS = Targets()


class Shard:
    """A shard opened for reading; its columns stay on disk until they are asked for.

    Args:
        path: the file.
        entry: what the manifest says of it: {"file", "rows", "sha256"} and, if written by this version, "bytes".
        row_bytes: bytes of a row's tokens.
        columns: names of the columns that it must have, beginning with tokens, label, key.

    Attributes:
        entry: as given.
        tokens: (rows,) array over the mapped file, each element the bytes of one row.
        labels: (rows,) int32 array over the mapped file.
        targets: Targets of all rows, over the mapped file.
    Raises: UserError if it is missing, cut off, or not what the manifest says.
    """

    def __init__(
        self, path: str | Path, entry: dict[str, Any], row_bytes: int, columns: Sequence[str] = BASE_COLUMNS
    ) -> None:
        check_size(path, entry)
        try:
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all().combine_chunks()
        except (pa.ArrowInvalid, OSError) as error:
            raise _unreadable(path, entry) from error
        if table.num_rows != entry["rows"]:
            raise UserError(f"{path} has {table.num_rows} rows, store.json says {entry['rows']}: {_AGAIN}")
        if tuple(table.column_names[:3]) != BASE_COLUMNS or not set(columns) <= set(table.column_names):
            raise UserError(
                f"{path} has the columns {', '.join(table.column_names)}, expected {', '.join(columns)}: {_AGAIN}"
            )
        self.entry = entry
        self.table = table
        width = table.schema.field("tokens").type.byte_width
        if table.num_rows and width != row_bytes:
            raise UserError(f"{path} has rows of {width} bytes, expected {row_bytes}: {_AGAIN}")
        self.tokens = _mapped(table.column("tokens"), np.dtype(f"V{row_bytes}"))
        self.labels = _mapped(table.column("label"), np.dtype(np.int32))
        self.targets = Targets(
            labels=self._target("labels", LABELS_TYPE, columns), masks=self._target("mask", MASK_TYPE, columns)
        )

    def keys(self, start: int = 0, stop: int | None = None) -> list[str]:
        """Where the images of rows start to stop came from, a list of strings."""
        return self.table.column("key")[start:stop].to_pylist()

    def content(self) -> dict[str, np.ndarray]:
        """Bytes of each row by column, {name: (rows,) int64}; see `content_bytes`."""
        return content_bytes({name: _whole(self.table.column(name)) for name in (*BASE_COLUMNS, *self.targets.columns)})

    def _target(self, name: str, kind: pa.DataType, columns: Sequence[str]) -> Any:
        if name not in columns:
            return None
        column = _whole(self.table.column(name))
        if column.type != kind:
            raise UserError(
                f"{self.entry['file']}: the column {name} is of type {column.type}, expected {kind}: {_AGAIN}"
            )
        return column


def content_bytes(columns: dict[str, Any]) -> dict[str, np.ndarray]:
    """Bytes that each row takes, by column, without what Arrow adds for the file as a whole.

    Args:
        columns: {name: Arrow array} of a shard.
    Returns: {name: (rows,) int64}: packed tokens; 4 of a label; a key and its offset (4); the labels of a row, 4 each,
        and their offset (4); a mask and its offset (8).
    """
    rows = len(columns["tokens"])

    def lengths(name: str) -> np.ndarray:
        measure = pc.list_value_length if name == "labels" else pc.binary_length
        return pc.fill_null(measure(columns[name]), 0).to_numpy(zero_copy_only=False).astype(np.int64)

    content = {
        "tokens": np.full(rows, columns["tokens"].type.byte_width, np.int64),
        "label": np.full(rows, 4, np.int64),
        "key": 4 + lengths("key"),
    }
    if "labels" in columns:
        content["labels"] = 4 + 4 * lengths("labels")
    if "mask" in columns:
        content["mask"] = 8 + lengths("mask")
    return content


def _whole(column: pa.ChunkedArray) -> Any:
    """The one chunk of a column."""
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _mapped(column: pa.ChunkedArray, dtype: np.dtype) -> np.ndarray:
    """A column of one chunk and no nulls as an array over the mapped file. Arrow's own conversion imports pandas."""
    if len(column) == 0:
        return np.zeros(0, dtype)
    chunk = column.chunk(0)
    return np.frombuffer(chunk.buffers()[1], dtype, count=len(chunk), offset=chunk.offset * dtype.itemsize)


def check_size(path: str | Path, entry: dict[str, Any]) -> None:
    """Refuse a shard that is missing or of another length than it was written; costs one look at the folder."""
    try:
        size = Path(path).stat().st_size
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: run the tokenising command again, it makes only this shard") from error
    if size != entry.get("bytes", size):
        raise UserError(
            f"{path} is cut off or broken ({size} bytes, store.json says {entry['bytes']}): {_AGAIN}, or copy it again"
        )


def _unreadable(path: str | Path, entry: dict[str, Any]) -> UserError:
    """The error for a shard that Arrow can't read: it may be damaged, and only then it is to be deleted."""
    check_readable(path)
    if sha256_of(path) != entry["sha256"]:
        return UserError(f"{path} is damaged, its checksum differs from store.json: delete it and {_AGAIN}")
    return UserError(f"{path} is as it was written, but not of a form that this version reads: update seitpp")


def write_shard(
    path: str | Path,
    packed: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    keys: Sequence[str],
    targets: Targets = _NO_TARGETS,
) -> dict[str, Any]:
    """Write one shard, whole or not at all.

    Args:
        path: destination file.
        packed: (rows, bytes) uint8 array.
        labels: (rows,) integers, -1 where unknown.
        keys: list of strings.
        targets: of the same rows.
    Returns: {"file", "rows", "bytes", "sha256", "content"} for the manifest; content is {column: its bytes}.
    Raises: ValueError if the columns differ in length.
    """
    packed = np.ascontiguousarray(packed)
    rows, width = packed.shape
    tokens = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), rows, [None, pa.py_buffer(packed)])
    columns = {
        "tokens": tokens,
        "label": pa.array(np.asarray(labels, np.int32)),
        "key": pa.array(keys, pa.string()),
        **targets.columns,
    }
    if wrong := [name for name, column in columns.items() if len(column) != rows]:
        raise ValueError(f"{path}: {len(columns[wrong[0]])} values of {wrong[0]} for {rows} rows")
    batch = pa.record_batch(list(columns.values()), names=list(columns))
    with replacing(path) as temporary:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        checksum, size = sha256_of(temporary), temporary.stat().st_size
    content = {name: int(each.sum()) for name, each in content_bytes(columns).items()}
    return {"file": Path(path).name, "rows": rows, "bytes": size, "sha256": checksum, "content": content}


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
