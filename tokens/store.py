"""The token store: a folder of Arrow files, memory-mapped, that anyone can open.

    store.json            tokenizer, K, bits, grid, preprocessing, class names, shards with rows and checksums
    codebook.safetensors  embedding of each code, (k, c) float32
    shard-00000.arrow     Arrow IPC, uncompressed, one record batch: tokens (fixed-size binary), label, key

`pandas.read_feather`, polars, DuckDB and datasets read a shard as it is.
"""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from tokens.codec import bits_per_token, packed_bytes, unpack
from training.errors import UserError
from training.files import read_json, replacing, write_json

FORMAT, VERSION = "seitpp token store", 1


class TokenStore:
    """A store opened for reading; rows stay on disk until they are asked for.

    Args:
        folder: the store's folder.

    Attributes:
        codebook_size: K.
        grid: (h, w) tokens.
        classes: class names; a label is an index into them, -1 where unknown.
        labels: (rows,) int32, all in memory (4 bytes a row).
    Raises: UserError if it is no store, or a shard is missing or cut off.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        manifest_file = self.folder / "store.json"
        if not manifest_file.is_file():
            raise UserError(f"{self.folder} is not a token store (no store.json): make one with seitpp tokenize")
        self.manifest = read_json(manifest_file)
        if self.manifest.get("format") != FORMAT or self.manifest.get("version") != VERSION:
            raise UserError(f"{manifest_file} is not of {FORMAT!r} version {VERSION}: tokenise again")
        self.codebook_size = self.manifest["codebook_size"]
        self.grid = tuple(self.manifest["grid"])
        self.classes = self.manifest["classes"]
        self.row_bytes = packed_bytes(self.grid[0] * self.grid[1], self.codebook_size)
        self._tables = [self._open(shard) for shard in self.manifest["shards"]]
        self._rows = [self._rows_of(*each) for each in zip(self.manifest["shards"], self._tables, strict=True)]
        self._offsets = np.cumsum([0, *(len(rows) for rows in self._rows)])
        columns = [table.column("label").to_numpy() for table in self._tables]
        self.labels = np.concatenate(columns) if columns else np.zeros(0, np.int32)

    def __len__(self):
        return int(self._offsets[-1])

    @property
    def tokenizer(self):
        """{"name", "fingerprint"} of the tokenizer that made the ids."""
        return self.manifest["tokenizer"]

    @property
    def lookup(self):
        """How the nearest code of an embedding is meant: "cosine" or "euclidean"."""
        return self.manifest["lookup"]

    @property
    def codebook(self):
        """Embeddings of the codes, (k, c) float32."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.folder / "codebook.safetensors"
        try:
            return load_file(path)["codebook"]
        except (OSError, SafetensorError, KeyError) as error:
            raise UserError(f"{path} is missing or broken: run the tokenising command again") from error

    def keys(self):
        """Where each image came from, a list of strings in row order."""
        return [key for table in self._tables for key in table.column("key").to_pylist()]

    def packed(self, indices):
        """Rows as stored.

        Args:
            indices: (b,) integers in [0, len(self)), any order, repeats allowed.
        Returns: (b, bytes) uint8 array, a copy.
        """
        indices = np.asarray(indices, dtype=np.int64)
        if len(self._rows) == 1:
            return self._rows[0][indices]
        shards = np.searchsorted(self._offsets, indices, side="right") - 1
        packed = np.empty((len(indices), self.row_bytes), np.uint8)
        for shard in np.unique(shards):
            chosen = shards == shard
            packed[chosen] = self._rows[shard][indices[chosen] - self._offsets[shard]]
        return packed

    def ids(self, indices):
        """Token ids of rows, (b, h, w) int64 on the CPU."""
        return unpack(torch.from_numpy(self.packed(indices)), self.codebook_size, self.grid)

    def check_tokenizer(self, fingerprint, what):
        """Refuse a model or store of another tokenizer.

        Args:
            fingerprint: of the other's tokenizer.
            what: what the other is, for the message.
        """
        if fingerprint != self.tokenizer["fingerprint"]:
            raise UserError(
                f"{self.folder} was made by tokenizer {self.tokenizer['fingerprint'][:12]}, but {what} belongs to "
                f"tokenizer {fingerprint[:12]}: their ids mean different things. Tokenise again with the right one"
            )

    def verify(self):
        """Read everything: the codebook, checksums, row counts, ranges of ids and labels.

        Raises: UserError naming the first bad file.
        """
        codes = len(self.codebook)
        if codes != self.codebook_size:
            raise UserError(f"{self.folder / 'codebook.safetensors'} has {codes} codes, expected {self.codebook_size}")
        for shard, table, rows in zip(self.manifest["shards"], self._tables, self._rows, strict=True):
            path = self.folder / shard["file"]
            if sha256_of(path) != shard["sha256"]:
                raise UserError(f"{path}: the checksum differs from store.json; delete this shard and tokenise again")
            for start in range(0, len(rows), 4096):
                ids = unpack(torch.from_numpy(rows[start : start + 4096].copy()), self.codebook_size, self.grid)
                if int(ids.max()) >= self.codebook_size:
                    raise UserError(f"{path}: id {int(ids.max())} with a codebook of {self.codebook_size}")
            labels = table.column("label").to_numpy()
            if len(labels) and not (labels.min() >= -1 and labels.max() < len(self.classes)):
                wrong = labels.min() if labels.min() < -1 else labels.max()
                raise UserError(f"{path}: label {wrong} with {len(self.classes)} classes")

    def _open(self, shard):
        path = self.folder / shard["file"]
        try:
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        except FileNotFoundError as error:
            raise UserError(f"{path} is missing: run the tokenising command again, it makes only this shard") from error
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"{path} is cut off or broken: delete it and run the tokenising command again") from error
        if table.num_rows != shard["rows"]:
            raise UserError(f"{path} has {table.num_rows} rows, store.json says {shard['rows']}: tokenise again")
        return table.combine_chunks()

    def _rows_of(self, shard, table):
        """The tokens column as a (rows, bytes) array over the mapped file, nothing copied."""
        if table.num_rows == 0:
            return np.zeros((0, self.row_bytes), np.uint8)
        column = table.column("tokens").chunk(0)
        width = column.type.byte_width
        if width != self.row_bytes:
            raise UserError(f"{self.folder / shard['file']} has rows of {width} bytes, expected {self.row_bytes}")
        start, size = column.offset * width, table.num_rows * width
        buffer = np.frombuffer(column.buffers()[1], np.uint8, count=size, offset=start)
        return buffer.reshape(table.num_rows, width)


