"""The release format of SeiT, read and written as streams: nothing is ever held whole, however many images there are.

    NAME-token.data.bin.gz   one byte stream for all images; byte 255 means "add 255 to the next byte"
    NAME-token.index.npy.gz  where each image begins in it, N + 1 offsets: `data.bin` in the name becomes `index.npy`
    NAME-label.txt           one integer a line

Several 255s in a row add up here; the published reader adds 255 once, so it knows ids up to 509 only.
"""

import gzip
import itertools
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from seitpp.runtime.errors import UserError

PUBLISHED_TOKENS, PUBLISHED_CODES = 1024, 510
_MOST_BYTES_A_TOKEN = 65535 // 255 + 1
_BROKEN_GZIP = (EOFError, zlib.error, gzip.BadGzipFile)


def index_path(data: str | Path) -> Path:
    """The index that belongs to a data file.

    Raises: UserError if the name doesn't hold `data.bin`.
    """
    data = Path(data)
    if "data.bin" not in data.name:
        raise UserError(f"{data} is not a published token file: its name must hold data.bin, as in NAME.data.bin.gz")
    return data.with_name(data.name.replace("data.bin", "index.npy"))


def reads_back(codebook_size: int, grid: tuple[int, int]) -> bool:
    """Whether the published code, too, reads what is written of such ids."""
    return codebook_size <= PUBLISHED_CODES and grid[0] * grid[1] == PUBLISHED_TOKENS


def count_rows(data: str | Path) -> int:
    """How many images a data file holds, by the header of its index."""
    with _opened(index_path(data)) as file:
        return _Offsets(file, index_path(data)).rows


def read_rows(data: str | Path, tokens: int, *, block: int = 256) -> Iterator[np.ndarray]:
    """Yield the ids of all images in order.

    Args:
        data: path of NAME.data.bin.gz; the index lies beside it.
        tokens: ids that every image must have.
        block: images at a time: few, so that the work stays in the processor's cache.
    Yields: (n, tokens) int32 arrays, n <= block.
    Raises: UserError that names file and row where the two files don't fit together.
    """
    index = index_path(data)
    with _opened(index) as index_file, _opened(data) as stream:
        offsets = _Offsets(index_file, index)
        bounds = offsets.read(1)
        if bounds[0] != 0:
            raise UserError(f"{index}: the first offset is {bounds[0]}, expected 0: another data file's index?")
        for first in range(0, offsets.rows, block):
            bounds = np.concatenate([bounds[-1:], offsets.read(min(block, offsets.rows - first))])
            _check_bounds(bounds, tokens, index, first)
            content = _read(stream, data, int(bounds[-1] - bounds[0]), f"row {first}")
            if len(content) < bounds[-1] - bounds[0]:
                row = first + np.searchsorted(bounds, bounds[0] + len(content), side="right") - 1
                raise UserError(f"{data} ends within row {row}, but {index.name} goes on: the two don't match")
            yield _decode(np.frombuffer(content, np.uint8), bounds - bounds[0], tokens, data, first)
        if _read(stream, data, 1, f"row {offsets.rows}"):
            raise UserError(
                f"{data} goes on after row {offsets.rows - 1}, the last of {index.name}: the two don't match"
            )
        offsets.check_end()


