"""A bundle: a tokenizer and the model that reads its tokens: one folder, images in, classes or features out.

    bundle = seitpp.load("runs/mine/bundle")          # or hf://owner/name
    bundle.predict(["cat.jpg"])[0]                    # {"cat": 0.93, …}
    bundle.embed(["cat.jpg", "dog.jpg"])              # (2, d)

`seitpp export-model` writes it (--kind bundle): bundle.json, tokenizer/, model/ (safetensors and JSON), README.md.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seitpp.finetune.classifier import Classifier, read_classifier
from seitpp.finetune.predict import Predictions, embed, predict
from seitpp.mtm.encoder import Pooling
from seitpp.mtm.model import MaskedTokenModel, load_model
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import write_json
from seitpp.runtime.schema import integer, one_of, read_described, record, text
from seitpp.runtime.weights import read_config, save_weights
from seitpp.tokenizers.tokenize_images import tokenize_images
from seitpp.tokenizers.tokenizer import Tokenizer, load_tokenizer

FILE = "bundle.json"
VERSION = 1
_AGAIN = "get the bundle again, or write it anew with seitpp export-model --kind bundle"
_SCHEMA = record(
    {"format": one_of("seitpp-bundle"), "version": integer(1), "kind": one_of("classifier", "mtm")},
    {"tokenizer": text()},
)
HUB = "hf://"

_CARD = """\
---
library_name: seitpp
pipeline_tag: {pipeline}
tags: [vision-tokens]
license: other
---

# {title}

Images become {tokens} tokens each, which a ViT of {blocks} blocks of width {width} reads (SeiT, arXiv 2303.11114;
SeiT++, arXiv 2312.10105). Tokenizer and model lie in this folder as safetensors and JSON; nothing in it is a program.

```python
import seitpp                        # pip install seitpp

model = seitpp.load(PLACE)           # this folder, or "hf://OWNER/NAME"
{use}
```

