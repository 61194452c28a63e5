"""The masked token model in the layout of the Hugging Face Hub: a folder, or a repository to push to and load from.

The folder is a weights/ folder as well: `mtm.load` reads it, and `from_pretrained` reads a run's weights/.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import PyTorchModelHubMixin

from seitpp.mtm.model import DESCRIBED, MaskedTokenModel, ModelConfig
from seitpp.runtime.config import from_dict
from seitpp.runtime.schema import check

CARD = """\
---
{{ card_data }}
---

# A masked token model

Pre-trained on image tokens without labels (SeiT++, arXiv 2312.10105) by seitpp. `config.json` says what it reads: the
`view` (tokens of a grid's centre) of the `grid` of ids in [0, `codebook_size`) that the tokenizer with the fingerprint
`tokenizer` makes of an image.

{{ details | default("", true) }}

With `ids` a (b, h, w) tensor of int64 as large as the view, and `place` this folder, or its name on the Hub:

```python
from seitpp.mtm.formats.hub import HubMaskedTokenModel

model = HubMaskedTokenModel.from_pretrained(place).eval()
features = model.encoder.pooled(ids)
```

`mtm.load(place)` loads a folder, without this class.

"""


class HubMaskedTokenModel(
    MaskedTokenModel,
    PyTorchModelHubMixin,
    library_name="seitpp",
    tags=["masked-token-modelling", "vision-tokens"],
    model_card_template=CARD,
):
    """A MaskedTokenModel with `save_pretrained`, `from_pretrained` and `push_to_hub`.

    Args: those of config.json in a weights/ folder.
        model: dict of a ModelConfig.
        view: (h, w) tokens of the input.
        codebook_size: K.
        embedding_dim: c.
        tokenizer: fingerprint of the tokenizer whose ids it reads.
        grid: (h, w) of the stored ids.
    """

    def __init__(
        self, *, model: dict[str, Any], view: Sequence[int], codebook_size: int, embedding_dim: int, tokenizer: str,
        grid: Sequence[int], augmentation: str = "",
    ):  # fmt: skip
        told = {
            "model": model, "view": [*view], "codebook_size": codebook_size, "embedding_dim": embedding_dim,
            "tokenizer": tokenizer, "grid": [*grid], "augmentation": augmentation,
        }  # fmt: skip
        check(told, DESCRIBED, "config.json", "get the model again")
        config = from_dict(ModelConfig, model, "config.json")
        super().__init__(config, view=view, codebook_size=codebook_size, embedding_dim=embedding_dim)
        self.tokenizer = tokenizer
        self.stored_grid = tuple(grid)
        self.augmentation = augmentation


def save_hub(folder: Path, model: MaskedTokenModel, described: dict[str, Any]) -> None:
    """Write a model in the Hub's layout: model.safetensors, config.json and README.md.

    Args:
        folder: the destination.
        model: a MaskedTokenModel.
        described: its config.json.
    """
    hub_model = HubMaskedTokenModel(**described)
    hub_model.load_state_dict(model.state_dict())
    encoder = model.encoder
    details = (
        f"Here: {encoder.view[0]} x {encoder.view[1]} of {described['grid'][0]} x {described['grid'][1]} tokens, "
        f"K = {described['codebook_size']}, a ViT of {len(encoder.blocks)} blocks of width "
        f"{encoder.width}, tokenizer {described['tokenizer'][:12]}."
    )
    hub_model.save_pretrained(folder, model_card_kwargs={"details": details})
