"""Tokenizers that a configuration and weights make whole: their folder, fingerprint and decoding."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from seitpp.runtime.config import from_dict
from seitpp.runtime.files import replacing, write_json
from seitpp.runtime.foreign.conversion import built
from seitpp.runtime.safetensors_file import read_safetensors
from seitpp.runtime.schema import anything, read_described, record, table
from seitpp.runtime.weights import fingerprint_of
from seitpp.tokenizers.sources.decoding.resize import DESCRIBED, Resize
from seitpp.tokenizers.tokenizer import AGAIN
from seitpp.tokens.codebook import embed


class SavedTokenizer(nn.Module):
    """What such networks have in common behind the Tokenizer protocol.

    A subclass sets `name` and `config_class`, takes a configuration alone, and has `codebook` and `pixels`.
    """

    name: ClassVar[str]
    config_class: ClassVar[type]
    codebook: Any

    def __init__(self, config: Any):
        super().__init__()
        self.config = config
        self.resize: Resize = "crop"
        self.image_size = tuple(config.image_size)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How an image file becomes this tokenizer's input."""
        return {"image_size": list(self.image_size), "resize": DESCRIBED[self.resize], "range": [0, 1]}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of weights and preprocessing."""
        return fingerprint_of(self.state_dict(), self.preprocessing)

    def pixels(self, embeddings: Tensor) -> Tensor:
        """Decoder: embeddings (b, c, h, w) to images (b, 3, H, W), not clamped."""
        raise NotImplementedError

    def decode(self, ids: Tensor) -> Tensor:
        """Ids (b, h, w) to images (b, 3, H, W) in [0, 1]."""
        return self.pixels(embed(ids, self.codebook)).clamp(0.0, 1.0)

    def save(self, folder: str | Path) -> None:
        """Write the folder, whole or not at all."""
        from safetensors.torch import save_file

        with replacing(folder) as temporary:
            temporary.mkdir()
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
            save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
            described = {"kind": self.name, "config": asdict(self.config), "resize": self.resize}
            write_json(temporary / "tokenizer.json", described)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises: UserError if a file is missing or broken.
        """
        described = folder / "tokenizer.json"
        fields = read_described(described, record({"config": table(anything)}), AGAIN)["config"]
        config = from_dict(cls.config_class, fields, described)
        file = folder / "model.safetensors"
        return built(lambda: cls(config), read_safetensors(file, AGAIN), file)
