"""How fast a training is: images a second and, on a GPU we know, the share of its peak (MFU)."""

import re

import torch

_BF16_PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "A10G": 70e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
    "T4": 65e12,
    "V100": 125e12,
}
"""Operations a second of dense matrix products with 16-bit inputs, as the makers state them (written from memory)."""


class Speed:
    """What a log line says of speed.

    Args:
        accelerator: accelerate.Accelerator.
        flops_per_image: operations of a forward and backward pass of an image; None: no MFU.
    """

    def __init__(self, accelerator, flops_per_image=None):
        name = torch.cuda.get_device_name(accelerator.device) if accelerator.device.type == "cuda" else "cpu"
        self.peak = peak_flops(name, accelerator.mixed_precision)
        self.flops_per_image = flops_per_image
        self.devices = accelerator.num_processes

    def of(self, images, seconds):
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


def peak_flops(device_name, precision):
    """Peak operations a second of a GPU in 16 bits, from a table; None for one that is not in it, and in 32 bits."""
    if precision not in ("bf16", "fp16"):
        return None
    return next((peak for name, peak in _BF16_PEAKS.items() if re.search(rf"\b{name}\b", device_name)), None)


def count_flops(function):
    """Operations of the matrix products that `function()` runs, its backward passes included.

    On tensors of the device `meta` nothing is computed.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()
