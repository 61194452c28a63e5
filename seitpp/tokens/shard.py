"""One shard of a token store: an Arrow IPC file, uncompressed, of one record batch.

Columns: `tokens` (fixed-size binary, packed by `seitpp.tokens.codec`), `label` (int32, -1 where unknown) and `key`
(string: where the image came from). `pandas.read_feather`, polars, DuckDB and datasets read it as it is.
"""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa

from seitpp.runtime.errors import UserError
from seitpp.runtime.files import replacing

_AGAIN = "run the command that made the store again"


class Shard:
    """A shard opened for reading; its columns stay on disk until they are asked for.

    Args:
        path: the file.
        entry: what the manifest says of it: {"file", "rows", "sha256"} and, if written by this version, "bytes".
        row_bytes: bytes of a row's tokens.

    Attributes:
        entry: as given.
        tokens: (rows,) array over the mapped file, each element the bytes of one row.
        labels: (rows,) int32 array over the mapped file.
    Raises: UserError if it is missing, cut off, or not what the manifest says.
    """

    def __init__(self, path, entry, row_bytes):
        check_size(path, entry)
        try:
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all().combine_chunks()
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"{path} is cut off or broken: delete it and {_AGAIN}") from error
        if table.num_rows != entry["rows"]:
            raise UserError(f"{path} has {table.num_rows} rows, store.json says {entry['rows']}: {_AGAIN}")
        if table.column_names[:3] != ["tokens", "label", "key"]:
            raise UserError(f"{path} has the columns {table.column_names}, expected tokens, label, key: {_AGAIN}")
        self.entry = entry
        self.table = table
        width = table.schema.field("tokens").type.byte_width
        if table.num_rows and width != row_bytes:
            raise UserError(f"{path} has rows of {width} bytes, expected {row_bytes}: {_AGAIN}")
        self.tokens = _mapped(table.column("tokens"), np.dtype(f"V{row_bytes}"))
        self.labels = _mapped(table.column("label"), np.dtype(np.int32))

    def keys(self, start=0, stop=None):
        """Where the images of rows start to stop came from, a list of strings."""
        return self.table.column("key")[start:stop].to_pylist()


def _mapped(column, dtype):
    """A column of one chunk and no nulls as an array over the mapped file. Arrow's own conversion imports pandas."""
    if len(column) == 0:
        return np.zeros(0, dtype)
    chunk = column.chunk(0)
    return np.frombuffer(chunk.buffers()[1], dtype, count=len(chunk), offset=chunk.offset * dtype.itemsize)


def check_size(path, entry):
    """Refuse a shard that is missing or of another length than it was written; costs one look at the folder."""
    try:
        size = Path(path).stat().st_size
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: run the tokenising command again, it makes only this shard") from error
    if size != entry.get("bytes", size):
        raise UserError(
            f"{path} is cut off or broken ({size} bytes, store.json says {entry['bytes']}): delete it and {_AGAIN}"
        )


def write_shard(path, packed, labels, keys):
    """Write one shard, whole or not at all.

    Args:
        path: destination file.
        packed: (rows, bytes) uint8 array.
        labels: (rows,) integers, -1 where unknown.
        keys: list of strings.
    Returns: {"file", "rows", "bytes", "sha256"} for the manifest.
    """
    packed = np.ascontiguousarray(packed)
    rows, width = packed.shape
    tokens = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), rows, [None, pa.py_buffer(packed)])
    batch = pa.record_batch(
        [tokens, pa.array(np.asarray(labels, np.int32)), pa.array(keys, pa.string())], names=["tokens", "label", "key"]
    )
    with replacing(path) as temporary:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        checksum, size = sha256_of(temporary), temporary.stat().st_size
    return {"file": Path(path).name, "rows": rows, "bytes": size, "sha256": checksum}


def sha256_of(path):
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
