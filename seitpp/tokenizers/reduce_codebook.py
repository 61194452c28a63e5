"""Keep only the codes that a store uses: the rest is replaced by the nearest that is kept.

    seitpp reduce-codebook --store stores/train --codes 391 --output_dir stores/reduced
    seitpp reduce-codebook --store stores/train --coverage 0.999 --tokenizer runs/tokenizer --output_dir new

The papers keep 391 of 8,192 codes, which saves 4 of 13 bits a token. The new store keeps rows, labels and keys.
`reduced.json` in it holds `codes` (old id of each new one), `map` (new id of each old one), `counts` (of the old ids)
and `fingerprint` (of the old tokenizer). With --tokenizer, `tokenizer/` in it makes the new ids from images.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange

from seitpp.runtime.command import run_command
from seitpp.runtime.config import require
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import replacing, write_json
from seitpp.runtime.locations import Location
from seitpp.runtime.places import fresh_output
from seitpp.runtime.progress import Progress
from seitpp.tokenizers.networks.reduced import ReducedTokenizer, reduced_fingerprint
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.codebook import lookup_among, nearest_code
from seitpp.tokens.codec import pack
from seitpp.tokens.reading import ReadsStores
from seitpp.tokens.row_blocks import ShardSeries, row_ranges
from seitpp.tokens.store import TokenStore, open_store, write_manifest
from seitpp.tokens.usage import codes_covering, count_codes


@dataclass(frozen=True, kw_only=True)
class ReduceCodebookConfig(ReadsStores):
    """Make a store with fewer codes. Give either coverage or codes."""

    store: Location
    """the store's folder or URL"""
    output_dir: Location
    """folder of the new store"""
    coverage: float | None = None
    """keep the fewest codes that make up this fraction of all tokens"""
    codes: int | None = None
    """keep so many codes, those used most; ties go to the lower id"""
    tokenizer: Location | None = None
    """the store's tokenizer, of which a reduced one is written to tokenizer/ in the new store"""

    def __post_init__(self):
        require(self, "codes", (self.codes is None) != (self.coverage is None), "or coverage: give one of the two")
        require(self, "codes", self.codes is None or self.codes >= 1, "must be at least 1")
        require(self, "coverage", self.coverage is None or 0 < self.coverage <= 1, "must lie in (0, 1]")


def main(config: ReduceCodebookConfig) -> None:
    """Count, choose, remap shard by shard, and write the tokenizer if it is given."""
    target = fresh_output(config, folder=True)
    store = open_store(config.store, verify_shards=config.verify_shards)
    fingerprint = store.tokenizer["fingerprint"]
    tokenizer = load_tokenizer(config.tokenizer, fingerprint=fingerprint) if config.tokenizer else None
    if tokenizer is not None:
        store.check_tokenizer(tokenizer.fingerprint, f"the one in {config.tokenizer}", tokenizer.codebook_size)
    if config.codes is not None and config.codes > store.codebook_size:
        raise UserError(f"{config.store} has {store.codebook_size} codes: --codes {config.codes} is more than that")
    with Progress(len(store), "count") as progress:
        counts = count_codes(store, progress.update)
    if not counts.any():
        raise UserError(f"{config.store} has no rows: there is nothing to count")
    wanted = config.codes if config.coverage is None else codes_covering(counts, config.coverage)
    assert wanted is not None, "a ReduceCodebookConfig has one of both"
    kept = most_used(counts, wanted)
    codebook = store.codebook
    mapping = map_to_kept(codebook, kept, store.lookup)
    with replacing(target) as folder, Progress(len(store), "remap") as progress:
        folder.mkdir()
        if tokenizer is not None:
            ReducedTokenizer(tokenizer, kept, mapping).save(folder / "tokenizer")
        shards = remap(store, mapping, len(kept), folder, progress.update)
        write_json(
            folder / "reduced.json",
            {"fingerprint": fingerprint, "codes": kept, "map": mapping.tolist(), "counts": counts.tolist()},
        )
        write_manifest(
            folder,
            tokenizer={
                **store.tokenizer, "name": ReducedTokenizer.name,
                "fingerprint": reduced_fingerprint(fingerprint, kept),
            },
            codebook=codebook[kept], lookup=lookup_among(store.lookup), grid=store.grid,
            preprocessing=store.manifest["preprocessing"], classes=store.classes, shards=shards,
            mask=store.manifest.get("mask"), windows=store.manifest.get("windows"),
        )  # fmt: skip
    share = counts[kept].sum() / counts.sum()
    print(
        f"{target}: {len(store)} images, {len(kept)} of {len(counts)} codes kept, {share:.4%} of the tokens unchanged"
    )


def most_used(counts: np.ndarray, codes: int) -> list[int]:
    """The `codes` ids of the largest counts, ties by the lower id, as a rising list."""
    return sorted(np.argsort(-np.asarray(counts), kind="stable")[:codes].tolist())


def map_to_kept(codebook: torch.Tensor, kept: list[int], lookup: str) -> torch.Tensor:
    """New id of each old one: its place among the kept, or that of the nearest kept code.

    Args:
        codebook: (K, c).
        kept: rising list of ids.
        lookup: "cosine", "euclidean" or "signs".
    Returns: (K,) int64.
    """
    all_codes = rearrange(codebook, "k c -> 1 c 1 k")
    mapping = rearrange(nearest_code(all_codes, codebook[kept], lookup_among(lookup)), "1 1 k -> k")
    mapping[kept] = torch.arange(len(kept))  # a code is itself, also where another has the same embedding
    return mapping


def remap(
    store: TokenStore, mapping: torch.Tensor, codebook_size: int, folder: Path, progress: Callable[[int], object]
) -> list[dict[str, Any]]:
    """Write a store's rows with other ids, a new shard for each old one.

    Args:
        store: a TokenStore.
        mapping: new id of each old one, (K,) int64.
        codebook_size: of the new ids.
        folder: where the shards go.
        progress: called with the number of rows done, after each block.
    Returns: what `write_shard` returned, in order.
    """
    shards = ShardSeries(folder)
    for start, stop in pairwise(store.shard_offsets.tolist()):
        for rows in row_ranges(range(start, stop)):
            packed = pack(mapping[store.ids(rows)], codebook_size).numpy()
            shards.append(packed, store.labels_at(rows), store.keys(rows), store.targets_at(rows))
            progress(rows.stop)
        shards.cut()
        store.close_shards()
    return shards.shards


def cli() -> None:
    """Run the stage from the command line."""
    run_command(main, ReduceCodebookConfig, recipes="reduce_codebook")


if __name__ == "__main__":
    cli()
