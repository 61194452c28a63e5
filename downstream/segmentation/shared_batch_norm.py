"""Batch norm over the windows of all processes, on devices that torch's SyncBatchNorm refuses.

torch.nn.SyncBatchNorm is for GPUs: on a CPU its forward pass raises ValueError. Here a layer's sums are added up over
processes by a differentiable all-reduce, so that several CPU processes train as one with the whole batch does.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _SumOverProcesses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        total = local.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


class SharedBatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d whose statistics, in training, are those of the windows of all processes together.

    Gradients are those of the sum of all processes' losses, as with SyncBatchNorm; DDP makes their mean of it.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(b, c, h, w) to the same shape; every process must call it as often."""
        if not self.training:
            return super().forward(input)
        features = input.float()
        pixels = features.new_tensor([features.numel() / features.shape[1]])
        sums = _summed(torch.cat([pixels, features.sum((0, 2, 3))]))
        count, mean = sums[0].detach(), sums[1:] / sums[0].detach()
        centred = features - mean[:, None, None]
        variance = _summed(centred.square().sum((0, 2, 3))) / count
        self._follow(mean.detach(), variance.detach() * count / (count - 1.0))
        normal = centred * torch.rsqrt(variance + self.eps)[:, None, None]
        return (normal * self.weight[:, None, None] + self.bias[:, None, None]).to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


def share_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with batch norms whose statistics are of all processes: torch's on a GPU, ours elsewhere.

    Args:
        model: its parameters and buffers go on in the new layers, under their names.
        device: where it will run.
    """
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for part in list(model.modules()):
        for name, child in part.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(part, name, _shared(child))
    return model


def _shared(norm: nn.BatchNorm2d) -> SharedBatchNorm2d:
    made = SharedBatchNorm2d(norm.num_features, eps=norm.eps, momentum=norm.momentum)
    made.weight, made.bias = norm.weight, norm.bias
    made.running_mean, made.running_var = norm.running_mean, norm.running_var
    made.num_batches_tracked = norm.num_batches_tracked
    return made.train(norm.training)


def _summed(local: Tensor) -> Tensor:
    """The sum over processes; its gradient is summed too."""
    total: Any = _SumOverProcesses.apply(local)
    return total
