"""How long a step of training takes: each part by itself, many in a row, and at the least.

A step here is anything with `batch_size`, `device` and `precision`, `run(index, mark)`, which calls `mark(part)` after
each part, `flops`, operations counted an image, and `work()`, what an image costs in each part at the least.
"""

import time
from pathlib import Path

import torch

from benchmarks.device import copy_rate, forget_peak_memory, peak_memory, product_rate, wait, write_profile
from benchmarks.measures import report
from seitpp.training.speed import peak_flops

WARM = 20
"""Steps before the first that counts, on a GPU; on a CPU 3: draws are compiled at the second."""


def parse_arguments(parser, *, multiple):
    """Add the flags that benchmarks of steps share, and read the command line.

    Args:
        parser: an ArgumentParser.
        multiple: what the batch must be one of, as samples are mixed in pairs.
    Returns: the arguments, with `batch_size`, `steps`, `warm` and `rows` (of the store) as they are for this device and
        --quick.
    """
    parser.add_argument("--quick", action="store_true", help="tiny models and few steps")
    parser.add_argument("--batch_size", type=int, help="default: 8 on a CPU, 128 on a GPU")
    parser.add_argument("--steps", type=int, help="of each measure; default: 5 on a CPU, 100 on a GPU")
    parser.add_argument("--precision", default="auto", choices=["auto", "no", "bf16"])
    parser.add_argument("--compile", action="store_true", help="as --compile true of the stages")
    parser.add_argument("--profile", type=Path, help="file to write a table to: kernels of some steps by time")
    arguments = parser.parse_args()
    gpu = torch.cuda.is_available()
    if arguments.batch_size is None:
        arguments.batch_size = 4 if arguments.quick else 128 if gpu else 8
    if arguments.steps is None:
        arguments.steps = 2 if arguments.quick else 100 if gpu else 5
    if arguments.batch_size < 1 or arguments.batch_size % multiple:
        parser.error(f"--batch_size {arguments.batch_size} must be a multiple of {multiple}")
    if arguments.steps < 1:
        parser.error(f"--steps {arguments.steps} must be at least 1")
    arguments.warm = WARM if gpu else 3
    arguments.rows = max(64 if arguments.quick else 16384 if gpu else 2048, arguments.batch_size)
    return arguments


def measure_parts(step, count):
    """Least seconds of each part of a step, and of the whole, of `count` steps."""
    return least([_timed(step, index) for index in range(count)])


def _timed(step, index):
    """Seconds of each part of one step, and of the whole."""
    wait(step.device)
    seconds, last = {}, time.perf_counter()

    def mark(part):
        nonlocal last
        wait(step.device)
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
    """Images a second of `count` steps that nothing waits for in between; reports them, and the peak of memory."""
    waited, before = 0.0, 0.0

    def mark(part):
        nonlocal waited
        if part == "loader":
            waited += time.perf_counter() - before

    wait(step.device)
    forget_peak_memory(step.device)
    start = time.perf_counter()
    for index in range(count):
        before = time.perf_counter()
        step.run(index, mark)
    wait(step.device)
    seconds = time.perf_counter() - start
    rate = count * step.batch_size / seconds
    report("steps in a row", rate, "images/s", seconds_per_image=1 / rate, steps=count)
    report("of them in the loader, the most that a device can wait for data", 100.0 * waited / seconds, "%")
    report("peak memory", peak_memory(step.device) / 2**30, "GiB")
    return rate


def report_limits(step, seconds, rate):
    """What the device reaches, and what the counted work would take at that, against what was measured.

    Args:
        step: the step.
        seconds: of its parts.
        rate: images a second of steps in a row.
    Returns: operations a second of matrix products.
    """
    products = product_rate(step.device, torch.bfloat16 if step.precision == "bf16" else torch.float32)
    copies = copy_rate(step.device)
    kind = {"precision": step.precision, "float32": torch.get_float32_matmul_precision()}
    report("matrix products", products / 1e9, "GFLOP/s", **kind)
    report("copies, bytes read and written", copies / 1e9, "GB/s")
    report("operations counted", step.flops / 1e9, "GFLOP/image")
    report("of the rate of matrix products", 100.0 * rate * step.flops / products, "%")
    if step.device.type == "cuda" and (peak := peak_flops(torch.cuda.get_device_name(step.device), step.precision)):
        report("of the maker's peak (MFU)", 100.0 * rate * step.flops / peak, "%")
    whole = 0.0
    for part, work in step.work().items():
        by_operations, by_bytes = work.seconds(products, copies)
        limit = max(by_operations, by_bytes)
        whole += limit
        report(
            f"limit: {part}", limit, "s/image", by_operations=by_operations, by_bytes=by_bytes,
            reached_percent=100.0 * limit * step.batch_size / seconds[part],
        )  # fmt: skip
    report("limit: whole step", whole, "s/image", images_per_second=1 / whole, reached_percent=100.0 * whole * rate)
    return products


def report_profile(file, step, count):
    """Write the profile of at most 5 steps, and report how much of their time the device was busy."""
    count = min(count, 5)
    busy = write_profile(file, lambda: [step.run(index) for index in range(count)], step.device)
    report("of the profiled time in what the table lists", 100.0 * busy, "%", steps=count, file=str(file))
