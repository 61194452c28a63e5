"""The Accelerator that every stage runs under: one CPU, one GPU or many processes alike; compiled models."""

import os
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator


def make_accelerator(mixed_precision: str | None = "auto") -> "Accelerator":
    """An Accelerator with the precision asked for.

    Args:
        mixed_precision: "no", "bf16", "fp16"; "auto": the launcher's choice, else bf16 on a GPU. On a CPU "auto" lets
            oneDNN make the products, twice as fast as MKL on AMD; one with bf16 units may use them. Models that are
            made after that attend in plain products: fused attention would ask oneDNN for many tiny ones, each of
            which costs more to prepare than to make.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from timm.layers.config import set_fused_attn

    if not torch.cuda.is_available():
        torch.set_float32_matmul_precision("medium" if mixed_precision == "auto" else "highest")
        set_fused_attn(mixed_precision != "auto")
    if mixed_precision == "auto":
        mixed_precision = os.environ.get("ACCELERATE_MIXED_PRECISION")
        if mixed_precision is None:
            mixed_precision = "bf16" if torch.cuda.is_available() else "no"
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != mixed_precision:
        AcceleratorState._reset_state()  # another stage of this process; Accelerate has no public way to choose anew
    accelerator = Accelerator(mixed_precision=mixed_precision)
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is not None and plugin.fsdp_version == 2 and mixed_precision == "bf16":
        from torch.distributed.fsdp import MixedPrecisionPolicy

        # Accelerate's own policy would round the loss to bf16 too, and sum gradients in it.
        plugin.mixed_precision_policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    return accelerator


def compile_in_place(prepared: torch.nn.Module, backend: str = "inductor") -> None:
    """Have torch.compile make the forward and backward passes of a prepared model.

    It is done on the outermost module, so that DDP's exchange of gradients still runs beside the backward pass, and in
    place, so that names of weights stay. Parts whose sizes vary by step (masked patches) become dynamic by themselves.

    Args:
        prepared: the module.
        backend: of torch.compile; "eager" needs no compiler.
    """
    prepared.compile(backend=backend)
