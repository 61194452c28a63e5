"""Masked token modelling: masks, model, augmentation pipeline, pre-training, pictures."""


def load(path, device="cpu"):
    """A pre-trained model to use: `mtm.load("runs/mtm").encoder.pooled(ids)`.

    Args:
        path: a run of `mtm.pretrain` or `mtm.import_model`, its weights/, or what `mtm.export --kind hub` wrote.
        device: where it goes.
    Returns: MaskedTokenModel in evaluation mode.
    Raises: UserError if there is no such model.
    """
    from mtm.model import load_model

    return load_model(path, device)[0]
