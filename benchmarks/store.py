"""What a token store takes on disk, and how fast it is written, checked and exchanged, on one core.

    python -m benchmarks.store                                     131,072 rows of 32 x 32 of 391 codes
    python -m benchmarks.store --quick                             4,096 rows, in seconds
    python -m benchmarks.store --rows 1280000                      as many as ImageNet-1k

The store is random and lies in a temporary folder; the disk cache is warm.
"""

import argparse
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import torch

from benchmarks.measures import per_second, report
from benchmarks.synthetic import CODES, GRID, make_store, random_packed
from seitpp.tokens.codec import pack, packed_bytes
from seitpp.tokens.store import TokenStore, write_shard
from seitpp.tokens.subset import SubsetConfig
from seitpp.tokens.subset import main as make_subset


def main():
    """Print the measures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="4,096 rows")
    parser.add_argument("--rows", type=int, help="default: 131,072")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        rows = arguments.rows or (4096 if arguments.quick else 131072)
        store = TokenStore(make_store(folder / "store", rows))
        measure_size(store)
        measure_writing(folder)
        start = time.perf_counter()
        store.verify()
        report("verify", len(store) / (time.perf_counter() - start), "rows/s")
        start = time.perf_counter()
        with redirect_stdout(sys.stderr):  # the command's own line is no measure
            make_subset(SubsetConfig(store=str(store.folder), output_dir=str(folder / "part"), fraction=0.2))
        report("subset of a fifth, class-balanced", time.perf_counter() - start, "s")


def measure_size(store):
    """Bytes of a row, and of the whole folder against rows x (packed tokens + label + key)."""
    rows = len(store)
    content = rows * (store.row_bytes + 4) + sum(map(len, map(str.encode, store.keys(range(rows)))))
    folder = sum(path.stat().st_size for path in store.folder.iterdir())
    report("packed bytes of a row", store.row_bytes, "bytes", expected=packed_bytes(GRID[0] * GRID[1], CODES))
    report("bytes of the folder over those of its content", folder / content, "x", folder=folder, content=content)


def measure_writing(folder):
    """Rows a second of packing ids, and of writing packed rows as a shard with its checksum."""
    ids = torch.from_numpy(np.random.default_rng(1).integers(CODES, size=(4096, *GRID)))
    report("pack int64 ids", per_second(lambda: pack(ids, CODES), len(ids)), "rows/s")
    packed = random_packed(np.random.default_rng(2), 16384)
    labels, keys = np.zeros(len(packed)), [f"{row:08d}.jpg" for row in range(len(packed))]
    speed = per_second(lambda: write_shard(folder / "one.arrow", packed, labels, keys), len(packed))
    report("write a shard", speed, "rows/s")


if __name__ == "__main__":
    main()