def read_labels(path: str | Path, *, block: int = 4096) -> Iterator[np.ndarray]:
    """Yield the labels of a file with one integer a line, -1 where unknown.

    Yields: (n,) int64 arrays, n <= block.
    Raises: UserError that names the line which is no label.
    """
    try:
        with Path(path).open(encoding="utf-8") as file:
            first = 0
            while lines := list(itertools.islice(file, block)):
                yield _parse_labels(lines, path, first)
                first += len(lines)
    except (FileNotFoundError, IsADirectoryError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a file of labels: expected one integer a line") from error


def encode(ids: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Ids as the release's bytes.

    Args:
        ids: (n, tokens) integers, not negative.
    Returns: (bytes of all rows, (n,) int64 lengths of the rows).
    """
    flat = np.asarray(ids).astype(np.int64)
    adds, rest = np.divmod(flat, 255)
    lengths = adds + 1
    content = np.full(int(lengths.sum()), 255, np.uint8)
    content[np.cumsum(lengths) - 1] = rest.reshape(-1)
    return content.tobytes(), lengths.sum(axis=1)


@contextmanager
def writing(data: str | Path, rows: int) -> Iterator[Callable[[np.ndarray], None]]:
    """Yield a function that appends (n, tokens) ids to a data file and its index.

    Args:
        data: path of NAME.data.bin.gz to write; the index is written beside it.
        rows: how many rows there will be: the index begins with their number.
    """
    written, end = 0, 0
    with _written(index_path(data)) as index, _written(data) as stream:
        header = {"descr": "<i8", "fortran_order": False, "shape": (rows + 1,)}
        np.lib.format.write_array_header_1_0(index, header)
        index.write(np.zeros(1, "<i8").tobytes())

        def append(ids: np.ndarray) -> None:
            nonlocal written, end
            content, lengths = encode(ids)
            stream.write(content)
            index.write((end + np.cumsum(lengths)).astype("<i8").tobytes())
            written += len(lengths)
            end += len(content)

        yield append
    if written != rows:
        raise ValueError(f"{rows} rows were announced, {written} written")


@contextmanager
def _written(path: str | Path) -> Iterator[gzip.GzipFile]:
    """A gzip file without time and name in it: the same content gives the same bytes."""
    with Path(path).open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as file:
        yield file


@contextmanager
def _opened(path: str | Path) -> Iterator[gzip.GzipFile]:
    if not Path(path).is_file():
        raise UserError(f"{path} is missing: the release's data and index files must lie side by side")
    with gzip.open(path, "rb") as file:
        yield file


def _read(file: gzip.GzipFile, path: str | Path, count: int, place: str) -> bytes:
    """Up to `count` bytes."""
    try:
        return file.read(count)
    except _BROKEN_GZIP as error:
        raise UserError(f"{path} is cut off or broken near {place}: fetch it again") from error


class _Offsets:
    """The gzipped .npy file of offsets, read in parts."""

    def __init__(self, file: gzip.GzipFile, path: str | Path) -> None:
        self.file = file
        self.path = path
        try:
            version = np.lib.format.read_magic(file)
            read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, _, self.dtype = read_header[version](file)
        except Exception as error:  # the header is Python, and may be wrong in any way
            raise UserError(f"{path} is not a gzipped .npy file of offsets: fetch it again") from error
        if len(shape) != 1 or shape[0] < 1 or self.dtype.kind not in "iu":
            raise UserError(f"{path} holds {self.dtype} of shape {shape}, expected integers, one more than images")
        self.rows = shape[0] - 1
        self.done = 0

    def read(self, count: int) -> np.ndarray:
        """The next `count` offsets, int64."""
        content = _read(self.file, self.path, self.dtype.itemsize * count, f"offset {self.done}")
        if len(content) < self.dtype.itemsize * count:
            raise UserError(
                f"{self.path} ends before offset {self.done + count}, but its header says more: fetch it again"
            )
        self.done += count
        return np.frombuffer(content, self.dtype).astype(np.int64)

    def check_end(self) -> None:
        """Refuse a file that goes on after the last offset."""
        if _read(self.file, self.path, 1, "its end"):
            raise UserError(f"{self.path} goes on after offset {self.rows}, the last by its header: fetch it again")


def _check_bounds(bounds: np.ndarray, tokens: int, index: Path, first: int) -> None:
    """Refuse rows that don't go forward, or that can't hold so many ids: what is read next is that long."""
    lengths = np.diff(bounds)
    if (wrong := np.flatnonzero(lengths <= 0)).size:
        row = wrong[0]
        raise UserError(
            f"{index}: row {first + row} goes from byte {bounds[row]} to {bounds[row + 1]}, but offsets must rise: "
            f"fetch it again"
        )
    possible = (lengths >= tokens) & (lengths <= tokens * _MOST_BYTES_A_TOKEN)
    if not possible.all():
        row = np.flatnonzero(~possible)[0]
        raise UserError(
            f"{index}: row {first + row} has {lengths[row]} bytes, which can't be {tokens} ids: is --grid right?"
        )


def _decode(content: np.ndarray, bounds: np.ndarray, tokens: int, data: str | Path, first: int) -> np.ndarray:
    """Bytes of several rows to ids.

    A byte below 255 ends an id; the 255s between it and the end before are what must be added to it.
    """
    trailing = content[bounds[1:] - 1] == 255
    if trailing.any():
        raise UserError(f"{data}: row {first + int(trailing.argmax())} ends with 255, which must have a byte after it")
    ends = np.flatnonzero(content != 255).astype(np.int32)
    counts = np.diff(np.searchsorted(ends, bounds))
    if (wrong := np.flatnonzero(counts != tokens)).size:
        row = wrong[0]
        raise UserError(f"{data}: row {first + row} has {counts[row]} ids, expected {tokens}: is --grid right?")
    ids = content.take(ends).astype(np.int32)
    ids[0] += 255 * ends[0]
    adds = ends[1:] - ends[:-1]
    adds -= 1
    adds *= 255
    ids[1:] += adds
    return ids.reshape(-1, tokens)


def _parse_labels(lines: list[str], path: str | Path, first: int) -> np.ndarray:
    try:
        return np.array([int(line) for line in lines], np.int64)
    except (ValueError, OverflowError):
        number = first + next(place for place, line in enumerate(lines, 1) if not _is_label(line))
        wrong = lines[number - first - 1].strip()[:40]
        raise UserError(f"{path}: line {number} is {wrong!r}, expected an integer") from None


def _is_label(line: str) -> bool:
    try:
        return abs(int(line)) < 2**63
    except ValueError:
        return False
