"""A file of JPEGs with labels and keys, written within a number of bytes, and read as a source of images.

    jpegs.arrow    Arrow IPC, uncompressed, record batches of 256 images: jpeg (binary), label (int32), key (string)
    jpegs.json     quality, size, classes, rows, the bytes of each column, checksum

Memory is that of a record batch while it is written; it is read from the mapped file.
"""

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from seitpp.runtime.errors import UserError
from seitpp.runtime.files import make_folder, replacing, write_json
from seitpp.runtime.progress import Progress
from seitpp.runtime.schema import integer, listing, optional, read_described, record, text
from seitpp.tokenizers.sources.decoding.resize import Resize
from seitpp.tokenizers.sources.jpegs.storage import Encoder, JpegForm, row_bytes
from seitpp.tokenizers.sources.listing.left_out import LeftOut
from seitpp.tokenizers.sources.pixels import quiet_decoding, read_image
from seitpp.tokens.format.arrow_file import check_plain
from seitpp.tokens.format.shard import sha256_of

JPEGS, DESCRIPTION = "jpegs.arrow", "jpegs.json"
_SCHEMA = pa.schema([("jpeg", pa.binary()), ("label", pa.int32()), ("key", pa.string())])
_AT_ONCE = 256
_AGAIN = "run the command that made it again, with --resume none"
_SIZE = listing(integer(1, 1 << 16), length=2)
_CONTENT = record({name: integer(0) for name in _SCHEMA.names})
_DESCRIBED = record(
    {
        "quality": integer(1, 95), "side": optional(integer(1)), "size": _SIZE, "classes": listing(text()),
        "rows": integer(0), "bytes": integer(0), "content": _CONTENT, "sha256": text(),
    }
)  # fmt: skip


def write_jpegs(
    folder: str | Path, encoder: Encoder, ranked: np.ndarray, labels: np.ndarray, classes: Sequence[str],
    form: JpegForm, budget: int | None, progress: Progress | None = None,
) -> None:  # fmt: skip
    """Write images in an order until the next one does not fit.

    Args:
        folder: where jpegs.arrow and jpegs.json go.
        encoder: makes the JPEGs.
        ranked: rows of its images in the order in which they are taken, (n,) int64.
        labels: of all its images, (images,) integers.
        classes: class names.
        form: of the JPEGs.
        budget: bytes of JPEGs, labels and keys; None: all images fit.
        progress: shows how many are written.
    Raises: UserError if not even one fits.
    """
    folder = Path(folder)
    make_folder(folder)
    content, rows = dict.fromkeys(_SCHEMA.names, 0), 0
    with replacing(folder / JPEGS) as temporary:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer, quiet_decoding():
            for block in _blocks(encoder, ranked, labels, form):
                kept = []
                for row in block:
                    sizes = row_bytes(row[0], row[2])
                    if budget is not None and sum(content.values()) + sum(sizes.values()) > budget:
                        break
                    kept.append(row)
                    content = {name: content[name] + sizes[name] for name in content}
                if kept:
                    columns = zip(zip(*kept, strict=True), _SCHEMA.types, strict=True)
                    arrays = [pa.array(values, kind) for values, kind in columns]
                    writer.write_batch(pa.record_batch(arrays, schema=_SCHEMA))
                rows += len(kept)
                if progress is not None:
                    progress.update(rows, f"{sum(content.values()) / 1e6:.1f} MB")
                if len(kept) < len(block):
                    break
        if not rows:
            raise UserError(f"not one image fits into {budget} bytes as a JPEG: allow more")
        about = {"bytes": temporary.stat().st_size, "content": content, "sha256": sha256_of(temporary)}
    described = {"quality": form.quality, "side": form.side, "size": list(form.size(encoder.size))}
    write_json(folder / DESCRIPTION, {**described, "classes": list(classes), "rows": rows, **about})


def _blocks(encoder: Encoder, ranked: np.ndarray, labels: np.ndarray, form: JpegForm) -> Iterator[list[tuple]]:
    """(JPEG, label, key) of some images at a time."""
    keys = encoder.images.keys
    with ThreadPoolExecutor(max_workers=4) as threads:
        for start in range(0, len(ranked), _AT_ONCE):
            rows = ranked[start : start + _AT_ONCE].tolist()
            jpegs = threads.map(encoder.encode, rows, [form] * len(rows))
            yield [(jpeg, int(labels[row]), keys[row]) for jpeg, row in zip(jpegs, rows, strict=True)]


def has_jpegs(folder: str | Path) -> bool:
    """Whether `write_jpegs` has come to its end in a folder: it writes jpegs.json last."""
    return (Path(folder) / DESCRIPTION).is_file()


def read_description(folder: str | Path) -> dict[str, Any]:
    """Content of jpegs.json.

    Raises: UserError if it is something else.
    """
    return read_described(Path(folder) / DESCRIPTION, _DESCRIBED, _AGAIN)


class JpegImages:
    """What `write_jpegs` wrote, as an ImageSource. Images of another size than they are kept in are scaled to it.

    Args:
        folder: where it lies.

    Attributes:
        described: content of jpegs.json.
    Raises: UserError if a file is missing, cut off or not what jpegs.json says.
    """

    def __init__(self, folder: str | Path):
        self.file = Path(folder) / JPEGS
        self.described = read_description(folder)
        self._table = self._open()
        chunks = self._table.column("jpeg").chunks
        self._chunks, self._starts = chunks, np.cumsum([0, *map(len, chunks)])
        self.keys: list[str] = self._table.column("key").to_pylist()
        self.labels: np.ndarray = self._table.column("label").to_numpy().astype(np.int32)
        self.classes: list[str] = self.described["classes"]
        self.left_out: list[LeftOut] = []

    def _open(self) -> Any:
        try:
            content = pa.memory_map(str(self.file)).read_buffer()
            check_plain(memoryview(content))
            table = pa.ipc.open_file(content).read_all()
            table.validate(full=True)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise UserError(f"{self.file} is missing, cut off or broken: {_AGAIN}") from error
        told = self.described["rows"], self.described["bytes"]
        if table.schema != _SCHEMA or (table.num_rows, len(content)) != told:
            raise UserError(f"{self.file} is not what {DESCRIPTION} beside it says: {_AGAIN}")
        return table

    def __len__(self) -> int:
        return self._table.num_rows

    def jpeg(self, index: int) -> bytes:
        """The bytes of one JPEG."""
        chunk = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._chunks[chunk][index - int(self._starts[chunk])].as_py()

    def read(self, index: int, size: tuple[int, int], resize: Resize = "squash") -> np.ndarray:
        """Pixels of one image, see `read_image`; it was cut to its shape when it was written."""
        return read_image(io.BytesIO(self.jpeg(index)), size, "squash")

    def where(self, index: int) -> str:
        """Where one image lies, for messages."""
        return f"{self.file}, image {index} ({self.keys[index]})"

    def sizes(self, rows: Sequence[int]) -> np.ndarray:
        """Bytes of some JPEGs, (rows,) int64."""
        return np.array([len(self.jpeg(int(row))) for row in rows], np.int64)
