"""AdamW with its parameter groups: every parameter in exactly one group."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from seitpp.training.config import TrainConfig

_NEVER_DECAYED = ("embeddings.weight", "pos_embed", "cls_token", "mask_token")


def parameter_groups(
    model: torch.nn.Module,
    *,
    weight_decay: float,
    layer_of: Callable[[str], int] | None = None,
    layer_decay: float = 1.0,
    layers: int = 0,
) -> list[dict[str, Any]]:
    """Group trainable parameters by weight decay and by learning-rate scale.

    Vectors (biases, gains) are not decayed, nor are token embeddings, learned positions, cls and mask tokens, as in
    BEiT; MAE and the published run decay these. With `layer_of`, the rate of layer i of `layers` is scaled by
    layer_decay^(layers - i) (Clark et al. 2020, ELECTRA; BEiT).

    Args:
        model: the module.
        weight_decay: decay of matrices.
        layer_of: function from parameter name to layer index in [0, layers]; None: all scales are 1.
        layer_decay: factor between neighbouring layers.
        layers: index of the last layer (the head).
    Returns: list of groups for a torch optimizer, each with `lr_scale`.
    """
    groups = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decayed = parameter.ndim > 1 and not any(part in name for part in _NEVER_DECAYED)
        scale = 1.0 if layer_of is None else layer_decay ** (layers - layer_of(name))
        group = groups.setdefault(
            (decayed, scale), {"params": [], "weight_decay": weight_decay if decayed else 0.0, "lr_scale": scale}
        )
        group["params"].append(parameter)
    return list(groups.values())


def make_adamw(groups: Iterable[dict[str, Any]], config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over `groups` with the betas of a TrainConfig; the loop sets the learning rate at each step."""
    fused = all(parameter.device.type in ("cuda", "cpu") for group in groups for parameter in group["params"])
    return torch.optim.AdamW(groups, lr=0.0, betas=config.betas, fused=fused)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the rate `lr` times its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
