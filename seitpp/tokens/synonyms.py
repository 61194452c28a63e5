"""Synonyms: the nearest codes of each code, and the published file that holds them.

The published JSON is {"code": [codes, nearest first]}. Its reader (EDA) replaces an id by one of the first few of its
list, 5 by default, and looks up every code that occurs. A code is no synonym of its own here; a dictionary whose lists
hold the code itself, or more codes than 5, is read as it is.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from seitpp.runtime.config import require
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import read_json, write_text
from seitpp.runtime.locations import Location
from seitpp.runtime.ownership import begins_with, refuse_foreign_file
from seitpp.runtime.rights import check_readable
from seitpp.tokens.format.layout import MOST_IN_ONE_TABLE

if TYPE_CHECKING:
    from seitpp.tokens.store import TokenStore

PUBLISHED_COUNT = 5


@dataclass(frozen=True, kw_only=True)
class SynonymsConfig:
    """Write the nearest codes of each code of a store: seitpp store synonyms STORE."""

    store: Location
    """the store's folder"""
    count: int = PUBLISHED_COUNT
    """synonyms of each code"""
    out: Location | None = None
    """file to write; None: synonyms.json in the store's folder"""

    def __post_init__(self) -> None:
        require(self, "count", self.count >= 1, "must be at least 1")


def main(config: SynonymsConfig) -> None:
    """Find and write the synonyms of a store's codes."""
    from seitpp.tokens.store import open_store

    store = open_store(config.store)
    if config.out is None and not is_local(store):
        raise UserError(f"{config.store} can't be written to: name a file here by --out synonyms.json")
    path = Path(config.out) if config.out else Path(store.folder) / "synonyms.json"
    refuse_foreign_file(path, is_synonyms, "a synonym dictionary", "choose another --out, or move it elsewhere")
    synonyms = nearest_codes(store.codebook, store.lookup, config.count)
    write_synonyms(path, synonyms)
    print(f"{path}: {synonyms.shape[1]} synonyms of each of {len(synonyms)} codes")


def is_local(store: "TokenStore") -> bool:
    """Whether a store's folder is on this machine, so that a file can lie in it."""
    return "://" not in str(store.folder)


def nearest_codes(codebook: torch.Tensor, lookup: str, count: int, *, block: int = 1 << 24) -> torch.Tensor:
    """The codes nearest to each code, itself left out.

    Args:
        codebook: (k, c).
        lookup: "cosine", "euclidean" or "signs", as the tokenizer means it; of signs, codes of one other bit are the
            nearest, of the lowest bit first.
        count: how many; fewer where there are no more.
        block: at most this many similarities are held at a time, so memory is bounded.
    Returns: (k, min(count, k - 1)) int64, nearest first.
    Raises: UserError if there are too many codes to compare each with all, which signs need not.
    """
    if lookup == "signs":
        return _of_other_bits(len(codebook), min(count, len(codebook) - 1))
    if len(codebook) > MOST_IN_ONE_TABLE:
        raise UserError(
            f"{len(codebook):,} codes have too many pairs to find synonyms among: at most {MOST_IN_ONE_TABLE:,} codes"
        )
    codes = codebook.double()  # in single precision, codes that lie close together would change places by rounding
    if lookup == "cosine":
        codes, offset = F.normalize(codes, dim=1), 0.0
    else:  # |a - b|^2 is least where a.b - |b|^2 / 2 is largest
        offset = -0.5 * codes.square().sum(dim=1)
    count = min(count, len(codes) - 1)
    nearest, first = [], 0
    for part in codes.split(max(1, block // len(codes))):
        similarity = part @ codes.T + offset
        own = torch.arange(len(part))
        similarity[own, first + own] = -torch.inf
        nearest.append(similarity.topk(count, dim=1).indices)
        first += len(part)
    return torch.cat(nearest)


def _of_other_bits(codebook_size: int, count: int) -> torch.Tensor:
    """The codes that differ in the fewest bits, (k, count) int64: all have the same patterns of bits to change."""
    patterns = sorted(range(1, min(codebook_size, 1 << 16)), key=lambda bits: (bits.bit_count(), bits))
    single = [1 << bit for bit in range((codebook_size - 1).bit_length())]
    patterns = [*single, *(bits for bits in patterns if bits.bit_count() > 1)][:count]
    return torch.arange(codebook_size)[:, None] ^ torch.tensor(patterns, dtype=torch.int64)


def write_synonyms(path: str | Path, synonyms: torch.Tensor | Sequence[Sequence[int]]) -> None:
    """Write the published JSON.

    Args:
        path: the file.
        synonyms: for each code its synonyms, nearest first: (k, n) tensor or a list of lists.
    """
    rows = synonyms.tolist() if isinstance(synonyms, torch.Tensor) else synonyms
    lines = [f'"{code}": {json.dumps(row)}' for code, row in enumerate(rows)]
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def is_synonyms(path: Path) -> bool:
    """Whether a file is one that `write_synonyms` wrote: a code a line."""
    return begins_with(path, b'{\n"0": [', within=8)


def read_synonyms(path: str | Path, codebook_size: int) -> list[list[int]]:
    """Read the published JSON.

    Args:
        path: the file.
        codebook_size: K; the file must have a list for every code below it.
    Returns: list of K lists of codes, nearest first; they may differ in length.
    Raises: UserError naming the file and the code that is wrong.
    """
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        check_readable(path)
        raise UserError(f'{path} is not a synonym dictionary, JSON of {{"code": [codes, nearest first]}}') from error
    if not isinstance(content, dict):
        raise UserError(f'{path} is not a synonym dictionary: expected {{"code": [codes, nearest first]}}')
    known = {str(code) for code in range(codebook_size)}
    if foreign := sorted(content.keys() - known):
        raise UserError(f"{path}: {foreign[0]!r} is no code below {codebook_size}: another codebook's synonyms?")
    for code in range(codebook_size):
        synonyms = content.get(str(code))
        if not isinstance(synonyms, list) or not synonyms:
            raise UserError(f"{path}: code {code} has no list of synonyms: another codebook's?")
        wrong = [other for other in synonyms if type(other) is not int or not 0 <= other < codebook_size]
        if wrong:
            raise UserError(f"{path}: code {code} has the synonym {wrong[0]!r}, expected a code below {codebook_size}")
    return [content[str(code)] for code in range(codebook_size)]
