"""Make a token store of ids that were made elsewhere: the files of the SeiT release, or Parquet.

    seitpp store import --from seit --data imagenet1k-train-token.data.bin.gz --labels imagenet1k-train-label.txt \
        --codebook codebook.ckpt --synonyms synonyms.json --output_dir stores/imagenet
    seitpp store import --from parquet --data exported --output_dir stores/mine

Everything is read as a stream. The store is written beside its place and moved there when it is whole: an import that
is stopped leaves no store and starts anew (what one that was killed left beside, the next removes). Rows without a key
get their number.

A store that comes without its tokenizer gets the fingerprint of its codebook: the SHA-256 that seitpp.runtime.weights'
`fingerprint_of` gives for {"codebook": the (k, c) float32 tensor} and {"lookup": "cosine" or "euclidean"}.
"""

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from einops import rearrange

from seitpp.runtime.config import require
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import read_json, replacing
from seitpp.runtime.locations import Location
from seitpp.runtime.places import fresh_output
from seitpp.runtime.progress import Progress
from seitpp.runtime.rights import check_readable
from seitpp.runtime.tables import read_utf8
from seitpp.runtime.weights import fingerprint_of
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.codec import pack
from seitpp.tokens.exchange import published
from seitpp.tokens.exchange.codebook_file import codebook_checksum, read_codebook
from seitpp.tokens.format.targets import Targets
from seitpp.tokens.format.verify import verify_masks, verify_places
from seitpp.tokens.one_dimensional import described_tokenizer
from seitpp.tokens.row_blocks import ShardSeries
from seitpp.tokens.store import write_manifest
from seitpp.tokens.synonyms import read_synonyms, write_synonyms

RELEASE_GRID = (32, 32)
_MOST_CLASSES = 1 << 24
"""More numbers than this, without names, are no classes but a mistake."""


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Make a token store of ids that were made elsewhere."""

    source: Literal["seit", "parquet"]
    """seit: the files of the published release; parquet: files with a column of ids. Also spelt --from"""
    data: Location
    """seit: NAME.data.bin.gz, its index beside it; parquet: a file, a folder of *.parquet, or a glob"""
    output_dir: Location
    """folder of the new store"""
    labels: Location | None = None
    """seit: the file of labels, one integer a line; None: unknown"""
    classes: Location | None = None
    """file of class names, one a line, or the release's JSON of {name: number}; None: numbers, or what the data says"""
    codebook: Location | None = None
    """.ckpt with a bare (k, c) tensor, or .safetensors; may be left out beside --tokenizer and for exported Parquet"""
    tokenizer: Location | None = None
    """the tokenizer that made the ids: the store belongs to it, and takes its codebook; None: see --codebook"""
    lookup: Literal["cosine", "euclidean"] | None = None
    """how the nearest code of an embedding is meant; None: what came with the data or tokenizer, else cosine"""
    synonyms: Location | None = None
    """published synonym dictionary, kept as synonyms.json in the store"""
    grid: str | None = None
    """tokens high and wide, such as 32,32; None: 32,32 for seit, else what came with the data, else a square"""
    rows_per_shard: int = 65536
    """images in a shard"""
    ids_column: str | None = None
    """parquet: lists of integers or a shard's packed tokens; None: ids, else tokens"""
    label_column: str | None = None
    """parquet: integers or strings; None: label, where there is one"""
    key_column: str | None = None
    """parquet: where a row came from; None: key, where there is one"""
    labels_column: str | None = None
    """parquet: lists of integers, several labels a row; None: labels, where it is such a column"""
    mask_column: str | None = None
    """parquet: label maps as greyscale PNGs of 8 or 16 bits; None: mask, where it is binary"""
    mask_classes: Location | None = None
    """file of names of the masks' values, one a line or JSON; None: what came with the data, else none"""
    mask_ignore: int | None = None
    """value of the masks that counts for nothing, such as 255; None: what came with the data, else none"""

    def __post_init__(self):
        require(self, "rows_per_shard", self.rows_per_shard >= 1, "must be at least 1")
        require(self, "grid", self.grid is None or _parse_grid(self.grid), "is not like 32,32")
        require(self, "labels", self.labels is None or self.source == "seit", "is for seit; see --label_column")
        require(self, "codebook", not (self.codebook and self.tokenizer), "and --tokenizer exclude each other")


@dataclass(frozen=True)
class _Origin:
    """What a store says of its ids besides the rows."""

    tokenizer: dict
    codebook: torch.Tensor
    lookup: str
    grid: Any
    preprocessing: dict
    mask: dict | None = None
    windows: dict | None = None


