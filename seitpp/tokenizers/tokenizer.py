"""What a tokenizer is, and how one is loaded: from its folder, or a custom class."""

import importlib
from pathlib import Path
from typing import Any, Protocol

import torch

from seitpp.runtime.errors import UserError
from seitpp.runtime.schema import one_of, optional, read_described, record
from seitpp.tokenizers.sources.decoding.resize import RESIZES, Resize, resize_of

KINDS = {
    "vq": "seitpp.tokenizers.networks.vq:VQTokenizer",
    "vit_vqgan": "seitpp.tokenizers.networks.vit_vqgan:ViTVQGAN",
    "lookup_free": "seitpp.tokenizers.networks.lookup_free:LookupFreeTokenizer",
    "titok": "seitpp.tokenizers.networks.titok:TiTok",
    "reduced": "seitpp.tokenizers.networks.reduced:ReducedTokenizer",
}
AGAIN = "get the tokenizer again, or run the command that made it"
"""What to do where a file of a tokenizer is damaged."""


class Tokenizer(Protocol):
    """Pixels to ids and back. Every tokenizer is a torch module with these attributes and methods.

    Attributes:
        name: kind of tokenizer, such as "vq".
        image_size: (height, width) of the pixels it takes.
        grid: (h, w) of the ids it makes.
        codebook_size: K.
        codebook: embedding of each code, (k, c).
        lookup: how the nearest code is meant, "cosine" or "euclidean"; or "signs", where the codes are
            all vectors of -1 and 1 (`seitpp.tokens.codebook.sign_codes`).
        preprocessing: how an image file becomes its input: a dict that JSON can hold. `resize` in it says
            what is done with images of another shape (DESCRIBED in `sources.decoding.resize`); else they are cropped.
        any_size: whether it takes images of other sizes too, in multiples of a token's pixels. A custom class may leave
            it out, which means that it does not.
        geometry: "none" where the places of tokens are no places in the image (one-dimensional tokens): what moves,
            cuts or mixes them by their places is refused then. Left out: "grid".
        fingerprint: SHA-256 of weights and preprocessing; stores and models of other fingerprints are refused. A
            custom class may leave it out.
    """

    name: str
    image_size: tuple
    grid: tuple
    codebook_size: int
    codebook: torch.Tensor
    lookup: str
    preprocessing: dict
    fingerprint: str

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Images (b, 3, height, width) in [0, 1] to ids (b, h, w) int64."""
        ...

    def decode(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids (b, h, w) to images (b, 3, height, width) in [0, 1]."""
        ...


def load_tokenizer(
    spec: str | Path,
    device: torch.device | str = "cpu",
    *,
    resize: Resize | None = None,
    fingerprint: str | None = None,
) -> Any:
    """Load a tokenizer for use: in evaluation mode, nothing trainable. It needs no network.

    Args:
        spec: the folder that `seitpp import-tokenizer` or `seitpp reduce-codebook` wrote, a run folder of
            `seitpp train-tokenizer` or `weights/` in it; or `package.module:Class`, a custom class that is made
            without arguments.
        device: where it runs.
        resize: what is done with images of another shape, other than the tokenizer says; its fingerprint is another
            then.
        fingerprint: of what was made by it, such as a store: where `resize` is None it gets the one of that.
    Raises: UserError if it is no tokenizer, or a custom class that resizes otherwise.
    """
    folder = Path(spec)
    if ":" in str(spec) and not folder.exists():
        from seitpp.tokenizers.networks.custom import make_own_tokenizer

        tokenizer = make_own_tokenizer(str(spec))
        own = resize_of(tokenizer.preprocessing)
        if resize not in (None, own):
            raise UserError(f"{spec} says in its preprocessing that images are resized by {own}: leave out --resize")
    else:
        tokenizer = _load_folder(folder / "weights" if (folder / "weights" / "tokenizer.json").is_file() else folder)
        tokenizer.resize = resize or _resize_with(tokenizer, fingerprint)
    return tokenizer.to(device).eval().requires_grad_(False)


def _resize_with(tokenizer, fingerprint):
    """The resize with which a tokenizer has a fingerprint; its own if it has it with none."""
    own = tokenizer.resize
    if fingerprint is not None:
        for tokenizer.resize in (own, *RESIZES):
            if tokenizer.fingerprint == fingerprint:
                return tokenizer.resize
    return own


def _load_folder(folder):
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise UserError(
            f"{folder} is not a tokenizer (no tokenizer.json): train one with seitpp train-tokenizer, import one with "
            f"python -m seitpp.tokenizers.import_tokenizer, or give package.module:Class"
        )
    about = record({"kind": one_of(*KINDS)}, {"resize": optional(one_of(*RESIZES))})
    content = read_described(file, about, AGAIN)
    kind, resize = content["kind"], content.get("resize")
    module, name = KINDS[kind].split(":")
    tokenizer = getattr(importlib.import_module(module), name).load(folder)
    if resize is not None:
        tokenizer.resize = resize
    return tokenizer
