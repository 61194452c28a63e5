"""How large a store is: rows and bytes, counted whole and apart, from its manifest, without opening a shard."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from seitpp.tokens.format.layout import packed_bytes


@dataclass(frozen=True, kw_only=True)
class StoreSize:
    """Rows of a store and the bytes that they take. Of a subset: its own rows and their part of the shards.

    Attributes:
        rows: number of rows.
        tokens: bytes of tokens as they are stored, and of the offsets of coded ones.
        labels: bytes of one label and of several labels a row.
        masks: bytes of compressed label maps, those of windows and those of whole images.
        keys: bytes of keys, and of the places of windows.
        container: what Arrow adds: schema, padding, record batch. Part of `keys` where the manifest is of version 1,
            which does not tell them apart.
        codebook: bytes of codebook.safetensors.
        tables: bytes of coding.safetensors, where rows are coded.
        manifest: bytes of store.json, and of rows.npy where there is one.
    """

    rows: int
    tokens: int
    labels: int
    masks: int
    keys: int
    container: int
    codebook: int
    tables: int
    manifest: int

    @property
    def total(self) -> int:
        """All bytes."""
        rows = self.tokens + self.labels + self.masks + self.keys + self.container
        return rows + self.codebook + self.tables + self.manifest


def count_rows(manifest: dict[str, Any]) -> int:
    """Rows of a store or subset."""
    return manifest["subset"]["rows"] if "subset" in manifest else _shard_rows(manifest)


def store_size(manifest: dict[str, Any], file_bytes: Callable[[str], int]) -> StoreSize:
    """Measure a store or subset. Shards that several subsets point to are counted in each, by its rows.

    Args:
        manifest: content of store.json.
        file_bytes: bytes of a file by its name in the manifest; called for the small files, and for shards only where
            an early version 1 does not tell their bytes.
    """
    rows, whole = count_rows(manifest), max(1, _shard_rows(manifest))
    shards = [_shard_content(shard, manifest, file_bytes) for shard in manifest["shards"]]
    content = {name: sum(shard.get(name, 0) for shard in shards) for name in set().union(*shards)}
    if rows < whole:  # a subset: what the manifest does not tell of its rows is taken in proportion
        part = {name: round(size * rows / whole) for name, size in content.items()}
        content = {**part, **manifest.get("subset", {}).get("content", {})}
    small = ["store.json", *([manifest["subset"]["file"]] if "subset" in manifest else [])]
    told = manifest.get("codebook")
    return StoreSize(
        rows=rows,
        tokens=content.get("tokens", 0),
        labels=content.get("label", 0) + content.get("labels", 0),
        masks=content.get("mask", 0) + content.get("truth", 0),
        keys=content.get("key", 0) + content.get("window", 0),
        container=content.get("container", 0),
        codebook=told["bytes"] if told else file_bytes("codebook.safetensors"),
        tables=manifest.get("coding_tables", {"bytes": 0})["bytes"],
        manifest=sum(file_bytes(name) for name in small),
    )


def _shard_rows(manifest: dict[str, Any]) -> int:
    return sum(shard["rows"] for shard in manifest["shards"])


def _shard_content(shard: dict[str, Any], manifest: dict[str, Any], file_bytes: Callable[[str], int]) -> dict[str, int]:
    """Bytes of a shard by column, and `container`; of a shard of version 1, keys and container together."""
    size = shard["bytes"] if "bytes" in shard else file_bytes(shard["file"])
    content = shard.get("content")
    if content is not None:
        return {**content, "container": size - sum(content.values())}
    height, width = manifest["grid"]
    tokens, label = shard["rows"] * packed_bytes(height * width, manifest["codebook_size"]), 4 * shard["rows"]
    return {"tokens": tokens, "label": label, "key": size - tokens - label}
