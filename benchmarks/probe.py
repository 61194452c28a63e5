"""What probes of ImageNet's size cost: features, nearest neighbours, heads, and the memory of a whole run.

    python -m benchmarks.probe                    1.28 million rows of 1,000 classes, one thread of a CPU, or a GPU
    python -m benchmarks.probe --quick            a few thousand rows, in seconds
    python -m benchmarks.probe --rows 100000      so many

Ratios are of sides that take turns in one run: features of a store in a file against the encoder's bare forward pass on
ids that are there already; k-NN against the bare matrix product of all similarities, in the same blocks; a step of 64
heads against one of a single head, where an encoder (ViT-Ti) makes features as heads learn, and where they are read.
Memory is all that is resident of the process, Python and torch among it, without files that are mapped, at its peak.
"""

import argparse
import io
import tempfile
import threading
import time
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.measures import per_second, report, report_ratio
from benchmarks.synthetic import CHANNELS, CLASSES, CODES, VIEW, make_store
from seitpp.finetune.labelled import LabelledRows, open_labelled
from seitpp.finetune.probe import ProbeConfig, probe
from seitpp.finetune.probing.feature_file import feature_file
from seitpp.finetune.probing.feature_set import FeatureSet
from seitpp.finetune.probing.features import FrozenEncoder, Layout, encoder_recipe
from seitpp.finetune.probing.head_training import ViewSet
from seitpp.finetune.probing.heads import Head, HeadsConfig, LinearHeads, head_groups, heads_loss
from seitpp.finetune.probing.nearest import BANK, QUERIES, nearest_neighbours
from seitpp.mtm.encoder import EncoderConfig, TokenEncoder
from seitpp.mtm.stems import PatchStem
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.processes import Processes
from seitpp.tokens.loader import evaluation_batches
from seitpp.tokens.store import open_store
from seitpp.tokens.views import centre
from seitpp.training.optimizer import set_learning_rate

WIDTH, NEIGHBOURS = 192, 200
TINY = EncoderConfig(width=WIDTH, depth=12, heads=3)
SMALLEST = EncoderConfig(width=24, depth=2, heads=3)
TWO_LABELS = 2  # rows of each class in the quick run