def main(config: ImportConfig) -> None:
    """Read the rows, write them as shards, then the manifest."""
    target = fresh_output(config, folder=True)
    read = {"seit": _read_seit, "parquet": _read_parquet}[config.source]
    origin, classes, rows, blocks = read(config)
    codes = len(origin.codebook)
    synonyms = read_synonyms(config.synonyms, codes) if config.synonyms else None
    with replacing(target) as folder, Progress(rows, "import") as progress:
        folder.mkdir()
        shards = ShardSeries(folder, config.rows_per_shard)
        for file, first, ids, labels, keys, targets in blocks:
            _check(ids, 0, codes, file, first, "id", f"but the codebook has {codes} codes: give the right --codebook")
            _check_labels(labels, classes, file, first)
            _check_targets(targets, classes, origin, file, first)
            maps = rearrange(torch.from_numpy(ids.astype(np.int32)), "b (h w) -> b h w", h=origin.grid[0])
            shards.append(pack(maps, codes).numpy(), labels, keys, targets)
            progress.update(shards.rows)
        shards.cut()
        if synonyms is not None:
            write_synonyms(folder / "synonyms.json", synonyms)
        write_manifest(
            folder, tokenizer=origin.tokenizer, codebook=origin.codebook, lookup=origin.lookup, grid=origin.grid,
            preprocessing=origin.preprocessing, classes=classes, shards=shards.shards, mask=origin.mask,
            windows=origin.windows,
        )  # fmt: skip
    print(f"{target}: {shards.rows} images, {len(classes)} classes, K = {codes}, {len(shards.shards)} shards")


def _read_seit(config):
    """(origin, classes, number of rows, blocks) of the release's files."""
    origin = _origin(config, {}, RELEASE_GRID)
    rows = published.count_rows(config.data)
    classes = read_classes(config.classes) if config.classes else None
    count, largest = rows, -1
    if config.labels:
        count = 0
        for labels in published.read_labels(config.labels):
            _check_labels(labels, classes, config.labels, count)
            count, largest = count + len(labels), max(largest, int(labels.max()))
    if count != rows:
        raise UserError(f"{config.labels} has {count} labels, {config.data} has {rows} images: the two don't match")
    if classes is None:
        classes = [str(number) for number in range(largest + 1)]
    return origin, classes, rows, _seit_blocks(config, math.prod(origin.grid))


def _seit_blocks(config, tokens, block=256):
    labels, first = None, 0
    if config.labels:
        labels = published.read_labels(config.labels, block=block)
    for ids in published.read_rows(config.data, tokens, block=block):
        keys = [f"{row:08d}" for row in range(first, first + len(ids))]
        yield config.data, first, ids, np.full(len(ids), -1) if labels is None else next(labels), keys, Targets()
        first += len(ids)


def _read_parquet(config):
    """(origin, classes, number of rows, blocks) of Parquet files."""
    from seitpp.tokens.exchange.parquet_rows import ParquetRows

    source = ParquetRows(
        config.data, ids=config.ids_column, label=config.label_column, key=config.key_column,
        labels=config.labels_column, mask=config.mask_column,
    )  # fmt: skip
    origin = _origin(config, source.manifest, _square(source.first_length()), beside=source.files[0].parent)
    origin = replace(origin, mask=_mask_meaning(config, source.manifest), windows=source.manifest.get("windows"))
    if not origin.grid:
        raise UserError(f"{source.files[0]}: the rows are no square of ids: say which by --grid, such as --grid 24,32")
    if config.classes:
        classes = read_classes(config.classes)
    elif "classes" in source.manifest:
        classes = source.manifest["classes"]
    else:
        classes = source.label_names()
        if classes is None:
            largest = source.largest_label()
            _check_labels(np.array([largest]), None, config.data, 0)
            classes = [str(number) for number in range(largest + 1)]
    blocks = source.blocks(grid=origin.grid, codebook_size=len(origin.codebook), classes=classes)
    return origin, classes, source.rows, blocks


