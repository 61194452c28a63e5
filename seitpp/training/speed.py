"""How fast a training is: images a second and, on a GPU we know, the share of its peak (MFU)."""

import re
from collections.abc import Callable

import torch
from accelerate import Accelerator

_PEAKS = {
    "B200": 2250e12,  # NVIDIA Blackwell Architecture Technical Brief, HGX B200: 4.5 PFLOPS with sparsity
    "H200 NVL": 835e12,  # NVIDIA H200 Tensor Core GPU data sheet: 1,671 TFLOPS with sparsity
    "H200": 989e12,  # the same, SXM: 1,979 with sparsity
    "H100 NVL": 835e12,  # NVIDIA H100 Tensor Core GPU data sheet: 1,671 with sparsity
    "H100 PCIe": 756e12,  # the same: 1,513 with sparsity
    "H100": 989e12,  # the same, SXM: 1,979 with sparsity
    "A100": 312e12,  # NVIDIA A100 Tensor Core GPU data sheet, SXM and PCIe
    "L40S": 362e12,  # NVIDIA L40S data sheet
    "L40": 181e12,  # NVIDIA L40 data sheet
    "L4": 121e12,  # NVIDIA L4 Tensor Core GPU data sheet: 242 with sparsity
    "A10G": 70e12,  # NVIDIA A10G Tensor Core GPU data sheet (17 February 2022, given out by AWS): half an A10's
    "A10": 125e12,  # NVIDIA A10 Tensor Core GPU data sheet
    "RTX 4090": 165e12,  # NVIDIA Ada GPU Architecture whitepaper, appendix A: sums in float32, as torch has them
    "RTX 3090": 71e12,  # NVIDIA Ampere GA102 GPU Architecture whitepaper, appendix A: sums in float32
}
"""Operations a second of dense matrix products with bfloat16 or float16 inputs, as the maker states them.

Where a document gives the number with sparsity alone, it is twice the dense one.
"""
_FLOAT16_PEAKS = {
    "T4": 65e12,  # NVIDIA T4 Tensor Core GPU data sheet
    "V100-SXM2": 125e12,  # NVIDIA V100 Tensor Core GPU data sheet, with NVLink
    "V100-PCIE": 112e12,  # the same
}
"""The same of GPUs whose tensor cores do not take bfloat16."""
_OTHER_MODEL = re.compile(r"\b(MIG|Ti|SUPER|D|Laptop|Max-Q)\b")
"""A part of one of these GPUs, or another that bears its name."""


class Speed:
    """What a log line says of speed.

    Args:
        accelerator: accelerate.Accelerator.
        flops_per_image: operations of a forward and backward pass of an image; None: no MFU.
    """

    def __init__(self, accelerator: Accelerator, flops_per_image: float | None = None):
        name = torch.cuda.get_device_name(accelerator.device) if accelerator.device.type == "cuda" else "cpu"
        self.peak = peak_flops(name, accelerator.mixed_precision)
        self.flops_per_image = flops_per_image
        self.devices = accelerator.num_processes

    def of(self, images: int, seconds: float) -> tuple[dict[str, float], str]:
        """({"images_per_second", "mfu" where it is known}, the same as words).

        Args:
            images: of all processes.
            seconds: that they took.
        """
        rate = images / seconds
        numbers, text = {"images_per_second": round(rate, 1)}, f"{rate:,.0f} images/s"
        if self.peak and self.flops_per_image:
            share = rate * self.flops_per_image / (self.peak * self.devices)
            numbers["mfu"] = round(share, 4)
            text += f"  MFU {share:.0%}"
        return numbers, text


def peak_flops(device_name: str, precision: str | None) -> float | None:
    """Peak operations a second of a GPU in 16 bits, from a table; None for one that is not in it, and in 32 bits."""
    if precision not in ("bf16", "fp16") or _OTHER_MODEL.search(device_name):
        return None
    peaks = _PEAKS if precision == "bf16" else _PEAKS | _FLOAT16_PEAKS
    return next((peak for name, peak in peaks.items() if re.search(rf"\b{name}\b", device_name)), None)


def count_flops(function: Callable[[], object]) -> int:
    """Operations of the matrix products that `function()` runs, its backward passes included.

    On tensors of the device `meta` nothing is computed.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()