{command}The licence is that of the images and of the tokenizer's weights: say which here.
"""
_PREDICT = 'model.predict(["cat.jpg"])[0]        # the most likely classes with their probabilities\n'
_EMBED = 'model.embed(["cat.jpg"])             # features, (1, {width})'
_COMMAND = "On a command line: `seitpp predict cat.jpg --classifier PLACE`.\n\n"


class Bundle:
    """A tokenizer with a classifier, or with a pre-trained model that gives features.

    Attributes:
        tokenizer: a Tokenizer.
        model: a Classifier or a MaskedTokenModel, in evaluation mode on the same device.
    """

    def __init__(self, tokenizer: Tokenizer, model: Classifier | MaskedTokenModel) -> None:
        self.tokenizer = tokenizer
        self.model = model

    @property
    def class_names(self) -> list[str]:
        """In the order of the logits; [] of a model without classes."""
        return self.model.class_names if isinstance(self.model, Classifier) else []

    def predict(self, images: Any, *, top: int = 5, batch_size: int = 64) -> Predictions:
        """The most likely classes of images.

        Args:
            images: one path, or what `seitpp.tokenize_images` takes.
            top: how many classes.
            batch_size: images per forward pass.
        Raises: UserError if the model has no classes, or an image can't be decoded.
        """
        if not isinstance(self.model, Classifier):
            raise UserError("this bundle has no classifier, only features: call embed, or fine-tune it first")
        return predict(self.model, self._ids(images, batch_size), top=top, batch_size=batch_size)

    def embed(self, images: Any, *, pooling: Pooling = "mean", batch_size: int = 64) -> Tensor:
        """Features of images, (n, d) float32 on the CPU.

        Args:
            images: one path, or what `seitpp.tokenize_images` takes.
            pooling: "mean" over patches or "cls".
            batch_size: images per forward pass.
        Raises: UserError if an image can't be decoded.
        """
        return embed(self.model, self._ids(images, batch_size), pooling=pooling, batch_size=batch_size)

    def _ids(self, images: Any, batch_size: int) -> Tensor:
        one_file = isinstance(images, str | Path) and Path(images).is_file()
        return tokenize_images([images] if one_file else images, self.tokenizer, batch_size=batch_size)  # type: ignore[return-value]


def save_bundle(folder: str | Path, model_folder: str | Path, tokenizer: str | Path, *, title: str) -> Bundle:
    """Write a bundle into an empty folder.

    Args:
        folder: the destination, which is there.
        model_folder: weights of a classifier or of a pre-training, or a run that has them.
        tokenizer: run or folder of the model's tokenizer.
        title: of the model card.
    Returns: what was written, read again.
    Raises: UserError if the tokenizer is another than the model's, or is a class of the user's that can't be saved.
    """
    folder = Path(folder)
    model, belongs, described = _read_model(model_folder)
    made_by = load_tokenizer(tokenizer, fingerprint=belongs or None)
    if belongs and made_by.fingerprint != belongs:
        raise UserError(
            f"{tokenizer} is tokenizer {made_by.fingerprint[:12]}, {model_folder} belongs to {belongs[:12]}: give that"
        )
    if not hasattr(made_by, "save"):
        raise UserError(f"{tokenizer} has no method save(folder), so it can't go into a bundle: add one to the class")
    made_by.save(folder / "tokenizer")
    save_weights(folder / "model", model.state_dict(), described)
    kind = "classifier" if isinstance(model, Classifier) else "mtm"
    about = {"format": "seitpp-bundle", "version": VERSION, "kind": kind, "tokenizer": made_by.fingerprint}
    write_json(folder / FILE, about)
    (folder / "README.md").write_text(_card(model, made_by, title), encoding="utf-8")
    return load_bundle(folder)


def load_bundle(place: str | Path, device: torch.device | str = "cpu") -> Bundle:
    """Read a bundle.

    Args:
        place: its folder, or `hf://OWNER/NAME` for one on the Hugging Face Hub.
        device: where it goes.
    Raises: UserError if a file is missing or damaged, or tokenizer and model do not belong together.
    """
    folder = _downloaded(str(place)) if str(place).startswith(HUB) else Path(place)
    about = read_described(folder / FILE, _SCHEMA, _AGAIN)
    if about["version"] > VERSION:
        raise UserError(f"{folder} is a bundle of version {about['version']}, this seitpp reads {VERSION}: update it")
    model, belongs, _ = _read_model(folder / "model")
    tokenizer = load_tokenizer(folder / "tokenizer", device, fingerprint=belongs or None)
    if belongs and tokenizer.fingerprint != belongs:
        raise UserError(f"{folder}: its model belongs to another tokenizer than lies there: {_AGAIN}")
    return Bundle(tokenizer, model.to(device))


def is_bundle(place: str | Path) -> bool:
    """Whether a place is a bundle, as far as its name or its bundle.json tells."""
    return str(place).startswith(HUB) or (Path(place) / FILE).is_file()


def _read_model(folder: str | Path) -> tuple[Classifier | MaskedTokenModel, str, dict[str, Any]]:
    """(model in evaluation mode, fingerprint of its tokenizer, its config.json)."""
    described = read_config(folder, record({}))
    if "class_names" in described:
        model = read_classifier(folder)
        return model, model.tokenizer, described
    if "tokenadapt" in described:
        raise UserError(f"{folder} is a TokenAdapt: a bundle takes a run of seitpp finetune or pretrain")
    return *load_model(folder), described


def _card(model: Classifier | MaskedTokenModel, tokenizer: Tokenizer, title: str) -> str:
    encoder, has_classes = model.encoder, isinstance(model, Classifier)
    return _CARD.format(
        pipeline="image-classification" if has_classes else "image-feature-extraction", title=title,
        tokens=f"{tokenizer.grid[0]} x {tokenizer.grid[1]}", blocks=len(encoder.blocks), width=encoder.width,
        use=(_PREDICT if has_classes else "") + _EMBED.format(width=encoder.width),
        command=_COMMAND if has_classes else "",
    )  # fmt: skip


def _downloaded(place: str) -> Path:
    """The local copy of a repository of the Hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name = place.removeprefix(HUB)
    patterns = [FILE, "README.md", "tokenizer/*", "tokenizer/**/*", "model/*"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{place} can't be fetched ({reason}): check the name, the network, and hf auth login"
        ) from error
