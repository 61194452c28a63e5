"""The machine that a run runs on, in words."""

import platform
import resource
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@cache
def cpu_name() -> str:
    """The processor's model, where the system says it; else its kind."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(errors="replace").splitlines() if file.is_file() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def peak_bytes(device: "torch.device") -> int:
    """The most memory that this process has held: of the GPU where it runs on one, else resident."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def peak_memory(device: "torch.device") -> str:
    """The same in words."""
    return f"at most {peak_bytes(device) / 1e9:.1f} GB of {'the GPU' if device.type == 'cuda' else 'memory'}"
