"""The token store: a folder of Arrow files, here or behind a URL, that anyone can open.

    store.json            tokenizer, K, bits, grid, preprocessing, class names, shards with rows and checksums
    codebook.safetensors  embedding of each code, (k, c) float32; of lookup-free ones, how many bits they have
    coding.safetensors    of a coded store only: the tables that its rows are coded by
    shard-00000.arrow     Arrow IPC, uncompressed, one record batch: tokens (fixed-size binary), label, key, targets
    rows.npy              of a subset only: which rows of the shards belong to it, (n,) int64, rising

A local store is memory-mapped; of a remote one, whole shards are fetched into a bounded cache when they are needed.
The format, byte by byte: docs/store-format.md.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from seitpp.runtime.errors import UserError
from seitpp.tokens.codec import pack, packed_bytes, unpack
from seitpp.tokens.coding.coder import RowCoder
from seitpp.tokens.files import LocalFiles, StoreFiles
from seitpp.tokens.format.codebook_tensor import codebook_of
from seitpp.tokens.format.layout import RANS, row_bytes_of
from seitpp.tokens.format.manifest import TABLES_FILE, check_owners, write_manifest
from seitpp.tokens.format.row_numbers import read_row_numbers
from seitpp.tokens.format.shard import Shard, sha256_of, write_shard
from seitpp.tokens.format.size import StoreSize, store_size
from seitpp.tokens.format.targets import Targets
from seitpp.tokens.format.verify import (
    decode_rows,
    verify_codebook,
    verify_labels,
    verify_once,
    verify_shard,
    verify_tables,
    verify_windows,
)
from seitpp.tokens.one_dimensional import Geometry
from seitpp.tokens.to_device import moved

if TYPE_CHECKING:
    from seitpp.tokens.remote import CacheConfig

__all__ = ["TokenStore", "open_store", "sha256_of", "write_manifest", "write_shard"]


def open_store(spec: str | Path, cache: "CacheConfig | None" = None, *, verify_shards: bool = True) -> "TokenStore":
    """Open a token store.

    Args:
        spec: a folder, or a URL that fsspec knows (s3://…, gs://…, https://…).
        cache: a seitpp.tokens.remote.CacheConfig for URLs; None: its defaults.
        verify_shards: as for TokenStore.
    Returns: TokenStore.
    """
    if "://" not in str(spec):
        return TokenStore(spec, verify_shards=verify_shards)
    from seitpp.tokens.remote import CacheConfig, RemoteFiles

    return TokenStore(spec, RemoteFiles(spec, cache or CacheConfig()), verify_shards=verify_shards)


class TokenStore:
    """A store opened for reading; rows stay where they are until they are asked for.

    Args:
        folder: the store's folder or URL.
        files: how its files are reached (LocalFiles or RemoteFiles); None: the folder is local.
        verify_shards: check a shard's checksum and ids when it is first read, once a process; false: only its layout
            and labels, which no reading does without.

    Attributes:
        manifest: content of store.json.
        codebook_size: K.
        grid: (h, w) tokens.
        classes: class names; a label is an index into them, -1 where unknown.
        columns: of its shards: tokens, label, key, and further ones where rows are annotated so.
        row_bytes: bytes of a packed row, whether rows are stored so or coded.
        chosen: of a subset, which rows of its shards are its own, (rows,) int64, rising; else None.
        shard_offsets: first row of each shard and, last, the number of rows, (shards + 1,) int64.
    Raises: UserError if it is no store, or a shard is missing or cut off.
    """

    def __init__(self, folder: str | Path, files: StoreFiles | None = None, *, verify_shards: bool = True) -> None:
        self.verify_shards = verify_shards
        self.files: StoreFiles = LocalFiles(folder) if files is None else files
        self.folder = self.files.folder
        self.manifest = self.files.manifest()
        self.codebook_size = self.manifest["codebook_size"]
        self.grid = tuple(self.manifest["grid"])
        self.classes: list[str] = self.manifest["classes"]
        self.columns = tuple(self.manifest["columns"])
        self.row_bytes = packed_bytes(self.grid[0] * self.grid[1], self.codebook_size)
        if "subset" in self.manifest:
            check_owners(self.manifest, self.files.manifest, self.folder)
        self.files.check(self.manifest["shards"])
        self._stored_bytes = row_bytes_of(self.manifest)
        self._shards: dict[int, Shard] = {}
        self._starts = np.cumsum([0, *(shard["rows"] for shard in self.manifest["shards"])])
        self._labels: np.ndarray | None = None
        self.chosen: np.ndarray | None = None
        self.shard_offsets = self._starts
        if "subset" in self.manifest:
            self.chosen = self._read_subset(self.manifest["subset"])
            self.shard_offsets = np.searchsorted(self.chosen, self._starts)

    def __len__(self) -> int:
        return int(self.shard_offsets[-1])

    @property
    def tokenizer(self) -> dict[str, str]:
        """{"name", "fingerprint"} of the tokenizer that made the ids, and its "geometry" where that is none."""
        return self.manifest["tokenizer"]

    @property
    def geometry(self) -> Geometry:
        """Whether the places of tokens are places in the image: "grid" or "none"."""
        return self.manifest["tokenizer"].get("geometry", "grid")

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what a training reads from the store: the tokenizer, the shards' contents, a subset's rows."""
        subset = self.manifest.get("subset", {})
        shards = [shard["sha256"] for shard in self.manifest["shards"]]
        rows = [subset.get("sha256"), subset.get("label_of")]
        content = [self.tokenizer["fingerprint"], self.manifest["grid"], self.classes, shards, rows]
        if self.manifest["coding"] == RANS:
            content.append(self.manifest["coding_tables"]["sha256"])
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @property
    def lookup(self) -> str:
        """How the nearest code of an embedding is meant: "cosine", "euclidean" or "signs"."""
        return self.manifest["lookup"]

    @cached_property
    def codebook(self) -> torch.Tensor:
        """Embeddings of the codes, (k, c) float32, read once: the same tensor for all, so write into a copy."""
        with torch.inference_mode(False):  # a tensor that is kept must serve every mode
            return codebook_of(self._read_codebook())

    @cached_property
    def coding_tables(self) -> bytes | None:
        """Content of coding.safetensors; None where rows are packed."""
        if self.manifest["coding"] != RANS:
            return None
        try:
            return self.files.read(TABLES_FILE)
        except FileNotFoundError as error:
            raise UserError(f"{self.folder}/{TABLES_FILE} is missing: run the command that made the store") from error

    @cached_property
    def coder(self) -> RowCoder | None:
        """What decodes the rows of a coded store; None where they are packed."""
        if self.coding_tables is None:
            return None
        return RowCoder(verify_tables(f"{self.folder}/{TABLES_FILE}", self.coding_tables, self.manifest))

    @cached_property
    def size(self) -> StoreSize:
        """Rows and bytes, by what they are of; of a subset, of its own rows."""
        return store_size(self.manifest, lambda name: len(self.files.read(name)))

    @property
    def labels(self) -> np.ndarray:
        """Label of every row, (rows,) int32, in memory (4 bytes a row) once asked for."""
        if self._labels is None:
            columns = [self._shard(number).labels for number in range(len(self.manifest["shards"]))]
            labels = np.concatenate(columns) if columns else np.zeros(0, np.int32)
            self._labels = self._own(labels if self.chosen is None else labels[self.chosen])
        return self._labels

    def labels_at(self, indices: Iterable[int] | np.ndarray) -> np.ndarray:
        """Labels of some rows, (b,) int32, read from their shards alone."""
        indices = self._checked(indices)
        if self._labels is not None:
            return self._labels[indices]
        labels = np.empty(len(indices), np.int32)
        for number, places, rows in self._by_shard(indices):
            labels[places] = self._shard(number).labels[rows]
        return self._own(labels)

    def targets_at(self, indices: Iterable[int] | np.ndarray) -> Targets:
        """Several labels a row and masks of some rows, as they are stored, in the order asked for."""
        indices = self._checked(indices)
        parts, places = [self._no_targets], [np.zeros(0, np.int64)]
        for number, where, rows in self._by_shard(indices):
            parts.append(self._shard(number).targets[rows])
            places.append(where)
        found = Targets.joined(parts)[np.argsort(np.concatenate(places))]
        return found if self._numbers is None else found.renumbered(self._numbers)

    def label_lists_at(self, indices: Iterable[int] | np.ndarray) -> list[np.ndarray | None]:
        """All labels of some rows: a list of (labels,) int32, None where nobody annotated the row.

        Raises: UserError if the store has at most one label a row.
        """
        self._require("labels", "several labels a row (column labels)")
        return self.targets_at(indices).label_lists()

    def masks_at(self, indices: Iterable[int] | np.ndarray) -> list[np.ndarray | None]:
        """Label maps of some rows: a list of (H, W) uint8 or uint16, None where nobody annotated the row.

        Raises: UserError if the store has none, or one is broken.
        """
        self._require("mask", "masks (column mask)")
        try:
            return self.targets_at(indices).maps()
        except ValueError as error:
            raise UserError(f"{self.folder}: {error}; seitpp store verify names the shard") from error

    def truths_at(self, indices: Iterable[int] | np.ndarray) -> list[np.ndarray | None]:
        """Label maps of whole images at the size that they came in, at each image's first row; None at the others.

        Returns: a list of (height, width) uint8 or uint16, or None; None everywhere in a store that keeps none.
        Raises: UserError if one is broken.
        """
        indices = self._checked(indices)
        if "truth" not in self.columns:
            return [None] * len(indices)
        try:
            return self.targets_at(indices).whole_maps()
        except ValueError as error:
            raise UserError(f"{self.folder}: {error}; seitpp store verify names the shard") from error

    def windows_at(self, indices: Iterable[int] | np.ndarray) -> np.ndarray:
        """Where some rows lie in their images, (b, 7) int32; `format.windows.Windows` names the numbers.

        Raises: UserError if the store is no segmentation store.
        """
        self._require("window", "windows (column window): make a segmentation store, seitpp tokenize --targets masks")
        return self.targets_at(indices).places()

    def keys(self, rows: range | None = None) -> list[str]:
        """Where images came from, a list of strings.

        Args:
            rows: a range of rows with step 1; None: all.
        """
        rows = range(len(self)) if rows is None else rows
        keys = []
        for number, places, chosen in self._by_shard(self._checked(rows)):
            first, last = int(chosen[0]), int(chosen[-1])
            between = self._shard(number).keys(first, last + 1)
            keys += between if len(between) == len(places) else [between[row - first] for row in chosen.tolist()]
        return keys

    def packed(self, indices: Iterable[int] | np.ndarray) -> np.ndarray:
        """Rows packed, as they are stored or from the ids of coded ones.

        Args:
            indices: (b,) integers in [0, len(self)), any order, repeats allowed.
        Returns: (b, bytes) uint8 array, a copy.
        Raises: IndexError if an index is outside.
        """
        indices = self._checked(indices)
        if self.coder is not None:
            return pack(self._decoded(indices, self.coder).to(torch.int32), self.codebook_size).numpy()
        packed = np.empty(len(indices), f"V{self.row_bytes}")
        for number, places, rows in self._by_shard(indices):
            packed[places] = self._shard(number).tokens[rows]
        return packed.view(np.uint8).reshape(len(indices), self.row_bytes)

    def ids(self, indices: Iterable[int] | np.ndarray, device: str | torch.device = "cpu") -> torch.Tensor:
        """Token ids of rows, (b, h, w) int64 on a device.

        Packed rows are unpacked there; coded ones are decoded here, and two bytes a token are copied.
        """
        if self.coder is not None:
            return moved(self._decoded(self._checked(indices), self.coder), device).to(torch.int64)
        return unpack(moved(torch.from_numpy(self.packed(indices)), device), self.codebook_size, self.grid)

    def _decoded(self, indices: np.ndarray, coder: RowCoder) -> torch.Tensor:
        """Ids of coded rows, (b, h, w) uint16."""
        ids = np.empty((len(indices), self.grid[0] * self.grid[1]), np.uint16)
        for number, places, rows in self._by_shard(indices):
            shard = self._shard(number)
            ids[places] = decode_rows(f"{self.folder}/{shard.entry['file']}", shard, rows, coder)
        return torch.from_numpy(ids.reshape(len(indices), *self.grid))

    def content(self, indices: Iterable[int] | np.ndarray) -> dict[str, np.ndarray]:
        """Bytes of some rows by column, {name: (b,) int64}, as `content_bytes` counts them."""
        indices = self._checked(indices)
        content = {name: np.zeros(len(indices), np.int64) for name in self.columns}
        for number, places, rows in self._by_shard(indices):
            for name, size in self._shard(number).content().items():
                content[name][places] = size[rows]
        return content

    def close_shards(self) -> None:
        """Close the shards that were read; they are opened again when they are needed. For passes over large stores."""
        self._shards.clear()

    def prefetch(self, shards: Iterable[int]) -> None:
        """Begin to fetch shards, by their numbers, where they are not here yet."""
        self.files.prefetch([self.manifest["shards"][number] for number in shards])

    def check_tokenizer(self, fingerprint: str, what: str, codebook_size: int | None = None) -> None:
        """Refuse a model or store of another tokenizer.

        Args:
            fingerprint: of the other's tokenizer.
            what: what the other is, for the message.
            codebook_size: the other's K; None: it has none.
        """
        if fingerprint != self.tokenizer["fingerprint"]:
            raise UserError(
                f"{self.folder} was made by tokenizer {self.tokenizer['fingerprint'][:12]}, but {what} belongs to "
                f"tokenizer {fingerprint[:12]}: their ids mean different things. Tokenise again with the right one"
            )
        if codebook_size not in (None, self.codebook_size):
            raise UserError(
                f"{self.folder} has {self.codebook_size} codes, but {what} knows {codebook_size}, though both name the "
                f"same tokenizer: one of them was changed. Tokenise again"
            )

    def check_alike(self, other: "TokenStore") -> None:
        """Refuse another store that is not of the same tokenizer, codes and grid as this one."""
        other.check_tokenizer(self.tokenizer["fingerprint"], f"the store {self.folder}", self.codebook_size)
        if other.grid != self.grid:
            raise UserError(
                f"{other.folder} has grids of {other.grid} tokens, {self.folder} of {self.grid}: tokenise both alike"
            )

    def verify(self, progress: Callable[[int], object] | None = None) -> None:
        """Read everything: the codebook, coding tables, checksums, row counts, ranges of ids and labels, masks.

        Args:
            progress: called with the number of shards that are found good, after each.
        Raises: UserError naming the first bad file.
        """
        self._read_codebook()
        for number, entry in enumerate(self.manifest["shards"]):
            path = self.files.path(entry)
            verify_shard(path, Shard(path, entry, self._stored_bytes, self.columns), self.manifest, self.coder)
            if progress is not None:
                progress(number + 1)

    def _read_codebook(self) -> dict[str, torch.Tensor]:
        name = f"{self.folder}/codebook.safetensors"
        try:
            return verify_codebook(name, self.files.read("codebook.safetensors"), self.manifest)
        except FileNotFoundError as error:
            raise UserError(f"{name} is missing: run the command that made the store again") from error

    def _read_subset(self, subset: dict[str, Any]) -> np.ndarray:
        """The rows of a subset, checked: rising, inside the shards."""
        name = f"{self.folder}/{subset['file']}"
        try:
            content = self.files.read(subset["file"])
        except FileNotFoundError as error:
            raise UserError(f"{name} is missing: make the subset again (seitpp store subset)") from error
        return read_row_numbers(content, subset, int(self._starts[-1]), name)

    @cached_property
    def _numbers(self) -> np.ndarray | None:
        """New number of each class of the shards, and -1 of -1 (the last): a subset of classes numbers them anew."""
        numbers = self.manifest.get("subset", {}).get("label_of")
        return None if numbers is None else np.append(np.asarray(numbers, np.int32), np.int32(-1))

    def _own(self, labels: np.ndarray) -> np.ndarray:
        """Labels of the shards in the numbering of this store."""
        return labels if self._numbers is None else self._numbers[labels]

    @cached_property
    def _no_targets(self) -> Targets:
        """Targets of no row, with this store's columns."""
        return Targets.none_of(self.columns)

    def _require(self, column: str, what: str) -> None:
        if column not in self.columns:
            raise UserError(f"{self.folder} has no {what}; it has {', '.join(self.columns)}")

    def _checked(self, indices: Any) -> np.ndarray:
        indices = np.asarray(indices, dtype=np.int64)
        if indices.size and not (indices.min() >= 0 and indices.max() < len(self)):
            raise IndexError(f"rows must lie in [0, {len(self)}), got {indices.min()} to {indices.max()}")
        return indices

    def _by_shard(self, indices: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield (shard number, places in `indices`, rows in that shard) for each shard that is needed."""
        if not indices.size:
            return
        rows = indices if self.chosen is None else self.chosen[indices]
        shards = np.searchsorted(self._starts, rows, side="right") - 1
        places = np.argsort(shards, kind="stable")
        shards = shards[places]
        rows = rows[places] - self._starts[shards]
        bounds = [0, *(np.flatnonzero(shards[1:] != shards[:-1]) + 1).tolist(), len(shards)]
        for start, stop in pairwise(bounds):
            yield int(shards[start]), places[start:stop], rows[start:stop]

    def _shard(self, number: int) -> Shard:
        """An opened shard. Of a remote store those that left the cache are closed, so that their space is free."""
        if number not in self._shards:
            entry = self.manifest["shards"][number]
            path = self.files.path(entry)
            self._shards = {known: shard for known, shard in self._shards.items() if self.files.keeps(shard.entry)}
            shard = Shard(path, entry, self._stored_bytes, self.columns)
            if self.verify_shards:
                verify_once(path, shard, self.manifest)
            verify_labels(path, shard, self.manifest)
            verify_windows(path, shard, self.manifest)
            self._shards[number] = shard
        return self._shards[number]
