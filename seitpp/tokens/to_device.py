"""Tensors on their way to a device."""

import torch


def moved(tensor: torch.Tensor, device: str | torch.device) -> torch.Tensor:
    """A tensor of the CPU on a device; the machine does not wait for a copy to a GPU."""
    device = torch.device(device)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
