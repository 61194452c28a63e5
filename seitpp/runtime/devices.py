"""The Accelerator that every stage runs under: one CPU, one GPU or many processes alike; compiled models."""

import os
from typing import TYPE_CHECKING

import torch

from seitpp.runtime.errors import UserError

if TYPE_CHECKING:
    from accelerate import Accelerator


def make_accelerator(mixed_precision: str | None = "auto") -> "Accelerator":
    """An Accelerator with the precision asked for.

    Args:
        mixed_precision: "no", "bf16", "fp16"; "auto": the launcher's choice, else bf16 on a GPU. On a CPU "auto" lets
            oneDNN make the products, twice as fast as MKL on AMD; one with bf16 units may use them. Models that are
            made after that attend in plain products: fused attention would ask oneDNN for many tiny ones, each of
            which costs more to prepare than to make.

    Raises: UserError if several processes were started that have no GPU each and were not told to run on CPUs.
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
    _check_launch()
    accelerator = Accelerator(mixed_precision=mixed_precision)
    if accelerator.num_processes < int(os.environ.get("WORLD_SIZE", "1")):
        raise UserError(
            f"{os.environ['WORLD_SIZE']} processes were started on a machine without a GPU, and each takes itself for "
            "the only one: start them with seitpp launch, or set ACCELERATE_USE_CPU=1"
        )
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is not None and plugin.fsdp_version == 2 and mixed_precision == "bf16":
        from torch.distributed.fsdp import MixedPrecisionPolicy

        # Accelerate's own policy would round the loss to bf16 too, and sum gradients in it.
        plugin.mixed_precision_policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    return accelerator


def _check_launch():
    """Refuse more processes than there are GPUs, before torch does in words of its own."""
    rank, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    on_cpus = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "on")
    if rank >= gpus > 0 and not on_cpus:
        raise UserError(
            f"process {rank} of this machine has no GPU, as there are {gpus}: start at most so many, or set "
            "ACCELERATE_USE_CPU=1 for all to run on CPUs"
        )


def compile_in_place(model: torch.nn.Module, backend: str = "inductor") -> None:
    """Have torch.compile make the forward and backward passes of a model's transformer blocks; without any, of all.

    Blocks alike share one compilation, so it takes a fraction of the minutes that a whole model takes, and what varies
    by step (masked patches) lies outside. It is done in place, so that names of weights stay.

    Args:
        model: the module, prepared or not.
        backend: of torch.compile; "eager" needs no compiler.
    """
    from timm.models.vision_transformer import Block

    # Blocks that differ in a rate of drop path, in size, or in training and evaluation, are compiled each by itself.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    blocks = [part for part in model.modules() if isinstance(part, Block)]
    for part in blocks:
        part.compile(backend=backend, dynamic=False)
    if not blocks:
        model.compile(backend=backend)
