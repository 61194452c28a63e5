"""How fast windows and their label maps are read, and how near a step of training is to its bare network.

    python -m benchmarks.segmentation             64 x 64 tokens, 150 classes; one thread of a CPU, or a GPU
    python -m benchmarks.segmentation --quick     tiny models, in seconds

Label maps are made-up scenes of 12 smooth regions, 512 x 512. The step is that of `seitpp segmentation`: read, views
(scale and flip of nearest tokens), UPerNet, loss, backward, AdamW; the bare network is forward, loss and backward of
the same model on one batch that lies on the device. On a CPU the encoder is a ViT of 4 blocks of 192,
on a GPU the papers' ViT-B/2.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.device import forget_peak_memory, peak_memory, wait
from benchmarks.measures import per_second, report, report_ratio
from benchmarks.synthetic import CHANNELS, CODES, random_packed
from seitpp.downstream.segmentation.batches import WindowBatches
from seitpp.downstream.segmentation.evaluation import confusion_over, logits_of
from seitpp.downstream.segmentation.heads import HeadConfig
from seitpp.downstream.segmentation.objective import make_step, pixel_loss
from seitpp.downstream.segmentation.segmenter import Segmenter
from seitpp.downstream.segmentation.train import SegmentationConfig
from seitpp.downstream.segmentation.views import ViewsConfig, WindowViews
from seitpp.downstream.segmentation.windows import SegmentationRows, open_segmentation
from seitpp.mtm.encoder import EncoderConfig
from seitpp.runtime.devices import make_accelerator
from seitpp.tokens.codec import pack, unpack
from seitpp.tokens.format.targets import Targets
from seitpp.tokens.loader import TrainingBatches
from seitpp.tokens.store import open_store, write_manifest, write_shard
from seitpp.training.optimizer import make_adamw, parameter_groups, set_learning_rate

CLASSES, REGIONS, AT_ONCE = 150, 12, 16


def scene(random, side):
    """A label map (side, side) uint8 of smooth regions: the nearest of some points, which waves displace."""
    lines, columns = np.mgrid[:side, :side] / side
    bent = lines + 0.05 * np.sin(9 * columns + random.uniform(0, 6)), columns + 0.05 * np.sin(9 * lines)
    points, names = random.uniform(size=(REGIONS, 2)), random.integers(CLASSES, size=REGIONS)
    far = [(bent[0] - down) ** 2 + (bent[1] - across) ** 2 for down, across in points]
    return names[np.argmin(far, axis=0)].astype(np.uint8)


def make_store(folder, rows, grid, *, token=8):
    """Write a segmentation store of images of one window each; returns its folder."""
    random, side = np.random.default_rng(0), grid * token
    masks = [scene(random, side) for _ in range(min(rows, 64))]
    places = [(row, 0, 0, side, side, side, side) for row in range(rows)]
    targets = Targets.of(masks=[masks[row % len(masks)] for row in range(rows)], windows=places)
    ids = unpack(torch.from_numpy(random_packed(random, rows * (grid // 32) ** 2)), CODES, (32, 32))
    packed = pack(ids.reshape(rows, grid, grid), CODES).numpy()
    keys = [f"images/{row:08d}.jpg#0,0" for row in range(rows)]
    shard = write_shard(folder / "shard-00000.arrow", packed, [-1] * rows, keys, targets)
    write_manifest(
        folder, tokenizer={"name": "random", "fingerprint": "0" * 64}, lookup="cosine", grid=(grid, grid),
        codebook=torch.from_numpy(random.standard_normal((CODES, CHANNELS))).float(), preprocessing={}, classes=[],
        shards=[shard], mask={"classes": [str(number) for number in range(CLASSES)], "ignore": 255},
        windows={"size": [side, side], "stride": [side, side], "short_side": side, "tile": [side, side]},
    )  # fmt: skip
    return folder


def measure_reading(rows):
    """Rows a second with their label maps, 16 at a time, and the bytes of each."""
    random = np.random.default_rng(1)
    draws = [random.integers(len(rows), size=AT_ONCE) for _ in range(8)]

    def read():
        for which in draws:
            rows.store.ids(which)
            rows.masks(which)

    read()
    report("rows read with label maps", per_second(read, AT_ONCE * len(draws)), "rows/s", at_once=AT_ONCE)
    content = rows.store.content(np.arange(len(rows)))
    for name, words in (("tokens", "tokens"), ("mask", "label map"), ("window", "place")):
        report(f"bytes a row: {words}", float(content[name].mean()), "bytes")


def measure_step(rows, model, batch_size, count, accelerator):
    """Windows a second of whole steps and of the bare forward and backward pass."""
    config = SegmentationConfig(store="", eval_store="", output_dir="")
    groups = parameter_groups(
        model, weight_decay=config.weight_decay, layer_decay=config.layer_decay, layers=model.layers,
        layer_of=model.layer_of,
    )  # fmt: skip
    trained, optimizer = accelerator.prepare(model.train(), make_adamw(groups, config))
    set_learning_rate(optimizer, 1e-5)
    views = WindowViews(ViewsConfig(), store=rows.store, device=accelerator.device)
    make = partial(TrainingBatches, batch_size=batch_size, seed=0, device=accelerator.device)
    batches = WindowBatches(rows, make, accum_iter=1)
    step = make_step(views, auxiliary=config.head.auxiliary, class_weights=(), seed=0, compiled=False)
    kept, done = batches(0), 0

    def bare():
        for _ in range(count):
            logits, second = trained(kept.ids)
            loss = pixel_loss(logits, kept.masks) + config.head.auxiliary * pixel_loss(second, kept.masks)
            accelerator.backward(loss)
            optimizer.zero_grad()
        wait(accelerator.device)

    def whole():
        nonlocal done
        for _ in range(count):
            loss, _ = step(trained, batches(done), done)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            done += 1
        wait(accelerator.device)

    bare(), whole()
    forget_peak_memory(accelerator.device)
    theirs, ours = (per_second(action, count * batch_size, rounds=3) for action in (bare, whole))
    report("training steps", ours, "windows/s", batch=batch_size)
    report("peak memory", peak_memory(accelerator.device) / 2**30, "GiB")
    report_ratio("training step / bare forward and backward pass", 1 / ours, 1 / theirs, "s/window")
    return accelerator.unwrap_model(trained)


def main():
    """Print the measures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="tiny models and few rows")
    parser.add_argument("--rows", type=int, help="of the store; default: 256, quick 64")
    parser.add_argument("--batch_size", type=int, help="default: 2 on a CPU, 16 on a GPU")
    parser.add_argument("--steps", type=int, help="of each round; default: 2 on a CPU, quick 1, 20 on a GPU")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    gpu = torch.cuda.is_available()
    accelerator = make_accelerator("auto")
    shape = EncoderConfig(width=192, depth=4, heads=3) if not gpu else EncoderConfig()
    head = HeadConfig(channels=768 if gpu else 64, auxiliary_channels=256 if gpu else 32)
    if arguments.quick:
        shape, head = EncoderConfig(width=24, depth=4, heads=3), HeadConfig(channels=8, auxiliary_channels=8)
    with tempfile.TemporaryDirectory() as folder:
        count = arguments.rows or (64 if arguments.quick else 256)
        rows = open_segmentation(make_store(Path(folder) / "store", count, 32 if arguments.quick else 64))
        measure_reading(rows)
        model = Segmenter(
            shape, head, view=rows.store.grid, codebook_size=CODES, embedding_dim=CHANNELS, classes=CLASSES
        )  # fmt: skip
        size, steps = (
            arguments.batch_size or (16 if gpu else 2),
            arguments.steps or (20 if gpu else 1 if arguments.quick else 2),
        )
        model = measure_step(rows, model, size, steps, accelerator).eval()
        few = SegmentationRows(open_store(folder + "/store"), rows.windows[: 4 if arguments.quick else 32])
        answers = logits_of(model, few, accelerator=accelerator)
        rate = per_second(
            lambda: confusion_over(answers, few, batch_size=size, accelerator=accelerator), few.images, rounds=1
        )
        report("images measured at their own size", rate, "images/s")


if __name__ == "__main__":
    main()
