"""How fast batches come from a token store, on one core.

    python -m benchmarks.loader                         1.28 million rows of 32 x 32 of 391 codes
    python -m benchmarks.loader --quick                 2,048 rows, in seconds
    python -m benchmarks.loader --reference CHECKOUT    beside the published loader, in the same run

The store is random and lies in a temporary folder (1.5 GB); the disk cache is warm. `--reference` names a checkout of
github.com/naver-ai/seit: its `TokenDataset` reads 512 of the same rows in the release's format, through torch's
DataLoader, with one-hot maps as its training wants them, and with ids alone.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from einops import rearrange

from benchmarks.measures import per_second, report, report_ratio
from benchmarks.synthetic import CODES, make_store
from seitpp.tokens.exchange import published
from seitpp.tokens.loader import TrainingBatches
from seitpp.tokens.store import open_store

BATCH = 256
FED = 5000  # images a second that one GPU takes
OPENING = """
import json, resource, time, sys
import numpy as np, torch, pyarrow
from seitpp.tokens.loader import TrainingBatches
from seitpp.tokens.store import open_store
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
before, start = resident(), time.perf_counter()
store = open_store(sys.argv[1])
opened, grown = time.perf_counter() - start, resident() - before
start = time.perf_counter()
TrainingBatches(store, 256, seed=0)(0)
print(json.dumps({"opened": opened, "grown": grown / 1e6, "first": time.perf_counter() - start}))
"""


def main():
    """Print the measures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="2,048 rows")
    parser.add_argument("--rows", type=int, help="default: 1,280,000")
    parser.add_argument("--reference", type=Path, help="checkout of github.com/naver-ai/seit")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = arguments.rows or (2048 if arguments.quick else 1_280_000)
        path = make_store(Path(folder) / "store", rows)
        measure_opening(path, runs=1 if arguments.quick else 3)
        unpacked = measure_batches(open_store(path))
        if arguments.reference:
            measure_reference(open_store(path), arguments.reference, Path(folder), unpacked)


def measure_opening(path, runs):
    """Seconds until a store is open and until its first batch is there, and the memory that opening takes."""
    measures = []
    for _ in range(1 + runs):  # the first warms the disk cache
        done = subprocess.run([sys.executable, "-c", OPENING, str(path)], check=True, capture_output=True, text=True)
        measures.append(json.loads(done.stdout))
    best = {name: min(each[name] for each in measures[1:]) for name in measures[0]}
    report("open the store", best["opened"], "s")
    report("resident memory that opening takes", best["grown"], "MB")
    report("first batch of 256, unpacked", best["first"] * 1e3, "ms")


def measure_batches(store):
    """Rows a second, shuffled over the whole store; returns those unpacked."""
    batches = TrainingBatches(store, BATCH, seed=0)
    steps = min(1000, batches.steps_per_epoch)
    counter = iter(range(10**9))

    def packed():
        for _ in range(steps):
            store.packed(batches.order.at(next(counter))[0])

    def ids():
        for _ in range(steps // 4):
            _ = batches(next(counter)).labels  # are read when they are asked for

    packed()  # warm
    start = time.process_time()
    packed()
    busy = (time.process_time() - start) / (steps * BATCH)
    report("packed rows in batches of 256", per_second(packed, steps * BATCH), "rows/s")
    report(f"of a core for {FED} packed rows a second", 100.0 * busy * FED, "%")
    unpacked = per_second(ids, steps // 4 * BATCH)
    report("batches of 256 unpacked to int64 ids, with labels", unpacked, "rows/s")
    return unpacked


def measure_reference(store, checkout, folder, unpacked):
    """The published loader on the first rows of the same store."""
    rows = range(512)
    ids, data, labels = store.ids(rows), folder / "first-token.data.bin.gz", folder / "first-label.txt"
    with published.writing(data, len(ids)) as append:
        append(rearrange(ids, "b h w -> b (h w)").numpy())
    labels.write_text("".join(f"{label}\n" for label in store.labels_at(rows).tolist()))
    sys.path.insert(0, str(checkout))
    from datasets import TokenDataset

    for name, transform in {"one-hot maps": torch.nn.Identity(), "ids alone": None}.items():
        images = TokenDataset(str(data), str(labels), CODES, transform=transform)
        loader = torch.utils.data.DataLoader(images, BATCH, shuffle=True)
        speed = per_second(lambda loader=loader: list(loader), len(ids), rounds=3)
        report(f"published loader, {name}", speed, "rows/s")
        report_ratio(f"unpacked batches against the published loader, {name}", unpacked, speed, "rows/s")
    read = torch.stack([images[row][0] for row in rows])
    assert torch.equal(read, ids), "the published loader reads other ids: the comparison would mean nothing"


if __name__ == "__main__":
    main()
