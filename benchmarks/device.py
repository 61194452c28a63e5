"""What a device reaches, and what it did: rates of matrix products and of copies, its memory, its kernels by time."""

import resource
import time

import torch

from benchmarks.measures import per_second

_TOGETHER = 10  # products or copies between two waits on a GPU, so that waiting costs next to nothing


def wait(device):
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def product_rate(device, dtype):
    """Operations a second of a large matrix product of random numbers, the best of several."""
    gpu = device.type == "cuda"
    side = 8192 if gpu else 768
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    result = torch.empty_like(left)
    return _rate(lambda: torch.matmul(left, right, out=result), 2 * side**3, device)


def copy_rate(device):
    """Bytes a second, those read and those written, of a copy that no cache holds."""
    source = torch.randn(2**30 if device.type == "cuda" else 2**25, device=device)
    if device.type != "cuda":  # in place: a CPU also reads what a copy is going to overwrite
        return _rate(source.neg_, 2 * source.nbytes, device)
    target = torch.empty_like(source)
    return _rate(lambda: target.copy_(source), 2 * source.nbytes, device)


def _rate(action, amount, device):
    times = _TOGETHER if device.type == "cuda" else 1

    def act():
        for _ in range(times):
            action()
        wait(device)

    act()
    return per_second(act, times * amount, rounds=9)


def peak_memory(device):
    """The most bytes that tensors took on a GPU since `forget_peak_memory`; on a CPU what the process ever took."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def forget_peak_memory(device):
    """Begin to look for the peak on a GPU anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def write_profile(file, action, device):
    """Run `action()` under torch's profiler and write its kernels, on a CPU its operators, by the time they took.

    Args:
        file: the table, text.
        action: what to run; it need not wait for the device.
        device: where it runs.
    Returns: share of the time in which something of the table ran.
    """
    gpu = device.type == "cuda"
    activities = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * gpu
    wait(device)
    with torch.profiler.profile(activities=activities) as profiler:
        start = time.perf_counter()
        action()
        wait(device)
        seconds = time.perf_counter() - start
    rows = []
    for event in profiler.key_averages():
        if gpu and event.device_type == torch.autograd.DeviceType.CUDA and not event.is_user_annotation:
            rows.append((event.self_device_time_total / 1e3, event.count, event.key))
        elif not gpu:
            rows.append((event.self_cpu_time_total / 1e3, event.count, event.key))
    total = sum(row[0] for row in rows)
    lines = [f"{1e3 * seconds:.2f} ms, of which {total:.2f} ms in {sum(row[1] for row in rows)} calls"]
    lines += [f"{'ms':>10} {'share':>7} {'calls':>7}  name"]
    lines += [f"{ms:>10.3f} {ms / total:>7.2%} {calls:>7}  {name}" for ms, calls, name in sorted(rows, reverse=True)]
    file.write_text("\n".join(lines) + "\n")
    return total / (1e3 * seconds)