def write_shard(path, packed, labels, keys):
    """Write one shard atomically.

    Args:
        path: destination file.
        packed: (rows, bytes) uint8 array.
        labels: (rows,) integers, -1 where unknown.
        keys: list of strings.
    Returns: {"file", "rows", "sha256"} for the manifest.
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
        checksum = sha256_of(temporary)
    return {"file": Path(path).name, "rows": rows, "sha256": checksum}


def write_manifest(folder, *, tokenizer, codebook, lookup, grid, preprocessing, classes, shards):
    """Finish a store: write codebook.safetensors, then store.json, which makes it one.

    Args:
        folder: the store's folder, its shards written.
        tokenizer: {"name", "fingerprint"}.
        codebook: (k, c) float32.
        lookup: how the nearest code is meant, "cosine" or "euclidean".
        grid: (h, w).
        preprocessing: how images became the tokenizer's input, a dict.
        classes: class names.
        shards: what `write_shard` returned, in order.
    """
    from safetensors.torch import save_file

    codebook_size = len(codebook)
    with replacing(Path(folder) / "codebook.safetensors") as temporary:
        save_file({"codebook": codebook.float().contiguous()}, temporary)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "tokenizer": tokenizer,
        "codebook_size": codebook_size,
        "bits": bits_per_token(codebook_size),
        "lookup": lookup,
        "grid": list(grid),
        "preprocessing": preprocessing,
        "classes": list(classes),
        "shards": shards,
    }
    write_json(Path(folder) / "store.json", manifest)


def sha256_of(path):
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
