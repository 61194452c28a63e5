"""What a tokenizer is, and how one is loaded: from its folder, or a class of the user's own."""

import hashlib
import importlib
import json
from pathlib import Path
from typing import Protocol

import torch

from training.errors import UserError
from training.files import read_json

KINDS = {
    "vq": "tokens.tokenizers.vq:VQTokenizer",
    "vit_vqgan": "tokens.tokenizers.vit_vqgan:ViTVQGAN",
    "reduced": "tokens.tokenizers.reduced_tokenizer:ReducedTokenizer",
}


class Tokenizer(Protocol):
    """Pixels to ids and back. Every tokenizer is a torch module with these attributes and methods.

    Attributes:
        name: kind of tokenizer, such as "vq".
        image_size: (height, width) of the pixels it takes.
        grid: (h, w) of the ids it makes.
        codebook_size: K.
        codebook: embedding of each code, (k, c).
        lookup: how the nearest code is meant, "cosine" or "euclidean".
        preprocessing: how an image file becomes its input, for the record: a dict that JSON can hold.
        fingerprint: SHA-256 of weights and preprocessing; stores and models of other fingerprints are refused. A
            class of the user's own may leave it out.
    """

    name: str
    image_size: tuple
    grid: tuple
    codebook_size: int
    codebook: torch.Tensor
    lookup: str
    preprocessing: dict
    fingerprint: str

    def encode(self, images):
        """Images (b, 3, height, width) in [0, 1] to ids (b, h, w) int64."""

    def decode(self, ids):
        """Ids (b, h, w) to images (b, 3, height, width) in [0, 1]."""


def load_tokenizer(spec, device="cpu"):
    """Load a tokenizer for use: in evaluation mode, nothing trainable. It needs no network.

    Args:
        spec: the folder that `tokens.import_tokenizer` or `tokens.reduce_codebook` wrote, a run folder of
            `tokens.train_tokenizer` or `weights/` in it; or `package.module:Class`, a class of the user's own that is
            made without arguments.
        device: where it runs.
    Raises: UserError if it is no tokenizer.
    """
    folder = Path(spec)
    if ":" in str(spec) and not folder.exists():
        from tokens.tokenizers.own_tokenizer import make_own_tokenizer

        tokenizer = make_own_tokenizer(str(spec))
    else:
        tokenizer = _load_folder(folder / "weights" if (folder / "weights" / "tokenizer.json").is_file() else folder)
    return tokenizer.to(device).eval().requires_grad_(False)


def _load_folder(folder):
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise UserError(
            f"{folder} is not a tokenizer (no tokenizer.json): train one with seitpp train-tokenizer, import one with "
            f"python -m tokens.import_tokenizer, or give package.module:Class"
        )
    try:
        kind = read_json(file).get("kind")
    except (ValueError, AttributeError) as error:
        raise UserError(f"{file} is damaged (no JSON object): make the tokenizer again") from error
    if kind not in KINDS:
        raise UserError(f"{file} names a tokenizer {kind!r}; known: {', '.join(KINDS)}")
    module, name = KINDS[kind].split(":")
    return getattr(importlib.import_module(module), name).load(folder)


def fingerprint_of(state_dict, preprocessing):
    """SHA-256 over names, shapes and values of weights, and over the preprocessing."""
    digest = hashlib.sha256(json.dumps(preprocessing, sort_keys=True).encode())
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
