"""The largest micro-batch that fits into memory; the effective batch stays what it was.

Halving batch_size and doubling accum_iter leaves the samples of a step and their draws (augmentation, masks) as they
are, so losses agree to rounding. Two things do change: dropout, whose generator is asked in another order, and for many
processes that read from behind a URL which draws a sample gets. So the size is kept in the run folder, and a run that
is resumed has the numbers that it would have had.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from seitpp.runtime.errors import UserError
from seitpp.runtime.files import write_json
from seitpp.runtime.run_folder import RunFolder
from seitpp.runtime.schema import integer, read_described, record
from seitpp.training.config import TrainConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

_KEPT = record({"batch_size": integer(1), "accum_iter": integer(1)}, closed=True)


def shrink_to_memory(
    config: TrainConfig, accelerator: "Accelerator", run: RunFolder, attempt: Callable[[int], object]
) -> TrainConfig:
    """Halve the micro-batch until a step fits on all processes.

    Args:
        config: a TrainConfig.
        accelerator: accelerate.Accelerator.
        run: the RunFolder, which keeps the result.
        attempt: function of a micro-batch size that needs the memory of a step; without talk between processes.
    Returns: the configuration with another batch_size and accum_iter, or the same.
    Raises: UserError if not even the smallest one fits.
    """
    from accelerate.utils import find_executable_batch_size

    kept = run.path / "micro_batch.json"
    if kept.exists() and not run.fresh:
        config = replace(config, **read_described(kept, _KEPT, "remove it"))
    size = config.batch_size

    def halve():
        nonlocal size
        if size % 2:
            return 0
        size //= 2
        return size

    try:
        find_executable_batch_size(attempt, starting_batch_size=size, reduce_batch_size_fn=halve)()
    except RuntimeError as error:
        if "reached zero" not in str(error):
            raise
        size = 0
    sizes: Any = accelerator.gather(torch.tensor([size], device=accelerator.device))
    size = int(sizes.min())
    if size == 0:
        raise UserError(
            f"a step does not fit into memory, even with the smallest micro-batch that divides --batch_size "
            f"{config.batch_size} by a power of two: choose a smaller model"
        )
    config = replace(config, batch_size=size, accum_iter=config.accum_iter * config.batch_size // size)
    accelerator.wait_for_everyone()
    if config.dry_run:
        return config
    run.begin()
    if accelerator.is_main_process:
        write_json(kept, {"batch_size": config.batch_size, "accum_iter": config.accum_iter})
    return config


def take_memory(
    model: torch.nn.Module,
    batches: Callable[[TrainConfig], Callable[[int, int], Any]],
    step: Callable[..., tuple[torch.Tensor, Any]],
    config: TrainConfig,
    accelerator: "Accelerator",
    size: int,
) -> None:
    """Take the memory of a step at a micro-batch of `size` and give it back, with room for AdamW and DDP.

    Args:
        model: the module, not yet prepared.
        batches: makes the batches of a configuration, see `fit`.
        step: function (model, batch, 0) to (loss, numbers) that needs the most memory that a step ever does.
        config: a TrainConfig.
        accelerator: accelerate.Accelerator.
        size: samples.
    Raises: what torch raises where memory runs out.
    """
    model.to(accelerator.device).train()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    spare = torch.empty(3, parameters, device=accelerator.device)  # AdamW's two averages, DDP's gradients
    try:
        with accelerator.autocast():
            loss, _ = step(model, batches(replace(config, batch_size=size))(0, 0), 0)
        loss.backward()
    finally:
        model.zero_grad()
        del spare
