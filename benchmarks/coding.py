"""What tokens take, coded in every way that a user would try, and how fast random rows are read from each; one core.

    python -m benchmarks.coding --demo runs/demo                 real tokens: the demo's, 8 x 8 of 512 codes
    python -m benchmarks.coding --demo runs/demo --large FOLDER  and 32 x 32: stores FOLDER/train and FOLDER/test
    python -m benchmarks.coding --quick                          smooth random rows, in seconds

FOLDER is made if it is missing: the demo's images drawn at 256 pixels, tokenised by the demo's tokenizer at that size,
in minutes. What is fitted (our tables, zstd's dictionary) is fitted to training rows, and bits are of held-out ones.
General compressors get packed rows and rows of two bytes a token; the better is reported. zstd's dictionaries need the
package zstandard; without it they are left out.
"""

import argparse
import gzip
import io
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import torch

from benchmarks.measures import per_second, report
from seitpp.tokens.codec import pack, packed_bytes
from seitpp.tokens.coding.coder import RowCoder
from seitpp.tokens.coding.fit import choose_tables
from seitpp.tokens.exchange import published
from seitpp.tokens.store import open_store

BATCH, BLOCK, OFFSET = 256, 64, 4


@dataclass(frozen=True)
class Rows:
    """Ids of a set: (n, T) uint16 to fit to and of held-out rows, K, and tokens of a line."""

    train: np.ndarray
    held_out: np.ndarray
    codes: int
    width: int

    @property
    def tokens(self):
        """T."""
        return self.held_out.shape[1]


def main():
    """Print the measures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--demo", type=Path, help="folder of a demo: images, tokenizer and store")
    parser.add_argument("--large", type=Path, help="folder of stores of 32 x 32 tokens, made if it is missing")
    parser.add_argument("--quick", action="store_true", help="smooth random rows")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.demo is None:
        small, large = smooth_rows(8, 400), smooth_rows(32, 60)
    else:
        small, large = read_rows(arguments.demo / "store"), None
        if arguments.large is not None:
            if not (arguments.large / "test" / "store.json").exists():
                make_large(arguments.demo, arguments.large)
            large = read_rows(arguments.large)
    measure(small, "")
    if large is not None:
        measure(large, ", 32 x 32")


def read_rows(folder):
    """Rows of the stores `train` and `test` in a folder."""
    train, test = (open_store(folder / name) for name in ("train", "test"))
    ids = [store.ids(range(len(store))).flatten(1).numpy().astype(np.uint16) for store in (train, test)]
    return Rows(*ids, codes=train.codebook_size, width=train.grid[1])


def smooth_rows(side, rows, codes=512):
    """Rows of few codes that mostly repeat the one to the left."""
    random = np.random.default_rng(0)
    ids = (32 * random.integers(codes // 32, size=(rows, side, side))).astype(np.uint16)
    for column in range(1, side):
        ids[:, :, column] = np.where(random.random((rows, side)) < 0.8, ids[:, :, column - 1], ids[:, :, column])
    ids = ids.reshape(rows, -1)
    return Rows(ids[: rows // 2], ids[rows // 2 :], codes=codes, width=side)


def make_large(demo, folder):
    """Draw the demo's images at 256 pixels, and tokenise them by its tokenizer at that size."""
    from seitpp.demo.openmoji import prepare_openmoji
    from seitpp.tokenizers.networks.vq import VQTokenizer
    from seitpp.tokenizers.tokenize import TokenizeConfig
    from seitpp.tokenizers.tokenize import main as tokenize
    from seitpp.tokenizers.tokenizer import load_tokenizer

    small = load_tokenizer(str(demo / "tokenizer"))
    assert isinstance(small, VQTokenizer), "the demo's tokenizer is convolutional"
    large = VQTokenizer(small.model, (256, 256), space_to_depth=small.space_to_depth, lookup=small.lookup)
    large.save(folder / "tokenizer" / "weights")
    prepare_openmoji(folder / "images", size=256)
    for part in ("train", "test"):
        like = str(folder / "train") if part == "test" else None
        config = TokenizeConfig(
            images=str(folder / "images" / part), tokenizer=str(folder / "tokenizer"),
            output_dir=str(folder / part), like=like,
        )  # fmt: skip
        tokenize(config)


