"""What a tokenizer is, and how one is loaded from disk."""

import hashlib
import json
from pathlib import Path
from typing import Protocol

import torch

from training.errors import UserError
from training.files import read_json


class Tokenizer(Protocol):
    """Pixels to ids and back. Every tokenizer is a torch module with these attributes and methods.

    Attributes:
        name: kind of tokenizer, such as "vq".
        image_size: (height, width) of the pixels it takes.
        grid: (h, w) of the ids it makes.
        codebook_size: K.
        codebook: embedding of each code, (k, c).
        lookup: how the nearest code is meant, "cosine" or "euclidean".
        fingerprint: SHA-256 of weights and preprocessing; stores and models of other fingerprints are refused.
    """

    name: str
    image_size: tuple
    grid: tuple
    codebook_size: int
    codebook: torch.Tensor
    lookup: str
    fingerprint: str

    def encode(self, images):
        """Images (b, 3, height, width) in [0, 1] to ids (b, h, w) int64."""

    def decode(self, ids):
        """Ids (b, h, w) to images (b, 3, height, width) in [0, 1]."""


def load_tokenizer(folder, device="cpu"):
    """Load a tokenizer for use: in evaluation mode, nothing trainable.

    Args:
        folder: what `tokens.train_tokenizer` wrote: its run folder, or `weights/` in it.
        device: where it runs.
    Raises: UserError if it is no tokenizer.
    """
    from tokens.vq import VQTokenizer

    folder = Path(folder)
    if (folder / "weights" / "tokenizer.json").is_file():
        folder = folder / "weights"
    if not (folder / "tokenizer.json").is_file():
        raise UserError(f"{folder} is not a tokenizer (no tokenizer.json): train one with seitpp train-tokenizer")
    kinds = {"vq": VQTokenizer}
    kind = read_json(folder / "tokenizer.json").get("kind")
    if kind not in kinds:
        raise UserError(f"{folder}/tokenizer.json names a tokenizer {kind!r}; known: {', '.join(kinds)}")
    return kinds[kind].load(folder).to(device).eval().requires_grad_(False)


def fingerprint_of(state_dict, preprocessing):
    """SHA-256 over names, shapes and values of weights, and over the preprocessing."""
    digest = hashlib.sha256(json.dumps(preprocessing, sort_keys=True).encode())
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
