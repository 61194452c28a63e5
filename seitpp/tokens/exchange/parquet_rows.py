"""Rows of ids in Parquet files: those that `seitpp store export` writes, and anyone's with a column of ids.

Our files have the columns ids (fixed-size list of uint16; uint32 of more than
65,536 codes), label, class (null where unknown) and key, where the store
has them labels (list of int32), mask and truth (a PNG each) and window (seven int32), and in the schema's metadata,
under `seitpp`, the store's manifest without its shards.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions when it is imported.

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from seitpp.runtime.errors import UserError
from seitpp.runtime.rights import check_listable, check_readable
from seitpp.tokens.codec import packed_bytes, unpack
from seitpp.tokens.format.manifest import check_manifest
from seitpp.tokens.format.targets import LABELS_TYPE, MASK_TYPE, TARGET_COLUMNS, Targets, only_labels
from seitpp.tokens.format.windows import WINDOW_TYPE

METADATA = b"seitpp"


class ParquetRows:
    """Parquet files opened for reading, one after the other in the order of their names.

    Args:
        spec: a file, a folder (all *.parquet below it) or a glob.
        ids: column of ids: lists of integers, or the packed tokens of a shard. None: "ids", else "tokens".
        label: column of integers or strings. None: "label" where there is one.
        key: column that says where a row came from. None: "key" where there is one.
        labels: column of lists of integers, several labels a row. None: "labels" where it is such a column.
        mask: column of label maps, greyscale PNGs of 8 or 16 bits. None: "mask" where it is binary.

    Attributes:
        files: paths, sorted.
        rows: number of rows of all files.
        columns: names of the columns of ids, label, key, labels, mask, window and truth, None where there is none. The
            last two are those of segmentation stores alone, which say in their manifest what they mean.
        label_kind: "integers", "strings" or None.
        manifest: of the store that the files were exported from; {} if they are not ours.
    Raises: UserError if there is no such file, one is broken, or the columns are others.
    """

    def __init__(
        self,
        spec: str | Path,
        *,
        ids: str | None = None,
        label: str | None = None,
        key: str | None = None,
        labels: str | None = None,
        mask: str | None = None,
    ) -> None:
        given = {"ids": ids, "label": label, "key": key, "labels": labels, "mask": mask}
        self.files = _find(spec)
        schemas = [_read_schema(path) for path in self.files]
        self.rows = sum(rows for _, rows in schemas)
        self.manifest = _manifest(schemas[0][0], self.files[0])
        self.columns, self.label_kind = _choose_columns(schemas[0][0], self.files[0], given)
        for path, (schema, _) in zip(self.files, schemas, strict=True):
            if _manifest(schema, path) != self.manifest:
                raise UserError(f"{path} was exported from another store than {self.files[0].name}: import them apart")
            if _choose_columns(schema, path, given) != (self.columns, self.label_kind):
                raise UserError(f"{path} has other columns than {self.files[0].name}: import them apart")

    def label_names(self) -> list[str] | None:
        """The different labels of a column of strings, sorted; None where labels are integers or there are none."""
        if self.label_kind != "strings":
            return None
        names: set[Any] = set()
        for _, _, batch in self._batches([self.columns["label"]]):
            names.update(pc.unique(batch.column(0)).to_pylist())
        return sorted(names - {None})

    def largest_label(self) -> int:
        """The largest of the integer labels, one or several a row; -1 where there are none."""
        wanted = [self.columns["labels"], self.columns["label"] if self.label_kind == "integers" else None]
        wanted = [name for name in wanted if name is not None]
        columns = (column for _, _, batch in self._batches(wanted) for column in batch.columns) if wanted else ()
        largest = (pc.max(column.flatten() if _is_list(column.type) else column).as_py() for column in columns)
        return max((label for label in largest if label is not None), default=-1)

    def first_length(self) -> int | None:
        """Ids of the first row; None where it is packed or there is no row."""
        for _, _, batch in self._batches([self.columns["ids"]]):
            column = batch.column(0)
            return len(column[0]) if _is_list(column.type) and column[0].is_valid else None
        return None

    def blocks(
        self, *, grid: tuple[int, int], codebook_size: int, classes: Sequence[str]
    ) -> Iterator[tuple[Path, int, np.ndarray, np.ndarray, list[str], Targets]]:
        """Yield (file, its row that comes first, ids (n, h w), labels (n,), keys, Targets) from front to back.

        Args:
            grid: (h, w).
            codebook_size: K, by which packed tokens are unpacked.
            classes: class names, which labels that are strings must be among.
        Raises: UserError that names file and row where ids are missing, ragged or no integers.
        """
        done = 0
        wanted = [name for name in self.columns.values() if name is not None]
        for path, first, batch in self._batches(wanted):
            where = (path, first)
            ids = _ids(batch.column(self.columns["ids"]), grid, codebook_size, *where)
            targets = _targets(batch, self.columns, *where)
            labels = np.full(len(ids), -1, np.int64)
            if self.columns["label"] is not None:
                labels = _labels(batch.column(self.columns["label"]), classes, *where)
            elif targets.labels is not None:
                labels = only_labels(targets.labels).astype(np.int64)
            keys = [f"{row:08d}" for row in range(done, done + len(ids))]
            if self.columns["key"] is not None:
                given = pc.cast(batch.column(self.columns["key"]), pa.string()).to_pylist()
                keys = [key if new is None else new for key, new in zip(keys, given, strict=True)]
            yield *where, ids, labels, keys, targets
            done += len(ids)

    def _batches(self, columns: Sequence[str | None]) -> Iterator[tuple[Path, int, pa.RecordBatch]]:
        """(file, its row that comes first, rows), of plain types."""
        for path in self.files:
            first = 0
            try:
                with pq.ParquetFile(path) as file:
                    for batch in file.iter_batches(batch_size=2048, columns=columns):
                        plain = [_plain(column) for column in batch.columns]
                        yield path, first, pa.RecordBatch.from_arrays(plain, batch.schema.names)
                        first += batch.num_rows
            except (pa.ArrowException, OSError) as error:
                check_readable(path)
                raise UserError(f"{path} is broken near row {first}, or has other columns: export it again") from error


def _find(spec: str | Path) -> list[Path]:
    path = Path(spec)
    check_listable(path)
    if path.is_dir():
        files = sorted(each for each in path.rglob("*.parquet") if each.is_file())  # a pipe would be waited for
    else:
        files = [path] if path.is_file() else sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    if not files:
        raise UserError(f"{spec} holds no Parquet files: give a file, a folder of *.parquet, or a glob in quotes")
    return files


def _read_schema(path: Path) -> tuple[pa.Schema, int]:
    try:
        with pq.ParquetFile(path) as file:
            return file.schema_arrow, file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        check_readable(path)
        raise UserError(f"{path} is not a Parquet file, or is cut off: fetch or export it again") from error


def _manifest(schema: pa.Schema, path: Path) -> dict[str, Any]:
    """What an exported file says of its store; {} where the file is not ours."""
    content = (schema.metadata or {}).get(METADATA)
    if content is None:
        return {}
    try:
        return check_manifest({**json.loads(content), "shards": []}, path)
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: the metadata {METADATA.decode()!r} is broken: export it again") from error


def _choose_columns(
    schema: pa.Schema, path: Path, given: dict[str, str | None]
) -> tuple[dict[str, str | None], str | None]:
    """(column of each purpose, what kind of values labels are)."""
    columns = {
        "ids": _choose(schema, path, "ids", given["ids"], ["ids", "tokens"], required=True),
        "label": _choose(schema, path, "label", given["label"], ["label"]),
        "key": _choose(schema, path, "key", given["key"], ["key"]),
        "labels": _choose_target(schema, path, "labels", given["labels"]),
        "mask": _choose_target(schema, path, "mask", given["mask"]),
        "window": "window" if "windows" in (manifest := _manifest(schema, path)) else None,
        "truth": "truth" if "truth" in manifest.get("columns", ()) else None,
    }
    if columns["window"] and not _is_window(schema):
        raise UserError(f"{path} has no column window of {WINDOW_TYPE}, as its metadata says: export it again")
    if columns["truth"]:
        _choose_target(schema, path, "mask", "truth")
    if columns["label"] is None:
        return columns, None
    kind = _plain_type(schema.field(columns["label"]).type)
    if pa.types.is_integer(kind):
        return columns, "integers"
    if pa.types.is_string(kind):
        return columns, "strings"
    raise UserError(f"{path}: labels are of type {kind}, expected integers or strings")


def _choose(
    schema: pa.Schema, path: Path, what: str, given: str | None, usual: list[str], *, required: bool = False
) -> str | None:
    """The column that holds `what`."""
    found = [name for name in ([given] if given else usual) if name in schema.names]
    if not found and (given or required):
        raise UserError(
            f"{path} has no column {given or ' or '.join(usual)}, but {', '.join(schema.names)}: name the right one "
            f"by --{what}_column"
        )
    return found[0] if found else None


def _choose_target(schema: pa.Schema, path: Path, what: str, given: str | None) -> str | None:
    """The column that holds targets; one of the usual name that is of another type is something else."""
    name = _choose(schema, path, what, given, [what])
    if name is None:
        return None
    kind = _plain_type(schema.field(name).type)
    if what == "labels":
        fits, expected = _is_list(kind) and pa.types.is_integer(kind.value_type), "lists of integers"
    else:
        fits, expected = pa.types.is_large_binary(kind), "binary, a PNG a row"
    if given and not fits:
        raise UserError(f"{path}: the column {name} is of type {kind}, expected {expected}")
    return name if fits else None


def _targets(batch: pa.RecordBatch, columns: dict[str, str | None], path: Path, first: int) -> Targets:
    labels, masks, windows, truths = (
        None if columns[what] is None else batch.column(columns[what]) for what in TARGET_COLUMNS
    )
    if labels is not None and labels.flatten().null_count:
        row = next(row for row, each in enumerate(labels.to_pylist()) if None in (each or ()))
        raise UserError(f"{path}: row {first + row} lacks one of its labels (null): remove or mend it")
    return Targets(
        labels=None if labels is None else labels.cast(LABELS_TYPE),
        masks=None if masks is None else masks.cast(MASK_TYPE),
        windows=None if windows is None else windows.cast(WINDOW_TYPE),
        truths=None if truths is None else truths.cast(MASK_TYPE),
    )


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """The one type of this file's for a kind of values: texts and bytes come in several, such as polars' views."""
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary(kind) or pa.types.is_binary_view(kind):
        return pa.large_binary()
    return kind


def _plain(column: Any) -> Any:
    """A column of its plain type."""
    values = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    return values if values.type == _plain_type(values.type) else pc.cast(values, _plain_type(values.type))


def _is_window(schema: pa.Schema) -> bool:
    if "window" not in schema.names:
        return False
    kind = schema.field("window").type
    return pa.types.is_fixed_size_list(kind) and (kind.list_size, kind.value_type) == (
        WINDOW_TYPE.list_size,
        pa.int32(),
    )


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _ids(column: Any, grid: tuple[int, int], codebook_size: int, path: Path, first: int) -> np.ndarray:
    tokens = grid[0] * grid[1]
    if column.null_count:
        raise UserError(f"{path}: row {first + _first_true(column.is_null())} has no ids: remove or mend it")
    if pa.types.is_fixed_size_binary(column.type):
        width = packed_bytes(tokens, codebook_size)
        if column.type.byte_width != width:
            raise UserError(
                f"{path}: packed rows have {column.type.byte_width} bytes, expected {width} for K = {codebook_size} "
                f"on {grid}: give the right --codebook and --grid"
            )
        start, size = column.offset * width, len(column) * width
        packed = np.frombuffer(column.buffers()[1], np.uint8, count=size, offset=start).copy()
        return unpack(torch.from_numpy(packed.reshape(-1, width)), codebook_size, grid).numpy().reshape(-1, tokens)
    if not _is_list(column.type) or not pa.types.is_integer(column.type.value_type):
        raise UserError(f"{path}: the ids are of type {column.type}, expected lists of integers or packed tokens")
    wrong = pc.not_equal(pc.list_value_length(column), tokens)
    if pc.any(wrong).as_py():
        row = _first_true(wrong)
        raise UserError(f"{path}: row {first + row} has {len(column[row])} ids, expected {tokens}: is --grid right?")
    values = column.flatten()
    if values.null_count:
        row = _first_true(values.is_null()) // tokens
        raise UserError(f"{path}: row {first + row} lacks an id (null): remove or mend it")
    return values.to_numpy(zero_copy_only=False).reshape(-1, tokens)


def _labels(column: Any, classes: Sequence[str], path: Path, first: int) -> np.ndarray:
    if pa.types.is_integer(column.type):
        return pc.fill_null(pc.cast(column, pa.int64(), safe=False), -1).to_numpy(zero_copy_only=False)
    found = pc.index_in(column, pa.array(classes, column.type))
    foreign = pc.and_(found.is_null(), column.is_valid())
    if pc.any(foreign).as_py():
        row = _first_true(foreign)
        raise UserError(f"{path}: row {first + row} is of class {column[row].as_py()!r}, which --classes lacks")
    return pc.fill_null(pc.cast(found, pa.int64()), -1).to_numpy(zero_copy_only=False)


def _first_true(mask: Any) -> int:
    return pc.index(mask, True).as_py()