def measure(rows, suffix):
    """All ways to store some rows."""
    held, tokens = len(rows.held_out), rows.tokens

    def bits(name, size, **more):
        report(f"bits per token, {name}{suffix}", 8 * size / (held * tokens), "bits", **more)

    def rate(name, read):
        random = np.random.default_rng(0).integers(held, size=BATCH)
        assert np.array_equal(np.asarray(read(random)), rows.held_out[random]), f"{name} reads other ids"
        report(f"random rows read, {name}{suffix}", per_second(lambda: read(random), BATCH), "rows/s")

    bits("packed", held * packed_bytes(tokens, rows.codes))
    bits("radix", held * np.ceil(tokens * np.log2(rows.codes) / 8))
    measure_rows(rows, bits, rate)
    measure_files(rows, bits, rate)
    measure_published(rows, bits)
    whole = min(len(pa.Codec("zstd", 19).compress(form(rows.held_out).tobytes())) for form in forms(rows))
    bits("zstd -19 over the whole set", whole)
    measure_coded(rows, bits, rate, suffix, whole)


def forms(rows):
    """What general compressors are given: ids to rows of bytes, in two ways."""
    return (
        lambda ids: pack(torch.from_numpy(ids.astype(np.int32))[:, None], rows.codes).numpy(),
        lambda ids: np.ascontiguousarray(ids).view(np.uint8).reshape(len(ids), -1),
    )


