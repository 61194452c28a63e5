"""One shard of a token store: an Arrow IPC file, uncompressed, of one record batch.

Columns: `tokens` (fixed-size binary, packed by `seitpp.tokens.codec`, or binary, coded by `seitpp.tokens.coding`),
`label` (int32, -1 where unknown), `key` (string: where the image came from), and where rows are annotated so `labels`
`mask`, `window` and `truth` (see `format.targets`).
Further columns are left alone. `pandas.read_feather`, polars, DuckDB and datasets read it as it is.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions when it is imported.

import hashlib
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seitpp.runtime.errors import UserError
from seitpp.runtime.files import replacing
from seitpp.runtime.rights import check_readable
from seitpp.runtime.schema import shown
from seitpp.tokens.format.arrow_file import check_plain
from seitpp.tokens.format.coded_rows import CODED_TYPE, CodedRows
from seitpp.tokens.format.manifest_schema import BASE_COLUMNS
from seitpp.tokens.format.targets import TARGET_COLUMNS, TARGET_TYPES, Targets
from seitpp.tokens.format.windows import FIELDS as WINDOW_FIELDS

_AGAIN = "run the command that made the store again"
_NO_TARGETS = Targets()
_TYPES = {"label": pa.int32(), "key": pa.string(), **TARGET_TYPES}
"""Type of each column that is read, but for `tokens`, whose type depends on the store's coding."""


class Shard:
    """A shard opened for reading; its columns stay on disk until they are asked for.

    Args:
        path: the file.
        entry: what the manifest says of it: {"file", "rows", "sha256"} and, if written by this version, "bytes".
        row_bytes: bytes of a row's tokens; None: rows are coded, and differ in length.
        columns: names of the columns that it must have, beginning with tokens, label, key.

    Attributes:
        entry: as given.
        tokens: (rows,) array over the mapped file, each element the bytes of one row; of a coded shard, none.
        coded: of a coded shard, the bytes of all rows and their bounds, over the mapped file.
        labels: (rows,) int32 array over the mapped file.
        targets: Targets of all rows, over the mapped file.
    Raises: UserError if it is missing, cut off, or not what the manifest says.
    """

    def __init__(
        self, path: str | Path, entry: dict[str, Any], row_bytes: int | None, columns: Sequence[str] = BASE_COLUMNS
    ) -> None:
        check_size(path, entry)
        types = {**_TYPES, "tokens": "fixed_size_binary" if row_bytes is not None else CODED_TYPE}
        table = _read_plain(path, {name: types[name] for name in columns if name in types})
        if table.num_rows != entry["rows"]:
            raise UserError(f"{path} has {table.num_rows} rows, store.json says {entry['rows']}: {_AGAIN}")
        if table.num_rows and row_bytes is not None:
            width = table.schema.field("tokens").type.byte_width
            if width != row_bytes:
                raise UserError(f"{path} has rows of {width} bytes, expected {row_bytes}: {_AGAIN}")
        self.entry = entry
        self.table = table
        self.tokens = np.zeros(0, np.void)
        self.coded: CodedRows | None = None
        if row_bytes is None:
            self.coded = CodedRows.of(_whole(table.column("tokens")))
        else:
            self.tokens = _mapped(table.column("tokens"), np.dtype(f"V{row_bytes}"))
        self.labels = _mapped(table.column("label"), np.dtype(np.int32))
        self.targets = Targets(**{
            field: _whole(table.column(name)) if name in columns else None
            for name, field in TARGET_COLUMNS.items()
        })  # fmt: skip

    def keys(self, start: int = 0, stop: int | None = None) -> list[str]:
        """Where the images of rows start to stop came from, a list of strings."""
        return self.table.column("key")[start:stop].to_pylist()

    def content(self) -> dict[str, np.ndarray]:
        """Bytes of each row by column, {name: (rows,) int64}; see `content_bytes`."""
        return content_bytes({name: _whole(self.table.column(name)) for name in (*BASE_COLUMNS, *self.targets.columns)})


def _read_plain(path: str | Path, columns: dict[str, Any]) -> pa.Table:
    """Columns of an Arrow file, by name and type, as a table of at most one chunk over the mapped file.

    Its offsets, lengths and texts are checked, all of them: Arrow trusts them afterwards and reads wherever they point.
    """
    check_readable(path)
    try:
        content = pa.memory_map(str(path)).read_buffer()
    except OSError as error:
        raise UserError(f"{path} is cut off or broken (no bytes): {_AGAIN}") from error
    try:
        check_plain(memoryview(content))
        schema = pa.ipc.open_file(content).schema
        _check_columns(path, schema, columns)
        options = pa.ipc.IpcReadOptions(included_fields=[schema.get_field_index(name) for name in columns])
        table = pa.ipc.open_file(content, options=options).read_all()
        table.validate(full=True)
        table = table.combine_chunks()
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        raise UserError(f"{path} is cut off or broken ({shown(error, 80)}): {_AGAIN}") from error
    for name in columns:
        column = _whole(table.column(name))
        if nulls := _nulls(name, column):
            raise UserError(f"{path}: the column {name} has {nulls} values that are missing (null): {_AGAIN}")
    return table