def _origin(config, manifest, usual_grid, beside=None):
    """Codebook and tokenizer, by the user's word, else by the manifest that came with the data."""
    grid = _parse_grid(config.grid) if config.grid else None
    if config.tokenizer:
        made_by = (manifest.get("tokenizer") or {}).get("fingerprint")
        tokenizer = load_tokenizer(config.tokenizer, fingerprint=made_by)
        _check_same(config, manifest, tokenizer.fingerprint)
        if grid not in (None, tuple(tokenizer.grid)):
            raise UserError(f"{config.tokenizer} makes a grid of {tuple(tokenizer.grid)}, --grid says {grid}")
        return _Origin(
            described_tokenizer(tokenizer), tokenizer.codebook.detach().cpu(),
            tokenizer.lookup, tuple(tokenizer.grid), tokenizer.preprocessing,
        )  # fmt: skip
    lookup = config.lookup or manifest.get("lookup", "cosine")
    grid = grid or tuple(manifest.get("grid", ())) or usual_grid or ()
    path = config.codebook
    if path is None and manifest and beside and (beside / "codebook.safetensors").is_file():
        path = beside / "codebook.safetensors"
    if path is None:
        raise UserError(
            f"{config.data} comes without a codebook, which a store needs: give --codebook FILE or --tokenizer FOLDER"
        )
    codebook = read_codebook(path)
    if codebook_checksum(codebook) != manifest.get("codebook_checksum", codebook_checksum(codebook)):
        raise UserError(f"{path} is not the codebook that {config.data} was exported with: give the right --codebook")
    derived = {"name": "imported", "fingerprint": fingerprint_of({"codebook": codebook}, {"lookup": lookup})}
    return _Origin(manifest.get("tokenizer", derived), codebook, lookup, grid, manifest.get("preprocessing", {}))


def _check_same(config, manifest, fingerprint):
    if manifest and manifest["tokenizer"]["fingerprint"] != fingerprint:
        raise UserError(f"{config.data} was made by another tokenizer than {config.tokenizer}: leave --tokenizer out")


def _check_labels(labels, classes, file, first):
    """Refuse a block of labels, (n,), one of which is not -1 and no class; classes None: not known yet."""
    limit, advice = _MOST_CLASSES, "which can't be the number of a class"
    if classes is not None:
        limit, advice = len(classes), f"but there are {len(classes)} classes: give the right --classes"
    _check(labels[:, None], -1, limit, file, first, "label", advice)


def _check_targets(targets, classes, origin, file, first):
    """Refuse a block of targets in which a list names no class, or a mask or a window is broken."""
    if targets.labels is not None:
        for row, labels in enumerate(targets.labels.to_pylist()):
            values = np.array(labels or [], np.int64)[None]
            _check(values, 0, len(classes), file, first + row, "label", f"but there are {len(classes)} classes")
    if targets.masks is not None:
        size = tuple(origin.windows["size"]) if origin.windows else None
        verify_masks(file, targets, origin.mask or {"classes": [], "ignore": None}, first, size=size)
    if targets.windows is not None:
        verify_places(file, targets, origin.windows, first)


def _mask_meaning(config, manifest):
    """{"classes", "ignore"} of masks: by the user's word, else by what came with the data."""
    meaning = {"classes": [], "ignore": None, **(manifest.get("mask") or {})}
    if config.mask_classes:
        meaning["classes"] = read_classes(config.mask_classes)
    if config.mask_ignore is not None:
        meaning["ignore"] = config.mask_ignore
    return meaning


def _check(values, least, limit, file, first, what, advice):
    """Refuse a block, (n, m), in which a value lies outside [least, limit)."""
    if values.size and not (values.min() >= least and values.max() < limit):
        outside = (values < least) | (values >= limit)
        row = int(outside.any(axis=1).argmax())
        raise UserError(f"{file}: row {first + row} has {what} {values[row][outside[row]][0]}, {advice}")


def read_classes(path: str | Path) -> list[str]:
    """Read class names: one a line, or JSON of {name: number}, numbers from 0 without a gap.

    Raises: UserError if a name is missing or there twice.
    """
    try:
        if Path(path).suffix == ".json":
            numbers = read_json(path)
            names = sorted(numbers, key=numbers.get)
            complete = [numbers[name] for name in names] == list(range(len(names)))
        else:
            names = read_utf8(path).splitlines()
            complete = all(name.strip() for name in names)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        check_readable(path)
        raise UserError(f"{path} is not a file of class names, one a line or JSON of {{name: number}}") from error
    if not complete or len(set(names)) != len(names):
        raise UserError(f"{path}: a class is missing or there twice: every label needs a name of its own")
    return names


def _parse_grid(text):
    """(h, w) of "32,32", with or without brackets; None if it is something else."""
    match = re.fullmatch(r"[\[(]?\s*(\d+)\s*,\s*(\d+)\s*[\])]?", text)
    grid = (int(match[1]), int(match[2])) if match else (0, 0)
    return grid if min(grid) >= 1 else None


def _square(length):
    side = math.isqrt(length or 0)
    return (side, side) if side and side * side == length else None