def measure_rows(rows, bits, rate):
    """General compressors on each row, and on each 64 rows."""
    zstd = pa.Codec("zstd", 19)
    ways = {
        "gzip, a row": (1, lambda part: gzip.compress(part, 9, mtime=0), lambda part, size: gzip.decompress(part)),
        "zstd -19, a row": (1, zstd.compress, lambda part, size: zstd.decompress(part, size)),
        "zstd -19, 64 rows": (BLOCK, zstd.compress, lambda part, size: zstd.decompress(part, size)),
    }
    wide = forms(rows)[1]
    if find_spec("zstandard"):
        ways |= {
            "zstd -19 with a dictionary, a row": (1, *with_dictionary(rows)),
            "zstd -19 with a dictionary, 64 rows": (BLOCK, *with_dictionary(rows)),
        }
    for name, (block, compress, decompress) in ways.items():
        sizes = []
        for form in forms(rows):
            content = form(rows.held_out)
            parts = [bytes(compress(content[at : at + block].tobytes())) for at in range(0, len(content), block)]
            sizes.append(sum(map(len, parts)) + OFFSET * len(parts))
        bits(name, min(sizes))
        content = wide(rows.held_out)
        parts = [bytes(compress(content[at : at + block].tobytes())) for at in range(0, len(content), block)]
        lengths = [content[at : at + block].size for at in range(0, len(content), block)]

        def read(chosen, block=block, parts=parts, lengths=lengths, decompress=decompress):
            found = []
            for row in chosen.tolist():
                part = bytes(decompress(parts[row // block], lengths[row // block]))
                found.append(np.frombuffer(part, np.uint16).reshape(-1, rows.tokens)[row % block])
            return np.stack(found)

        rate(name, read)


def with_dictionary(rows):
    """Zstd with a dictionary of 16 kB of training rows: (compress, decompress)."""
    import zstandard

    samples = [part.tobytes() for part in forms(rows)[1](rows.train)[:20000]]
    dictionary = zstandard.train_dictionary(16384, samples)
    packer, unpacker = zstandard.ZstdCompressor(19, dictionary), zstandard.ZstdDecompressor(dictionary)
    return packer.compress, lambda part, size: unpacker.decompress(part)


def measure_files(rows, bits, rate):
    """Parquet and Arrow with their own compression, 64 rows a group so that rows can be read alone."""
    kind = pa.list_(pa.uint16(), rows.tokens)
    column = pa.FixedSizeListArray.from_arrays(pa.array(rows.held_out.reshape(-1)), type=kind)
    table = pa.table({"ids": column})
    for name, block in (("Parquet with zstd", len(column)), ("Parquet with zstd, 64 rows a group", BLOCK)):
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd", compression_level=19, row_group_size=block)
        bits(name, len(sink.getvalue()))
        rate(name, partial_parquet(sink.getvalue(), block, rows.tokens))
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", 19))
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=BLOCK)
    bits("Arrow with zstd, 64 rows a batch", len(sink.getvalue()))
    file = pa.ipc.open_file(pa.py_buffer(sink.getvalue()))

    def read(chosen):
        return np.stack([
            flat(file.get_batch(row // BLOCK).column(0), rows.tokens)[row % BLOCK] for row in chosen.tolist()
        ])  # fmt: skip

    rate("Arrow with zstd, 64 rows a batch", read)


def partial_parquet(content, block, tokens):
    """Read rows of a Parquet file, each group that they need once."""
    file = pq.ParquetFile(pa.BufferReader(content))

    def read(chosen):
        groups = np.unique(chosen // block)
        known = {int(group): flat(file.read_row_group(group).column(0).combine_chunks(), tokens) for group in groups}
        return np.stack([known[row // block][row % block] for row in chosen.tolist()])

    return read


def flat(column, tokens):
    """Ids of a column of lists, (n, T)."""
    column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    return column.flatten().to_numpy(zero_copy_only=False).reshape(-1, tokens)


def measure_published(rows, bits):
    """The published release's format: one byte stream of all rows, gzipped, and its index."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "held-token.data.bin.gz"
        with published.writing(data, len(rows.held_out)) as append:
            append(rows.held_out.astype(np.int64))
        bits("published release's format", sum(path.stat().st_size for path in Path(folder).iterdir()))


def measure_coded(rows, bits, rate, suffix, sequential):
    """Ours."""
    tables = choose_tables(rows.train, rows.codes, rows.width, rows=len(rows.train))
    if tables is None:
        raise SystemExit("coding would make these rows larger: they stay packed")
    coder = RowCoder(tables)
    coded = coder.encode(torch.from_numpy(rows.held_out.astype(np.int32))[:, None])
    content, offsets = coded.content, coded.offsets
    with_offsets = len(content) + OFFSET * len(rows.held_out)
    each = len(rows.held_out) * rows.tokens / 8
    bits("coded", with_offsets, without_offsets=len(content) / each, tables_bytes=len(tables.to_bytes()))
    report(f"bytes of coded rows over zstd -19 of the whole set{suffix}", with_offsets / sequential, "x")
    trained = coder.encode(torch.from_numpy(rows.train.astype(np.int32))[:, None])
    whole = len(trained.content) + OFFSET * len(rows.train) + len(tables.to_bytes())
    packed = len(rows.train) * packed_bytes(rows.tokens, rows.codes)
    report(f"bytes of the training rows and tables, coded over packed{suffix}", whole / packed, "x")

    def read(chosen):
        return coder.decode(content, offsets[chosen], offsets[chosen + 1])[0]

    rate("coded", read)
    starts, stops = np.tile(offsets[:-1], 4), np.tile(offsets[1:], 4)
    name = "rows decoded per second" if suffix else "rows decoded per second, 8 x 8"
    speed = per_second(lambda: coder.decode(content, starts, stops), len(starts), rounds=20)
    plain = RowCoder(tables, compiled=False)
    slow = per_second(lambda: plain.decode(content, starts, stops), len(starts), rounds=2)
    report(name, speed, "rows/s", compiled=coder.compiled, contexts=tables.contexts)
    report(f"rows decoded per second by NumPy{suffix}", slow, "rows/s")


if __name__ == "__main__":
    main()
