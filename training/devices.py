"""The Accelerator that every stage runs under: one CPU, one GPU or many processes alike."""

import os

import torch


def make_accelerator(mixed_precision="auto"):
    """An Accelerator with the precision asked for; "auto" is the launcher's choice, else bf16 on a GPU."""
    from accelerate import Accelerator

    if mixed_precision == "auto":
        mixed_precision = os.environ.get("ACCELERATE_MIXED_PRECISION")
        if mixed_precision is None:
            mixed_precision = "bf16" if torch.cuda.is_available() else "no"
    return Accelerator(mixed_precision=mixed_precision)
