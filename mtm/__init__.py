"""Masked token modelling: masks, model, augmentation pipeline, pre-training, pictures."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch is loaded when it is needed
    import torch

    from seitpp.mtm.model import MaskedTokenModel


def load(path: str | Path, device: "torch.device | str" = "cpu") -> "MaskedTokenModel":
    """A pre-trained model to use: `mtm.load("runs/mtm").encoder.pooled(ids)`.

    Args:
        path: a run of `seitpp pretrain` or `seitpp import-model`, its weights/, or what `seitpp export-model --kind
            hub` wrote.
        device: where it goes.
    Returns: MaskedTokenModel in evaluation mode.
    Raises: UserError if there is no such model.
    """
    from seitpp.mtm.model import load_model

    return load_model(path, device)[0]