def _nulls(name: str, column: Any) -> int:
    """Values that may not be missing, and are: a row without a list of labels or a mask is one nobody annotated."""
    if name in ("mask", "truth"):
        return 0
    inside = column.flatten().null_count if name in ("labels", "window") else 0
    return inside + (0 if name == "labels" else column.null_count)


def _check_columns(path: str | Path, schema: pa.Schema, columns: dict[str, Any]) -> None:
    if tuple(schema.names[:3]) != BASE_COLUMNS or any(schema.names.count(name) != 1 for name in columns):
        names = shown(", ".join(schema.names), 120)
        raise UserError(f"{path} has the columns {names}, expected {', '.join(columns)}: {_AGAIN}")
    for name, wanted in columns.items():
        kind = schema.field(name).type
        if not (pa.types.is_fixed_size_binary(kind) if wanted == "fixed_size_binary" else kind == wanted):
            raise UserError(f"{path}: the column {name} is of type {kind}, expected {wanted}: {_AGAIN}")


def content_bytes(columns: dict[str, Any]) -> dict[str, np.ndarray]:
    """Bytes that each row takes, by column, without what Arrow adds for the file as a whole.

    Args:
        columns: {name: Arrow array} of a shard.
    Returns: {name: (rows,) int64}: packed tokens, or coded ones and their offset (4); 4 of a label; a key and its
        offset (4); the labels of a row, 4 each, and their offset (4); a mask or truth and its offset (8);
        28 of a window.
    """
    rows = len(columns["tokens"])

    def lengths(name: str) -> np.ndarray:
        measure = pc.list_value_length if name == "labels" else pc.binary_length
        return pc.fill_null(measure(columns[name]), 0).to_numpy(zero_copy_only=False).astype(np.int64)

    content = {
        "tokens": 4 + lengths("tokens")
        if columns["tokens"].type == CODED_TYPE
        else np.full(rows, columns["tokens"].type.byte_width, np.int64),
        "label": np.full(rows, 4, np.int64),
        "key": 4 + lengths("key"),
    }
    if "labels" in columns:
        content["labels"] = 4 + 4 * lengths("labels")
    for name in ("mask", "truth"):
        if name in columns:
            content[name] = 8 + lengths(name)
    if "window" in columns:
        content["window"] = np.full(rows, 4 * len(WINDOW_FIELDS), np.int64)
    return {name: content[name] for name in columns}


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
    """Refuse a shard that is missing, no file, or of another length than it was written; costs one look at the folder.

    A pipe or a device is no file: opening one may wait for ever, and reading one may never end.
    """
    try:
        about = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{path} is missing: run the tokenising command again, it makes only this shard") from error
    if not stat.S_ISREG(about.st_mode):
        raise UserError(f"{path} is no file but a folder, pipe or device: {_AGAIN}")
    size = about.st_size
    if size != entry.get("bytes", size):
        raise UserError(
            f"{path} is cut off or broken ({size} bytes, store.json says {entry['bytes']}): {_AGAIN}, or copy it again"
        )


def write_shard(
    path: str | Path,
    packed: "np.ndarray | CodedRows",
    labels: Sequence[int] | np.ndarray,
    keys: Sequence[str],
    targets: Targets = _NO_TARGETS,
) -> dict[str, Any]:
    """Write one shard, whole or not at all.

    Args:
        path: destination file.
        packed: (rows, bytes) uint8 array, or CodedRows.
        labels: (rows,) integers, -1 where unknown.
        keys: list of strings.
        targets: of the same rows.
    Returns: {"file", "rows", "bytes", "sha256", "content"} for the manifest; content is {column: its bytes}.
    Raises: ValueError if the columns differ in length.
    """
    tokens = packed.column() if isinstance(packed, CodedRows) else _packed_column(packed)
    rows = len(tokens)
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


def _packed_column(packed: np.ndarray) -> Any:
    packed = np.ascontiguousarray(packed)
    rows, width = packed.shape
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), rows, [None, pa.py_buffer(packed)])


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
