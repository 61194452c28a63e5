"""A moving average of a model's weights (EMA)."""

from typing import TYPE_CHECKING

from torch import nn

from seitpp.runtime.errors import UserError

if TYPE_CHECKING:
    from accelerate import Accelerator
    from timm.utils.model_ema import ModelEmaV3


def averaged(model: nn.Module, decay: float | None, accelerator: "Accelerator") -> "ModelEmaV3 | None":
    """The average of a model's weights, timm's ModelEmaV3 with a warm-up of the decay; None without a decay.

    It is made before Accelerate prepares the model, whose forward would otherwise be copied bound to the original.

    Args:
        model: the module, not yet prepared.
        decay: of the average at each step, or None.
        accelerator: accelerate.Accelerator.
    Raises: UserError where FSDP will shard the weights.
    """
    if decay is None:
        return None
    from accelerate.utils import DistributedType
    from timm.utils.model_ema import ModelEmaV3

    if accelerator.distributed_type == DistributedType.FSDP:
        raise UserError("--ema_decay does not work with weights that FSDP has sharded: use DDP, or leave it out")
    return ModelEmaV3(model, decay=decay, use_warmup=True).to(accelerator.device)