def main():
    """Print the measures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few thousand rows")
    parser.add_argument("--rows", type=int, help="default: 1,280,000")
    parser.add_argument("--queries", type=int, help="default: 10,000")
    parser.add_argument("--only", choices=("features", "neighbours", "heads", "memory"), help="one part")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    quick = arguments.quick
    rows = arguments.rows or (TWO_LABELS * CLASSES if quick else 1_280_000)
    queries = arguments.queries or (50 if quick else 10_000)
    parts = {
        "features": partial(measure_features, SMALLEST if quick else TINY, 128 if quick else 256),
        "neighbours": partial(measure_neighbours, rows, queries),
        "heads": partial(measure_heads, SMALLEST if quick else TINY, steps=1 if quick else 2),
        "memory": partial(measure_memory, rows, quick),
    }
    for name, measure in parts.items():
        if arguments.only in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                measure(Path(folder))


def measure_features(shape, rows, folder, batch_size=64):
    """Images a second of a store's features in a file, against the encoder's bare forward pass."""
    accelerator = make_accelerator()
    store = open_store(make_store(folder / "store", rows))
    frozen = untrained(shape, store, accelerator)
    recipe = encoder_recipe(frozen, store, Layout(), precision=accelerator.mixed_precision)
    batches = [
        centre(batch.ids, VIEW).clone() for batch in evaluation_batches(store, batch_size, device=accelerator.device)
    ]

    def encode():
        with tempfile.TemporaryDirectory() as place:
            feature_file(place, recipe, rows=rows, batch_size=batch_size, team=Processes(accelerator))

    @torch.no_grad()
    def bare():
        for ids in batches:
            with accelerator.autocast():
                made = frozen.encoder.pooled(ids)
        made.sum().item()  # a GPU has come to the end

    encode(), bare()  # warm
    ours, theirs = in_turn(encode, bare, rows)
    report("features", ours, "images/s")
    report_ratio("features / bare forward pass", ours, theirs, "images/s")


def measure_neighbours(rows, queries, folder):
    """Seconds and memory of k-NN, against the bare product of all similarities."""
    accelerator = make_accelerator()
    device = accelerator.device
    train, test = (random_set(folder / f"{name}.npy", count) for name, count in (("train", rows), ("test", queries)))
    block, bank = (
        torch.randn(min(QUERIES, queries), WIDTH, device=device),
        torch.randn(min(BANK, rows), WIDTH, device=device),
    )

    def bare():
        for _ in range(-(-queries // len(block)) * -(-rows // len(bank))):
            product = block @ bank.T
        product.sum().item()

    bare_seconds = timed(bare)
    with peak_memory() as memory:
        seconds = timed(partial(nearest_neighbours, train, test, (10, 20, 100, NEIGHBOURS), accelerator=accelerator))
    report("k-NN", seconds, "s", queries=queries, rows=rows)
    report_ratio("k-NN / bare matrix product", seconds, bare_seconds, "s")
    report("k-NN: memory at its peak", memory.peak, "GB")


def measure_heads(shape, folder, steps, batch_size=64):
    """Seconds of a step of 64 heads, against one of a single head."""
    accelerator = make_accelerator()
    labelled = open_labelled(make_store(folder / "store", 4 * batch_size))
    frozen = untrained(shape, labelled.store, accelerator)
    layout = Layout(min(4, shape.depth), ("cls", "mean"))
    views = ViewSet(frozen, labelled, features=partial(frozen.pooled, layout=layout))
    recipe = encoder_recipe(frozen, labelled.store, layout, precision=accelerator.mixed_precision)
    file = feature_file(folder, recipe, rows=len(labelled.store), batch_size=batch_size, team=Processes(accelerator))
    one = [Head(1e-3, 0.0, 1, "mean")]
    rates = tuple(np.geomspace(1e-4, 1e-2, 8))
    many = HeadsConfig(blr=rates, inputs=("cls", "mean"), blocks=(1, layout.blocks)).linear_grid()
    assert len(many) == 64
    shares = {
        "batch_size": batch_size,
        "seed": 0,
        "device": accelerator.device,
        "accum_iter": 1,
        "rank": 0,
        "world_size": 1,
    }
    for name, source in (("as the encoder runs", views), ("read from a file", FeatureSet(file, labelled))):
        sides = [
            head_steps(grid, source.training(shares), layout, shape.width, accelerator.device) for grid in (many, one)
        ]
        for side in sides:
            side(1)  # warm
        theirs, ours = in_turn(partial(sides[1], steps), partial(sides[0], steps), steps)
        report_ratio(f"a step of 64 heads / of one, {name}", 1 / ours, 1 / theirs, "s")


def head_steps(grid, batch_at, layout, width, device):
    """A function that trains a grid for so many steps."""
    size = (layout.blocks, len(layout.poolings), width)
    heads = LinearHeads(grid, layout, CLASSES, (torch.zeros(size), torch.ones(size))).to(device)
    optimizer = torch.optim.AdamW(head_groups(heads), fused=True)
    set_learning_rate(optimizer, 1.0)

    def run(steps):
        for step in range(steps):
            features, targets = batch_at(step, 0)
            loss = heads_loss(heads(features), targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        loss.item()

    return run


def measure_memory(rows, quick, folder):
    """The peak of a whole probe: features, logistic regression in chunks, k-NN, a grid of 60 heads.

    The encoder is the smallest that is one, on 8 x 8 tokens, and solvers take few steps: of the rows nothing is left
    out, of the time nearly all.
    """
    train = make_store(folder / "train", rows)
    test = make_store(folder / "test", 200 if quick else 2_000)
    config = ProbeConfig(
        store=str(train), eval_store=str(test), features=("majority", "random"), encoder=SMALLEST, view=(8, 8),
        protocols=("linear", "knn", "linear_grid"), inverse_regularisation=(0.1,), logistic_solver="device",
        logistic_iterations=1, heads=HeadsConfig(steps=1 if quick else 3, batch_size=128 if quick else 1024),
        held_out=0.5 if quick else 0.02, batch_size=1024, output_dir=str(folder / "run"),
    )  # fmt: skip
    with peak_memory() as memory, redirect_stdout(io.StringIO()):
        seconds = timed(lambda: probe(config))
    report("probe: memory at its peak", memory.peak, "GB", rows=rows, seconds=seconds)


def untrained(shape, store, accelerator):
    """An encoder with random weights."""
    encoder = TokenEncoder(shape, PatchStem(shape, codebook_size=CODES, embedding_dim=CHANNELS), view=VIEW)
    return FrozenEncoder(encoder, store, device=accelerator.device, autocast=accelerator.autocast)


def random_set(path, rows):
    """Random features in a file, with labels."""
    random = np.random.default_rng(rows)
    file = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(rows, WIDTH))
    for start in range(0, rows, BANK):
        file[start : start + BANK] = random.standard_normal((min(BANK, rows - start), WIDTH), dtype=np.float32)
    file.flush()
    labels = random.integers(CLASSES, size=rows)
    classes = [str(label) for label in range(CLASSES)]
    return FeatureSet(np.load(path, mmap_mode="r"), LabelledRows(None, np.arange(rows), labels, classes))


def in_turn(ours, theirs, count, rounds=3):
    """Units a second of two actions that take turns, the best of several rounds each."""
    rates = [(per_second(ours, count, rounds=1), per_second(theirs, count, rounds=1)) for _ in range(rounds)]
    return tuple(map(max, zip(*rates, strict=True)))


def timed(action):
    """Seconds of an action."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


class PeakMemory:
    """What is resident of this process and of no file, looked at a hundred times a second.

    Attributes:
        peak: in GB.
    """

    def __init__(self):
        self.peak = 0.0
        self.ended = threading.Event()

    def watch(self):
        """Look until it is ended."""
        while not self.ended.wait(0.01):
            self.peak = max(self.peak, resident() / 1e9)


@contextmanager
def peak_memory():
    """Yield a PeakMemory of what is done within."""
    memory = PeakMemory()
    watcher = threading.Thread(target=memory.watch)
    watcher.start()
    try:
        yield memory
    finally:
        memory.ended.set()
        watcher.join()


def resident():
    """Bytes of this process that are resident and of no file (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


if __name__ == "__main__":
    main()
