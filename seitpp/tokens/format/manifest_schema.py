"""What `store.json` may say: types and ranges of all fields that a reader uses. Their meaning: docs/store-format.md."""

from typing import Any

from seitpp.runtime.schema import (
    Mismatch,
    Schema,
    anything,
    both,
    integer,
    listing,
    number,
    one_of,
    optional,
    record,
    table,
    text,
)  # fmt: skip
from seitpp.tokens.format.layout import CODINGS, MOST_CODES, MOST_IN_ONE_TABLE, RANS, bits_per_token
from seitpp.tokens.one_dimensional import GEOMETRIES

FORMAT = "seitpp token store"
BASE_COLUMNS = ("tokens", "label", "key")

SHA256 = text("[0-9a-f]{64}", "64 hexadecimal digits")
FINGERPRINT = text(".+", "the fingerprint of a tokenizer")
CODES = integer(1, MOST_CODES)
LOOKUP = one_of("cosine", "euclidean", "signs")
GRID = listing(integer(1, 4096), length=2)
VIEW = listing(integer(1, 1024), length=2)
"""Tokens that a model sees at once: all of them take part in its attention."""
EMBEDDING_DIM = integer(1, 65536)

_FILE = text(r"(?!\.\.?$)[^/\0]+", "the name of a file in the store's folder")
_BESIDE = text(
    r"(\.\./)*((?!\.\.?/)[^/\0]+/)*(?!\.\.?$)[^/\0]+", "a path from the subset's folder, which may begin with ../"
)
_FILE_CONTENT = record({"bytes": integer(0), "sha256": SHA256})
_COLUMN_BYTES = both(record({name: integer(0) for name in BASE_COLUMNS}), table(integer(0)))
_HOW = {
    "count": optional(integer(1)), "fraction": optional(number(0, 1)), "share": optional(number(0, 1)),
    "budget": optional(text()),
}  # fmt: skip
_FIELDS = {
    "tokenizer": record({"name": text(), "fingerprint": FINGERPRINT}, {"geometry": one_of(*GEOMETRIES)}),
    "codebook_size": CODES,
    "bits": integer(8, 24),
    "lookup": LOOKUP,
    "grid": GRID,
    "preprocessing": table(anything),
    "classes": listing(text()),
    "shards": listing(anything),
}
_FURTHER = {
    "coding": one_of(*CODINGS),
    "columns": listing(text()),
    "codebook": _FILE_CONTENT,
}
_MASK = record({"classes": listing(text()), "ignore": optional(integer(0, 65535))})
_PIXELS = listing(integer(1, 2**20), length=2)
_WINDOWS = record({"size": _PIXELS, "stride": _PIXELS, "short_side": optional(integer(1, 2**20)), "tile": _PIXELS})
_SUBSET = record(
    {
        "file": _FILE,
        "rows": integer(0),
        "sha256": SHA256,
        "of_classes": integer(0),
        "label_of": optional(listing(integer(-1))),
    },
    {"content": _COLUMN_BYTES, "how": record({}, _HOW)},
)


def _shard(file: Schema) -> Schema:
    return record(
        {"file": file, "rows": integer(0, 2**40), "sha256": SHA256}, {"bytes": integer(0), "content": _COLUMN_BYTES}
    )


SHARD = _shard(_FILE)
"""What a manifest says of a shard, where it is no subset's."""


def manifest(value: Any, field: str) -> None:
    """The schema of a manifest of version 1 or 2: first each field by itself, then whether they fit together."""
    further = _FURTHER if value["version"] > 1 else {}
    record(
        {**_FIELDS, **further}, {"mask": _MASK, "windows": _WINDOWS, "subset": _SUBSET, "coding_tables": _FILE_CONTENT}
    )(value, field)
    listing(_shard(_BESIDE) if "subset" in value else SHARD)(value["shards"], "shards")
    _bits(value)
    _columns(value)
    if value.get("coding") == RANS and "coding_tables" not in value:
        raise Mismatch("it lacks 'coding_tables', without which coded rows can't be read")
    if value.get("coding") == RANS and value["codebook_size"] > MOST_IN_ONE_TABLE:
        raise Mismatch(f"codebook_size is {value['codebook_size']}, and rows of so many codes can't be coded")
    if "subset" in value:
        _label_of(value["subset"], len(value["classes"]))


def _bits(value: Any) -> None:
    if value["bits"] != bits_per_token(value["codebook_size"]):
        raise Mismatch(f"bits is {value['bits']}, which does not fit codebook_size {value['codebook_size']}")
    if value["lookup"] == "signs" and value["codebook_size"].bit_count() != 1:
        raise Mismatch(f"lookup is signs, but codebook_size {value['codebook_size']} is no power of 2")


def _columns(value: Any) -> None:
    columns = value.get("columns", [*BASE_COLUMNS])
    if tuple(columns[:3]) != BASE_COLUMNS or len(set(columns)) < len(columns):
        raise Mismatch(f"columns is {columns!r:.60}, expected {', '.join(BASE_COLUMNS)} and others, each once")
    if "mask" in columns and "mask" not in value:
        raise Mismatch("it lacks 'mask', which says what the column of that name means")
    if "window" in columns and "windows" not in value:
        raise Mismatch("it lacks 'windows', which says what the column window means")
    if "window" in columns and value["tokenizer"].get("geometry") == "none":
        raise Mismatch("columns has window, but tokenizer.geometry says that places of tokens are none in the image")
    if "truth" in columns and not {"mask", "window"} <= set(columns):
        raise Mismatch("columns has truth without mask and window, which it belongs to")
    for place, shard in enumerate(value["shards"]):
        if set(shard.get("content", columns)) != set(columns):
            raise Mismatch(f"shards[{place}].content has other columns than `columns`")
        if sum(shard.get("content", {}).values()) > shard.get("bytes", 2**53):
            raise Mismatch(f"shards[{place}].content has more bytes than the shard")


def _label_of(subset: Any, classes: int) -> None:
    """The new numbers of a subset's classes: one for each old class, none that has no name."""
    numbers = subset["label_of"]
    if numbers is None:
        if subset["of_classes"] != classes:
            raise Mismatch(f"subset.of_classes is {subset['of_classes']}, but there are {classes} classes")
    elif len(numbers) != subset["of_classes"] or max(numbers, default=-1) >= classes:
        raise Mismatch(f"subset.label_of does not number {subset['of_classes']} classes anew as {classes}")
