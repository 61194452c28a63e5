"""Features of whole stores, for probes: from an encoder, from tokens without one, from pixels."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange

from seitpp.finetune.labelled import LabelledRows
from seitpp.mtm.encoder import EncoderConfig, TokenEncoder, fitting_view
from seitpp.mtm.model import load_model
from seitpp.mtm.stems import PatchStem
from seitpp.runtime.config import from_dict
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.decoding.resize import resize_of
from seitpp.tokenizers.sources.images import open_image_folder, read_all
from seitpp.tokens.loader import evaluation_batches
from seitpp.tokens.store import TokenStore
from seitpp.tokens.views import centre

Autocast = Callable[..., AbstractContextManager]
Device = torch.device | str

FEATURES = ("mtm", "random", "bag-of-tokens", "pixels", "majority")
"""The pre-trained encoder, the same before any training, counts of codes, 16 x 16 pixels, and none at all."""


def make_features(
    name: str, config: Any, train_set: LabelledRows, test_set: LabelledRows, device: Device,
    autocast: Autocast = nullcontext,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    """Features of both stores.

    Args:
        name: a key of FEATURES other than "majority".
        config: a ProbeConfig.
        train_set: LabelledRows.
        test_set: LabelledRows.
        device: where an encoder runs.
        autocast: makes the context that an encoder runs in, such as `accelerator.autocast`.
    Returns: ((rows, d), (rows, d)) float32 arrays over all rows of the training and of the test store.
    """
    sets = (train_set, test_set)
    if name == "bag-of-tokens":
        return tuple(bag_of_tokens(each.store) for each in sets)
    if name == "pixels":
        folders = (config.images, config.eval_images)
        return tuple(pixels(folder, each.store) for folder, each in zip(folders, sets, strict=True))
    encoder = _encoder(name, config, train_set.store).to(device).eval()
    return tuple(encode_store(encoder, each.store, config.batch_size, device, autocast) for each in sets)


@torch.no_grad()
def encode_store(
    encoder: TokenEncoder, store: TokenStore, batch_size: int, device: Device, autocast: Autocast = nullcontext
) -> np.ndarray:
    """Mean over patches of the normed features of every row, (rows, d) float32."""
    parts = []
    for batch in evaluation_batches(store, batch_size, device=device):
        with autocast():
            features = encoder.pooled(centre(batch.ids, encoder.view))
        parts.append(features.float().cpu())
    return torch.cat(parts).numpy()


def bag_of_tokens(store: TokenStore) -> np.ndarray:
    """Square roots of how often each code occurs in a row (Hellinger), (rows, k) float32."""
    ids = store.ids(np.arange(len(store))).flatten(1)
    counts = torch.zeros(len(ids), store.codebook_size).scatter_add_(1, ids, torch.ones_like(ids, dtype=torch.float32))
    return counts.sqrt().numpy()


def pixels(folder: str | Path, store: TokenStore, size: tuple[int, int] = (16, 16)) -> np.ndarray:
    """The images that a store was made of, small: (rows, 3 * height * width) float32 in the store's order."""
    images = open_image_folder(folder)
    place = {key: index for index, key in enumerate(images.keys)}
    missing = [key for key in store.keys() if key not in place]  # noqa: SIM118 (not a dict)
    if missing:
        raise UserError(f"{folder} lacks {missing[0]}, which {store.folder} was made of: name the right folder")
    rows = [place[key] for key in store.keys()]  # noqa: SIM118
    resize = resize_of(store.manifest["preprocessing"])
    return rearrange(read_all(images, rows, size, resize), "n c h w -> n (c h w)").numpy()


def majority_accuracy(train_targets: np.ndarray, test_targets: np.ndarray) -> float:
    """Accuracy of always answering the training set's commonest class."""
    return float((test_targets == np.bincount(train_targets).argmax()).mean())


def _encoder(name, config, store):
    """The pre-trained encoder, or one of the same shape as it was before any training."""
    encoder_config, view = config.encoder, config.view
    if config.weights is not None:
        model, fingerprint = load_model(config.weights)
        store.check_tokenizer(fingerprint, f"the model in {config.weights}", model.described["codebook_size"])
        if name == "mtm":
            return model.encoder
        encoder_config = from_dict(EncoderConfig, model.described["model"]["encoder"], config.weights)
        view = model.encoder.view
    view = fitting_view(view, store.grid, encoder_config.patch_size)
    stem = PatchStem(encoder_config, codebook_size=store.codebook_size, embedding_dim=store.codebook.shape[1])
    encoder = TokenEncoder(encoder_config, stem, view=view)
    stem.start_from(store.codebook, encoder_config)
    return encoder
