"""A moving average of a model's weights (EMA)."""

from seitpp.runtime.errors import UserError


def averaged(model, decay, accelerator):
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
    from timm.utils import ModelEmaV3

    if accelerator.distributed_type == DistributedType.FSDP:
        raise UserError("--ema_decay does not work with weights that FSDP has sharded: use DDP, or leave it out")
    return ModelEmaV3(model, decay=decay, use_warmup=True).to(accelerator.device)
