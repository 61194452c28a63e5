"""What each way of getting a store below so many bytes costs: fewer rows, coded rows, fewer codes, another tokenizer.

    seitpp store budget stores/train --bytes 0.3GB
    seitpp store budget stores/train --bytes 0.3GB --tokenizer runs/tokenizer --images photos/train
    seitpp store budget stores/train --bytes 40% --tokenizer runs/tokenizer --images photos --others '{small: runs/4x4}'

Nothing is written. Bytes are counted whole: tokens, labels, masks, keys, codebook, tables, manifest. What coded rows
take is measured on rows evenly spaced, of which one half fits the tables. PSNR needs --tokenizer: it is against the
images where --images names them, else against what the store's own tokens decode to. The last column says what
each way leaves of the rows; a subset (seitpp store subset) takes so many.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace

import pandas as pd
import torch
from einops import rearrange
from torch import Tensor

from seitpp.runtime.config import require
from seitpp.runtime.errors import UserError
from seitpp.runtime.locations import Location
from seitpp.tokenizers.decoded_quality import DecodedQuality
from seitpp.tokenizers.reduce_codebook import map_to_kept, most_used
from seitpp.tokenizers.sources.source import open_source
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.coding.coder import RowCoder
from seitpp.tokens.coding.fit import choose_tables, spread_rows
from seitpp.tokens.format.codebook_tensor import tensors_of
from seitpp.tokens.format.layout import MOST_IN_ONE_TABLE, packed_bytes
from seitpp.tokens.reading import ReadsStores
from seitpp.tokens.store import TokenStore, open_store
from seitpp.tokens.subset import parse_bytes
from seitpp.tokens.usage import count_codes

_FEWEST_CODES = 16
"""Below so many codes nothing is left to see."""
_OFFSET_BYTES = 4
"""Of a coded row, beside its bytes: where it begins."""


@dataclass(frozen=True, kw_only=True)
class BudgetConfig(ReadsStores):
    """Say what each way of getting a store below so many bytes costs: seitpp store budget STORE --bytes 0.3GB."""

    store: Location
    """the store's folder or URL"""
    bytes: str
    """what all of it may take, such as 0.3GB or 500MB (10^9 and 10^6 bytes), or a percentage of what it takes now"""
    tokenizer: Location | None = None
    """run or weights of the store's tokenizer, for PSNR; None: PSNR is not measured"""
    images: Location | None = None
    """images as for seitpp tokenize, to measure PSNR against; None: against what the store's own tokens decode to"""
    others: dict[str, Location] = field(default_factory=dict)
    """other tokenizers, such as of a smaller grid: name to run or weights"""
    rows: int = 4096
    """rows that coding is measured on, evenly spaced"""
    pictures: int = 128
    """images that PSNR is measured on, evenly spaced"""
    json: bool = False
    """print JSON instead of a table"""

    def __post_init__(self) -> None:
        _allowed(self.bytes, 1)
        require(self, "rows", self.rows >= 2, "must be at least 2")
        require(self, "pictures", self.pictures >= 1, "must be at least 1")
        require(self, "images", self.images is None or self.tokenizer, "needs --tokenizer")


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way of storing all rows.

    Attributes:
        name: what is done.
        codes: K.
        grid: (h, w) tokens.
        row_bytes: bytes of a row, on average: tokens, labels, mask, key and its part of the container.
        fixed_bytes: bytes whatever the number of rows: codebook, tables, manifest.
        psnr: of decoded images, dB; None: not measured, or infinite, as nothing changes.
    """

    name: str
    codes: int
    grid: tuple[int, int]
    row_bytes: float
    fixed_bytes: int
    psnr: float | None = None

    def total(self, rows: int) -> int:
        """Bytes of so many rows."""
        return math.ceil(rows * self.row_bytes) + self.fixed_bytes

    def within(self, allowed: int, rows: int) -> int:
        """How many of the rows fit in so many bytes."""
        return max(0, min(rows, int((allowed - self.fixed_bytes) / self.row_bytes)))


def main(config: BudgetConfig) -> None:
    """Measure every way and print the table."""
    store = open_store(config.store, verify_shards=config.verify_shards)
    if not len(store):
        raise UserError(f"{config.store} has no rows: there is nothing to save")
    allowed = _allowed(config.bytes, store.size.total)
    quality = _quality(config, store)
    with torch.no_grad():
        ways = list(_ways(store, allowed, config, quality))
    table = budget_table(ways, allowed, len(store))
    if config.json:
        about = {"rows": len(store), "bytes": store.size.total, "allowed": allowed}
        print(json.dumps({**about, "ways": [{**asdict(way), "total": way.total(len(store)),
              "rows_within": way.within(allowed, len(store))} for way in ways]}, indent=2))  # fmt: skip
        return
    print(f"{config.store}: {len(store):,} rows, {store.size.total:,} bytes; allowed: {allowed:,}\n")
    print(table.to_string(index=False))
    if quality is not None:
        against = "what the store's own tokens decode to" if quality.images is None else "the images"
        print(f"\nPSNR is against {against}, mean of {len(quality.rows)}")


def _quality(config: BudgetConfig, store: TokenStore) -> DecodedQuality | None:
    if config.tokenizer is None:
        return None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = load_tokenizer(config.tokenizer, device, fingerprint=store.tokenizer["fingerprint"])
    store.check_tokenizer(tokenizer.fingerprint, f"the one in {config.tokenizer}", tokenizer.codebook_size)
    images = None if config.images is None else open_source(config.images)
    return DecodedQuality(tokenizer=tokenizer, store=store, images=images, most=config.pictures)


def budget_table(ways: list[Way], allowed: int, rows: int) -> pd.DataFrame:
    """The table that is printed, a way a row, all cells texts."""
    lines = [
        {
            "way": way.name,
            "codes": f"{way.codes:,}",
            "grid": f"{way.grid[0]} x {way.grid[1]}",
            "bytes a row": f"{way.row_bytes:,.1f}",
            "bytes of all": f"{way.total(rows):,}",
            "fits": "yes" if way.total(rows) <= allowed else "no",
            "rows that fit": f"{way.within(allowed, rows):,}",
            "PSNR, dB": "\u2013" if way.psnr is None else f"{way.psnr:.2f}",
        }
        for way in ways
    ]
    table = pd.DataFrame(lines)
    measured = any(way.psnr is not None for way in ways)
    return table if measured else table.drop(columns="PSNR, dB")


def _allowed(text: str, total: int) -> int:
    """Bytes of a budget, which may be a percentage of `total`."""
    if not text.strip().endswith("%"):
        return parse_bytes(text)
    try:
        share = float(text.strip()[:-1]) / 100
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise UserError(f"{text!r} is no percentage above 0 and up to 100, and no size such as 0.3GB")
    return math.ceil(share * total)


def _ways(store: TokenStore, allowed: int, config: BudgetConfig, quality: DecodedQuality | None) -> Iterator[Way]:
    """As it is, coded, then half the codes, and half of those, until all rows fit; then other tokenizers."""
    size, rows = store.size, len(store)
    beside = (size.labels + size.masks + size.keys + size.container) / rows
    now = Way(
        name="as it is", codes=store.codebook_size, grid=tuple(store.grid), row_bytes=size.tokens / rows + beside,
        fixed_bytes=size.codebook + size.tables + size.manifest,
        psnr=None if quality is None else quality.of_codes(torch.arange(store.codebook_size)),
    )  # fmt: skip
    yield now
    header = max(0, size.codebook - store.codebook.numel() * 4)
    ids = store.ids(spread_rows(rows, config.rows))
    counts = count_codes(store)

    def coded(ids: Tensor, codes: int, name: str, measured: float | None) -> Way:
        tokens, tables = _coded_bytes(ids, codes, rows)
        whole = codes == store.codebook_size  # one of signs is not written out
        codebook = size.codebook if whole else header + codes * store.codebook.shape[1] * 4
        return replace(
            now, name=name, codes=codes, row_bytes=tokens + beside, psnr=measured,
            fixed_bytes=codebook + tables + size.manifest,
        )  # fmt: skip

    way = now
    if store.coding_tables is None and store.codebook_size <= MOST_IN_ONE_TABLE:
        way = coded(ids, store.codebook_size, "coded", now.psnr)
        yield way
    codes = store.codebook_size
    while way.total(rows) > allowed and codes // 2 >= _FEWEST_CODES:
        codes = 1 << (codes - 1).bit_length() - 1  # the next power of two below
        codes = min(codes, MOST_IN_ONE_TABLE)  # of more, coding saves nothing
        kept = most_used(counts, codes)
        new = map_to_kept(store.codebook, kept, store.lookup)
        measured = None if quality is None else quality.of_codes(torch.tensor(kept)[new])
        way = coded(new[ids], codes, "fewer codes, coded", measured)
        yield way
    for name, folder in config.others.items():
        yield _of_another(name, folder, now, beside, quality)


def _coded_bytes(ids: Tensor, codes: int, rows: int) -> tuple[float, int]:
    """(bytes of a row's tokens on average, bytes of the tables): packed where that is smaller.

    The tables are fitted to every other row, the cost is that of the rows between.
    """
    fitted = rearrange(ids[::2], "b h w -> b (h w)").numpy()
    tables = choose_tables(fitted, codes, ids.shape[2], rows=rows)
    packed = packed_bytes(fitted.shape[1], codes)
    if tables is None or len(ids) < 2:
        return packed, 0
    content = RowCoder(tables, compiled=False).encode(ids[1::2])
    coded, size = len(content.content) / len(content) + _OFFSET_BYTES, len(tables.to_bytes())
    return (coded, size) if coded * rows + size < packed * rows else (packed, 0)


def _of_another(name: str, folder: str, now: Way, beside: float, quality: DecodedQuality | None) -> Way:
    tokenizer = load_tokenizer(folder, "cpu" if quality is None else quality.tokenizer.codebook.device)
    height, width = tokenizer.grid
    kept = tensors_of(tokenizer.codebook.detach().cpu(), tokenizer.lookup).values()
    codebook = sum(tensor.numel() * tensor.element_size() for tensor in kept)
    return replace(
        now, name=f"tokenizer {name}, packed", codes=tokenizer.codebook_size, grid=(height, width),
        row_bytes=packed_bytes(height * width, tokenizer.codebook_size) + beside, fixed_bytes=codebook,
        psnr=None if quality is None else quality.of_tokenizer(tokenizer),
    )  # fmt: skip
