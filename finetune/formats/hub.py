"""A classifier in the layout of the Hugging Face Hub: a folder, or a repository to push to and load from.

The folder is a weights/ folder as well: `seitpp.load` reads it, and `from_pretrained` reads a run's weights/.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import PyTorchModelHubMixin

from seitpp.finetune.classifier import Classifier
from seitpp.finetune.formats.codebook import own_codebook
from seitpp.mtm.encoder import EncoderConfig
from seitpp.runtime.config import from_dict

CARD = """\
---
{{ card_data }}
---

# A classifier of image tokens

Trained on image tokens (SeiT, arXiv 2303.11114; SeiT++, arXiv 2312.10105) by seitpp. `config.json` says what it reads:
the `view` (tokens of a grid's centre) of the ids that the tokenizer with the fingerprint `tokenizer` makes of an image,
{{ inputs }}. Its `class_names` are in the order of the logits.

{{ details | default("", true) }}

With `{{ argument }}` such a batch, and `place` this folder, or its name on the Hub:

```python
from seitpp.finetune.formats.hub import HubClassifier

classifier = HubClassifier.from_pretrained(place).eval()
logits = classifier({{ argument }})
```

`seitpp.load(place)` loads a folder, without this class.

"""
_IDS = ("ids", "(b, h, w) int64")
_EMBEDDINGS = ("embeddings", "looked up in that tokenizer's codebook: (b, c, h, w) float32")


class HubClassifier(
    Classifier,
    PyTorchModelHubMixin,
    library_name="seitpp",
    pipeline_tag="image-classification",
    tags=["vision-tokens"],
    model_card_template=CARD,
):
    """A Classifier with `save_pretrained`, `from_pretrained` and `push_to_hub`.

    Args: those of config.json in a weights/ folder.
        encoder: dict of an EncoderConfig.
        tokenizer: fingerprint of the tokenizer whose ids it reads.
        class_names: in the order of the logits.
        origin: what results say of it.
        described: the other arguments of a Classifier.
    """

    def __init__(
        self, *, encoder: dict[str, Any], tokenizer: str = "", class_names: Sequence[str] = (),
        origin: dict[str, Any] | None = None, **described: Any,
    ):  # fmt: skip
        super().__init__(from_dict(EncoderConfig, encoder, "config.json"), **described)
        self.tokenizer, self.class_names = tokenizer, list(class_names)
        self.origin = origin or {}


def save_hub_classifier(folder: Path, classifier: Classifier, described: dict[str, Any]) -> None:
    """Write a classifier in the Hub's layout: model.safetensors, config.json and README.md.

    Args:
        folder: the destination.
        classifier: the Classifier.
        described: its config.json.
    """
    hub_model = HubClassifier(**described)
    hub_model.load_state_dict(classifier.state_dict())
    encoder = classifier.encoder
    details = (
        f"Here: {encoder.view[0]} x {encoder.view[1]} tokens, a ViT of {len(encoder.blocks)} blocks of width "
        f"{encoder.width}, {classifier.head.out_features} classes, tokenizer {described['tokenizer'][:12]}."
    )
    reads_ids = described["stem"] == "patches" or own_codebook(classifier) is not None
    argument, inputs = _IDS if reads_ids else _EMBEDDINGS
    words = {"details": details, "argument": argument, "inputs": inputs}
    hub_model.save_pretrained(folder, model_card_kwargs=words)
