"""A tokenizer with fewer codes: another tokenizer, whose rare ids are replaced by the nearest that are kept.

The papers keep 391 of 8,192 codes. A folder of this kind holds the tokenizer that it was made of, whole:

    tokenizer.json   {"kind": "reduced"}
    reduced.json     codes: old id of each new one, rising; map: new id of each old one
    base/            the other tokenizer's folder
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seitpp.runtime.errors import UserError
from seitpp.runtime.files import replacing, write_json
from seitpp.runtime.schema import integer, listing, read_described, record
from seitpp.tokenizers.sources.decoding.resize import Resize
from seitpp.tokenizers.tokenizer import AGAIN, load_tokenizer
from seitpp.tokens.codebook import lookup_among
from seitpp.tokens.format.layout import MOST_CODES
from seitpp.tokens.one_dimensional import geometry_of


class ReducedTokenizer(nn.Module):
    """A tokenizer of fewer codes, behind the Tokenizer protocol.

    Args:
        base: the tokenizer of all codes.
        codes: old id of each new one, (k,) integers, rising.
        mapping: new id of each old one, (K,) integers.
    Raises: ValueError if codes and mapping don't fit the base or each other.
    """

    name = "reduced"

    codes: torch.Tensor
    map: torch.Tensor

    def __init__(self, base: Any, codes: Any, mapping: torch.Tensor):
        super().__init__()
        codes, mapping = torch.as_tensor(codes, dtype=torch.int64), torch.as_tensor(mapping, dtype=torch.int64)
        size, kept = base.codebook_size, len(codes)
        if mapping.shape != (size,) or not 1 <= kept <= size:
            raise ValueError(f"{kept} codes and a map of {tuple(mapping.shape)} don't fit a tokenizer of {size} codes")
        rising = bool((codes.diff() > 0).all()) and int(codes[0]) >= 0 and int(codes[-1]) < size
        if not rising or not torch.equal(mapping[codes], torch.arange(kept)) or int(mapping.max()) >= kept:
            raise ValueError("codes must be rising ids, and map must give each of them its place")
        self.base = base
        self.register_buffer("codes", codes, persistent=False)
        self.register_buffer("map", mapping, persistent=False)
        self.image_size = base.image_size
        self.grid = base.grid
        self.lookup = lookup_among(base.lookup)
        self.geometry = geometry_of(base)
        self.any_size = getattr(base, "any_size", False)  # which a custom class may leave out
        self.codebook_size = kept

    @property
    def codebook(self) -> torch.Tensor:
        """Rows of the kept codes, (k, c) float32."""
        return self.base.codebook[self.codes]

    @property
    def resize(self) -> Resize:
        """What is done with images of another shape: the base says it."""
        return self.base.resize

    @resize.setter
    def resize(self, resize: Resize) -> None:
        self.base.resize = resize

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How an image file becomes this tokenizer's input."""
        return self.base.preprocessing

    @property
    def fingerprint(self) -> str:
        """See `reduced_fingerprint`."""
        return reduced_fingerprint(self.base.fingerprint, self.codes.tolist())

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Images (b, 3, H, W) in [0, 1] to ids (b, h, w) int64."""
        return self.map[self.base.encode(images)]

    def decode(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids (b, h, w) to images (b, 3, H, W) in [0, 1]."""
        return self.base.decode(self.codes[ids])

    def save(self, folder: str | Path) -> None:
        """Write the folder, the base within it, whole or not at all."""
        if not hasattr(self.base, "save"):
            raise UserError(f"the tokenizer {self.base.name!r} has no method save(folder), which a reduced one needs")
        with replacing(folder) as temporary:
            self.base.save(temporary / "base")
            write_json(temporary / "reduced.json", {"codes": self.codes.tolist(), "map": self.map.tolist()})
            write_json(temporary / "tokenizer.json", {"kind": self.name})

    @classmethod
    def load(cls, folder: Path) -> "ReducedTokenizer":
        """Read what `save` wrote.

        Raises: UserError if reduced.json is missing or broken.
        """
        file = Path(folder) / "reduced.json"
        ids = listing(integer(0, MOST_CODES - 1))
        content = read_described(file, record({"codes": ids, "map": ids}), AGAIN)
        try:
            return cls(load_tokenizer(Path(folder) / "base"), content["codes"], content["map"])
        except ValueError as error:
            raise UserError(f"{file} doesn't fit the tokenizer in base/: run seitpp reduce-codebook again") from error


def reduced_fingerprint(fingerprint: str, codes: list[int]) -> str:
    """Fingerprint of a reduced tokenizer: SHA-256 of the JSON list of the old fingerprint and the kept codes.

    A store that is reduced without its tokenizer at hand gets the same one.

    Args:
        fingerprint: of the tokenizer of all codes.
        codes: list of kept ids, rising.
    """
    return hashlib.sha256(json.dumps([fingerprint, list(codes)]).encode()).hexdigest()
