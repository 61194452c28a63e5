"""How a store uses its codebook: counts, entropy, perplexity, and how few codes cover how much."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from seitpp.runtime.errors import UserError
from seitpp.runtime.locations import Location
from seitpp.runtime.progress import Progress
from seitpp.tokens.reading import ReadsStores
from seitpp.tokens.row_blocks import MANY_ROWS, pass_through

if TYPE_CHECKING:
    from seitpp.tokens.store import TokenStore

COVERAGES = (0.5, 0.9, 0.99, 0.999, 1.0)


@dataclass(frozen=True, kw_only=True)
class UsageConfig(ReadsStores):
    """Say how a store uses its codebook: seitpp store usage STORE."""

    store: Location
    """the store's folder or URL"""
    json: bool = False
    """print JSON, with the count of every code, instead of a table"""


def main(config: UsageConfig) -> None:
    """Count the codes of a store and print what they say."""
    from seitpp.tokens.store import open_store

    store = open_store(config.store, verify_shards=config.verify_shards)
    with Progress(len(store), "count", enabled=len(store) > MANY_ROWS and not config.json) as progress:
        counts = count_codes(store, progress.update)
    numbers = usage(counts)
    if config.json:
        print(json.dumps({**numbers, "counts": counts.tolist()}, indent=2))
    else:
        print(readable(numbers, usage_table(counts)))


def count_codes(store: "TokenStore", progress: Callable[[int], object] | None = None) -> np.ndarray:
    """How often each code occurs in a store.

    Args:
        store: a TokenStore, read in blocks from front to back.
        progress: called with the number of rows that are counted, after each block.
    Returns: (k,) int64.
    """
    counts = np.zeros(store.codebook_size, np.int64)
    for rows in pass_through(store):
        found = np.bincount(store.ids(rows).numpy().reshape(-1), minlength=store.codebook_size)
        if len(found) > store.codebook_size:
            raise UserError(f"{store.folder} has ids beyond its codes: seitpp store verify names the shard")
        counts += found
        if progress is not None:
            progress(rows.stop)
    return counts


def usage_table(counts: Sequence[int] | np.ndarray) -> pd.DataFrame:
    """The codes from the most to the least used, ties by the lower id.

    Args:
        counts: (k,) integers.
    Returns: DataFrame with the columns code, count, share and coverage, the fraction of this code and all above it.
    """
    counts = np.asarray(counts)
    order = np.argsort(-counts, kind="stable")
    table = pd.DataFrame({"code": order, "count": counts[order]})
    total = max(1, int(counts.sum()))
    table["share"] = table["count"] / total
    table["coverage"] = table["count"].cumsum() / total
    return table


def codes_covering(counts: Sequence[int] | np.ndarray, coverage: float) -> int:
    """The least number of codes, most used first, that make up `coverage` of all tokens.

    Args:
        counts: (k,) integers.
        coverage: in (0, 1], taken as the decimal number that it is written as, so that a bound is met exactly.
    Returns: number of codes.
    """
    covered = np.cumsum(-np.sort(-np.asarray(counts, np.int64)))
    if not len(covered) or covered[-1] == 0:
        return 0
    wanted = math.ceil(Fraction(str(coverage)) * int(covered[-1]))
    return int(np.searchsorted(covered, wanted)) + 1


def usage(counts: Sequence[int] | np.ndarray) -> dict[str, Any]:
    """Statistics of code counts: a dict of K, tokens, used codes, entropy in bits, perplexity, and coverage."""
    counts = np.asarray(counts, np.int64)
    total = int(counts.sum())
    shares = counts[counts > 0] / max(1, total)
    entropy = float(-(shares * np.log2(shares)).sum()) + 0.0
    return {
        "codebook_size": len(counts),
        "tokens": total,
        "used_codes": len(shares),
        "entropy_bits": entropy,
        "perplexity": 2.0**entropy,
        "commonest_code": int(counts.argmax()) if total else None,
        "commonest_share": float(shares.max(initial=0.0)),
        "codes_covering": {str(coverage): codes_covering(counts, coverage) for coverage in COVERAGES},
    }


def readable(numbers: dict[str, Any], table: pd.DataFrame) -> str:
    """`usage` and `usage_table` as a short text."""
    lines = [
        f"tokens           {numbers['tokens']:,}",
        f"codes used       {numbers['used_codes']:,} of {numbers['codebook_size']:,}",
        f"entropy          {numbers['entropy_bits']:.3f} bits (all codes alike: {math.log2(len(table)):.3f})",
        f"perplexity       {numbers['perplexity']:.1f}",
        f"commonest code   {numbers['commonest_code']} ({numbers['commonest_share']:.2%} of all tokens)",
        "",
        *(f"{codes:>9,} codes cover {float(share):.1%}" for share, codes in numbers["codes_covering"].items()),
        "",
        table.head(10).to_string(index=False, formatters={"share": "{:.2%}".format, "coverage": "{:.2%}".format}),
    ]
    return "\n".join(lines)
