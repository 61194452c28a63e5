"""How long a step of pre-training takes, and where its time goes.

    python -m benchmarks.pretrain                           ViT-B/2 of the papers, one thread of a CPU, or a GPU
    python -m benchmarks.pretrain --quick                   all of it with tiny models, in seconds
    python -m benchmarks.pretrain --reference CHECKOUT --reference_path FOLDER    beside the published step

A step is all of it: a batch of a 32 x 32 store, TokenAdapt (random weights, the published widths) on one half of it and
crops on the other, masks, forward, backward, clipping and AdamW. A CPU takes batches of 8 in float32; a GPU 128 in
bf16, 100 steps, of which it also reports how long they waited for data and the peak of its memory. Of several steps the
quickest counts, each part by itself and the whole by itself, as other processes only ever add to them.

On a CPU `--precision no` leaves products to torch's default library, as the published step does; `auto` is what the
stages do (see training/devices.py).

`--reference` names a checkout of github.com/naver-ai/seit, whose step then runs in a process of its own on the same
rows, by turns with ours; see benchmarks/published_pretrain.py. `--reference_path` is a folder with the timm that it
needs: pip install --target FOLDER --no-deps timm==0.5.4
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange

from benchmarks.measures import per_second, report, report_ratio
from benchmarks.synthetic import CODES, GRID, make_store
from mtm.augment import Augment, AugmentConfig
from mtm.cost import training_flops
from mtm.encoder import EncoderConfig
from mtm.masking import MaskConfig, sample_masks
from mtm.model import DecoderConfig, MaskedTokenModel, ModelConfig
from mtm.pretrain import PretrainConfig
from tokenadapt.model import TokenAdapt, TokenAdaptConfig
from tokens.exchange import published
from tokens.loader import TrainingBatches
from tokens.store import open_store
from training.chance import Draws
from training.checkpoint import save_weights
from training.devices import make_accelerator
from training.optimizer import make_adamw, parameter_groups, set_learning_rate
from training.speed import count_flops, peak_flops

VIEW = (28, 28)
ROWS = 2048
TINY = ModelConfig(encoder=EncoderConfig(width=24, depth=2, heads=3), decoder=DecoderConfig(width=16, depth=1, heads=2))


@dataclass
class Step:
    """A step of pre-training in parts, as `mtm.pretrain` and `training.loop` put it together.

    Args:
        folder: of the store and of TokenAdapt.
        batch_size: samples.
        precision: as in PretrainConfig.
        quick: whether models are tiny.
    """

    folder: Path
    batch_size: int
    precision: str
    quick: bool

    def __post_init__(self):
        self.accelerator = make_accelerator(self.precision)
        self.device = self.accelerator.device
        config = PretrainConfig(output_dir="", store="", batch_size=self.batch_size, clip_grad=3.0)
        store = open_store(self.folder / "store")
        torch.manual_seed(0)
        width = TokenAdaptConfig(width=64) if self.quick else TokenAdaptConfig()
        adapt = TokenAdapt(width, grid=GRID, view=VIEW, codebook_size=CODES, embedding_dim=32)
        described = {**adapt.described, "tokenizer": store.tokenizer["fingerprint"]}
        save_weights(self.folder / "tokenadapt" / "weights", adapt.state_dict(), described)
        self.config, self.mask = config, MaskConfig()
        self.model = MaskedTokenModel(
            TINY if self.quick else ModelConfig(), view=VIEW, codebook_size=CODES, embedding_dim=32
        )
        self.patches = math.prod(self.model.encoder.grid)
        self.flops = training_flops(self.model, self.mask) + 0.5 * adapt_flops(adapt)
        self.augment = Augment(
            AugmentConfig(token_adapt=str(self.folder / "tokenadapt")), store=store, view=VIEW, device=self.device
        )
        self.batches = TrainingBatches(store, self.batch_size, seed=0, device=self.device)
        optimizer = make_adamw(parameter_groups(self.model, weight_decay=config.weight_decay), config)
        set_learning_rate(optimizer, 1e-5)
        self.trained, self.optimizer = self.accelerator.prepare(self.model.train(), optimizer)

    @property
    def parameters(self):
        """How many are trained."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def run(self, index, mark=lambda part: None):
        """One step; `mark(part)` is called after each part. Returns the loss."""
        batch = self.batches(index)
        mark("loader")
        draws = Draws(0, index, batch.positions)
        ids = self.augment(batch.ids, draws)
        mark("augmentation")
        loss, _ = self.trained(ids, sample_masks(self.mask, draws, self.patches))
        mark("forward")
        self.accelerator.backward(loss)
        mark("backward")
        self.accelerator.clip_grad_norm_(self.trained.parameters(), self.config.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad()
        mark("update")
        return loss.detach()

    def wait(self):
        """Until the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def adapt_flops(adapt):
    """Operations of TokenAdapt's f and g on an image."""
    shape = adapt.to("meta")
    embeddings = torch.empty(1, 32, *GRID, device="meta")
    return count_flops(lambda: shape(embeddings, lambda features: features[..., : 2 * VIEW[0], : 2 * VIEW[1]]))


def main():
    """Print the measures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="tiny models and few steps")
    parser.add_argument("--batch_size", type=int, help="default: 8 on a CPU, 128 on a GPU")
    parser.add_argument("--steps", type=int, help="of each measure; default: 5 on a CPU, 100 on a GPU")
    parser.add_argument("--precision", default="auto", choices=["auto", "no", "bf16"])
    parser.add_argument("--reference", type=Path, help="checkout of github.com/naver-ai/seit")
    parser.add_argument("--reference_path", type=Path, help="folder with timm 0.5.4")
    arguments = parser.parse_args()
    if arguments.reference and (arguments.quick or not arguments.reference_path):
        parser.error("--reference needs --reference_path, and models of the published size: no --quick")
    torch.set_num_threads(1)
    gpu = torch.cuda.is_available()
    size = arguments.batch_size or (4 if arguments.quick else 128 if gpu else 8)
    count = arguments.steps or (2 if arguments.quick else 100 if gpu else 5)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        make_store(folder / "store", 64 if arguments.quick else ROWS)
        step = Step(folder, size, arguments.precision, arguments.quick)
        report("parameters trained", step.parameters / 1e6, "million")
        for index in range(2):  # warm
            step.run(index)
        ours = measure_parts(step, count)
        theirs = None
        if arguments.reference:
            write_release(open_store(folder / "store"), folder)
            theirs = measure_published(arguments, folder, size, count)
            assert theirs.pop("parameters") == step.parameters, "the models differ: the comparison would mean nothing"
            ours = least([ours, measure_parts(step, count)])
        report_parts("ours", ours, size)
        measure_throughput(step, count)
        if theirs:
            report_parts("published", theirs, size)
            for part in ours:
                report_ratio(f"ours against the published, {part}", size / ours[part], size / theirs[part], "images/s")


def measure_parts(step, count):
    """Least seconds of each part of a step, and of the whole, of `count` steps."""
    return least([timed(step, index) for index in range(count)])


def timed(step, index):
    """Seconds of each part of one step, and of the whole."""
    seconds, last = {}, time.perf_counter()

    def mark(part):
        nonlocal last
        step.wait()
        now = time.perf_counter()
        seconds[part], last = now - last, now

    step.run(index, mark)
    return {"whole step": sum(seconds.values()), **seconds}


def least(measures):
    """The least of each number."""
    return {part: min(each[part] for each in measures) for part in measures[0]}


def report_parts(name, seconds, batch_size):
    """Seconds an image of the whole and of each part."""
    for part, value in seconds.items():
        report(f"{name}: {part}", value / batch_size, "s/image", share=value / seconds["whole step"])


def measure_throughput(step, count):
    """Images a second of steps that nothing waits for in between; what the device does with them, and its memory."""
    gpu = step.device.type == "cuda"
    if gpu:
        torch.cuda.reset_peak_memory_stats(step.device)
    waited, before = 0.0, 0.0

    def mark(part):
        nonlocal waited
        if part == "loader":
            waited += time.perf_counter() - before

    step.wait()
    start = time.perf_counter()
    for index in range(count):
        before = time.perf_counter()
        step.run(index, mark)
    step.wait()
    seconds = time.perf_counter() - start
    rate = count * step.batch_size / seconds
    report("steps in a row", rate, "images/s", seconds_per_image=1 / rate, steps=count)
    report("of them waiting for data", 100.0 * waited / seconds, "%")
    peak = (
        torch.cuda.max_memory_allocated(step.device)
        if gpu
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    )
    report("peak memory", peak / 2**30, "GiB")
    report("operations counted", step.flops / 1e9, "GFLOP/image")
    precision = step.accelerator.mixed_precision
    measured = matrix_rate(step.device, torch.bfloat16 if precision == "bf16" else torch.float32)
    report(
        "matrix products", measured / 1e9, "GFLOP/s", precision=precision, float32=torch.get_float32_matmul_precision()
    )
    report("of the rate of matrix products", 100.0 * rate * step.flops / measured, "%")
    if published_peak := gpu and peak_flops(torch.cuda.get_device_name(step.device), precision):
        report("of the maker's peak (MFU)", 100.0 * rate * step.flops / published_peak, "%")


def matrix_rate(device, dtype):
    """Operations a second of a large matrix product, the best of several."""
    side = 8192 if device.type == "cuda" else 768
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))

    def multiply():
        (left @ right).sum().item()  # waits for it

    multiply()
    return per_second(multiply, 2 * side**3, rounds=9)


def write_release(store, folder):
    """The store's rows in the form that the published loader reads."""
    ids = store.ids(range(len(store)))
    with published.writing(folder / "train-token.data.bin.gz", len(ids)) as append:
        append(rearrange(ids, "b h w -> b (h w)").numpy())
    (folder / "train-label.txt").write_text(
        "".join(f"{label}\n" for label in store.labels_at(range(len(store))).tolist())
    )
    torch.save(store.codebook, folder / "codebook.ckpt")


def measure_published(arguments, folder, batch_size, count):
    """The published step in a process of its own: least seconds of each part, and the number of its parameters."""
    words = [
        "-m",
        "benchmarks.published_pretrain",
        arguments.reference,
        arguments.reference_path,
        folder,
        batch_size,
        count,
    ]
    done = subprocess.run([sys.executable, *map(str, words)], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
