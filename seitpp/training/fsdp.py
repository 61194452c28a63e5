"""Weights that FSDP2 has cut into parts, in one piece again for evaluation, pictures and files."""

import copy
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.distributed.tensor import DTensor

from seitpp.runtime.errors import UserError

if TYPE_CHECKING:
    from accelerate import Accelerator


class WholeModel:
    """A model as it is without sharding.

    Make it before Accelerate prepares the model; where nothing is sharded it is the model itself and costs nothing.

    Args:
        model: the module.
        accelerator: accelerate.Accelerator.
    """

    def __init__(self, model: nn.Module, accelerator: "Accelerator"):
        from accelerate.utils import DistributedType

        self.sharded = accelerator.distributed_type == DistributedType.FSDP
        self.model = copy.deepcopy(model).to(accelerator.device) if self.sharded else model
        self.accelerator = accelerator

    def of(self, prepared: nn.Module) -> nn.Module:
        """The whole model with the newest weights of the prepared one; all processes must ask for it at once."""
        if self.sharded:
            plain = self.accelerator.unwrap_model(prepared, keep_torch_compile=False)
            self.model.load_state_dict(whole_state(plain))
        return self.model.eval()


def whole_state(model: nn.Module) -> dict[str, Any]:
    """A module's state dict with the parts of sharded tensors (DTensor) gathered from all processes."""
    return {
        name: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        for name, tensor in model.state_dict().items()
    }


def refuse_sharding(accelerator: "Accelerator", stage: str) -> None:
    """Raise a UserError where FSDP would shard the weights of a stage that moves some of them by itself."""
    from accelerate.utils import DistributedType

    if accelerator.distributed_type == DistributedType.FSDP:
        raise UserError(f"{stage} does not work with FSDP: launch it with DDP (configs/accelerate/ddp_bf16.yaml)")
