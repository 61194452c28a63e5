"""Code a store: write its rows entropy-coded, without loss, each by itself, so that any of them is read alone.

    seitpp store code stores/train --output_dir stores/train-coded

Tables of the store's own rows say how probable each code is beside its neighbours; they are kept in the new store and
counted in its bytes. Of several sizes the one that costs least is taken, and rows stay packed where that is smaller. A
job that was killed goes on with the shards that are missing. coding.json in the new store says what it was made of.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange

from seitpp.runtime.config import require
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import make_folder, read_json, remove_unfinished, replacing, write_json
from seitpp.runtime.locations import Location
from seitpp.runtime.locks import lock_folder
from seitpp.runtime.ownership import is_coding
from seitpp.runtime.places import claim
from seitpp.runtime.progress import Progress
from seitpp.runtime.schema import check, read_described, record
from seitpp.tokens.codec import pack
from seitpp.tokens.coding.coder import RowCoder
from seitpp.tokens.coding.fit import FIT_ROWS, choose_tables, spread_rows
from seitpp.tokens.coding.tables_file import read_tables
from seitpp.tokens.format.coded_rows import CodedRows
from seitpp.tokens.format.layout import MOST_IN_ONE_TABLE
from seitpp.tokens.format.manifest import TABLES_FILE
from seitpp.tokens.format.manifest_schema import SHARD
from seitpp.tokens.format.shard import check_size
from seitpp.tokens.format.targets import Targets
from seitpp.tokens.reading import ReadsStores
from seitpp.tokens.remote import CacheConfig
from seitpp.tokens.row_blocks import row_ranges
from seitpp.tokens.store import TokenStore, open_store, write_manifest, write_shard


@dataclass(frozen=True, kw_only=True)
class CodeStoreConfig(ReadsStores):
    """Write a store's rows entropy-coded, without loss."""

    store: Location
    """the store's folder or URL"""
    output_dir: Location
    """folder of the new store"""
    fit_rows: int = FIT_ROWS
    """rows, evenly spaced, that the tables are fitted to"""

    def __post_init__(self) -> None:
        require(self, "fit_rows", self.fit_rows >= 1, "must be at least 1")


def main(config: CodeStoreConfig) -> None:
    """Fit the tables, write the shards that are missing, then the manifest."""
    folder = claim(config, is_coding, "a store that seitpp store code made")
    store = open_store(config.store, CacheConfig(), verify_shards=config.verify_shards)
    if store.codebook_size > MOST_IN_ONE_TABLE:
        raise UserError(
            f"{config.store} has {store.codebook_size:,} codes: tables are for at most {MOST_IN_ONE_TABLE:,}, as each "
            "code must have one of 65,536 slots. Its packed rows are the smallest form that there is"
        )
    make_folder(folder)
    with lock_folder(folder, remove=True), Progress(len(store), "code") as progress:
        remove_unfinished(folder)
        tables = _tables(folder, store, config)
        coder = None if tables is None else RowCoder(read_tables(tables, store.codebook_size, store.grid))
        shards = []
        for rows in _shard_rows(store):
            shards.append(_shard(folder / f"shard-{len(shards):05d}.arrow", store, rows, coder))
            store.close_shards()
            progress.update(rows.stop)
        write_manifest(
            folder, tokenizer=store.tokenizer, codebook=store.codebook, lookup=store.lookup, grid=store.grid,
            preprocessing=store.manifest["preprocessing"], classes=store.classes, shards=shards,
            mask=store.manifest.get("mask"), windows=store.manifest.get("windows"), columns=store.columns,
            tables=tables,
        )  # fmt: skip
    print(_said(TokenStore(folder), store))


def _tables(folder: Path, store: TokenStore, config: CodeStoreConfig) -> bytes | None:
    """Content of coding.safetensors, None where rows stay packed; chosen once, so that a resumed job goes on alike.

    Raises: UserError if the folder holds the coding of another store.
    """
    identity = {"store": store.fingerprint, "fit_rows": config.fit_rows}
    file = folder / "coding.json"
    former = read_described(file, record({}), f"remove {folder}, and code again") if file.exists() else {}
    if other := [name for name in identity if former.get(name, identity[name]) != identity[name]]:
        raise UserError(
            f"{folder} holds the coding of other input ({other[0]} differs): choose another --output_dir, or remove it"
        )
    if "tables" in former:
        if former["tables"] is None:
            return None
        content = (folder / TABLES_FILE).read_bytes()
        if hashlib.sha256(content).hexdigest() == former["tables"]:
            return content
        raise UserError(f"{folder / TABLES_FILE} is not the one of coding.json: remove {folder}, and code again")
    chosen = spread_rows(len(store), config.fit_rows)
    ids = rearrange(store.ids(chosen), "b h w -> b (h w)").numpy()
    tables = choose_tables(ids, store.codebook_size, store.grid[1], rows=len(store))
    content = None if tables is None else tables.to_bytes()
    if content is not None:
        with replacing(folder / TABLES_FILE) as temporary:
            temporary.write_bytes(content)
    write_json(file, {**identity, "tables": None if content is None else hashlib.sha256(content).hexdigest()})
    return content


def _shard_rows(store: TokenStore) -> Iterator[range]:
    """Rows of each shard, of those that have any."""
    for start, stop in pairwise(store.shard_offsets.tolist()):
        if stop > start:
            yield range(start, stop)


def _shard(path: Path, store: TokenStore, rows: range, coder: RowCoder | None) -> dict[str, Any]:
    """What the manifest says of a shard; it is written if it is not there. Its sidecar is written last."""
    sidecar = path.with_suffix(".json")
    try:
        entry = check(read_json(sidecar), SHARD, sidecar, "remove it")
        check_size(path, entry)
        return entry
    except (FileNotFoundError, ValueError, UserError):
        pass
    parts, labels, keys, targets = [], [], [], []
    for block in row_ranges(rows):
        ids = store.ids(block)
        parts.append(pack(ids, store.codebook_size).numpy() if coder is None else coder.encode(ids))
        labels.append(store.labels_at(block))
        keys += store.keys(block)
        targets.append(store.targets_at(block))
    tokens = np.concatenate(parts) if coder is None else CodedRows.joined(parts)
    entry = write_shard(path, tokens, np.concatenate(labels), keys, Targets.joined(targets))
    write_json(sidecar, entry)
    return entry


def _said(coded: TokenStore, store: TokenStore) -> str:
    rows = max(1, len(coded))
    slow = coded.coder is not None and not coded.coder.compiled
    hint = "; pip install 'seitpp[fast]' (numba) decodes them many times as fast" if slow else ""
    return (
        f"{coded.folder}: {len(coded)} rows, {coded.size.tokens / rows:.1f} bytes of tokens each "
        f"(packed: {store.row_bytes}), tables {coded.size.tables:,} bytes, {coded.size.total / 1e6:.3f} MB in all{hint}"
    )
