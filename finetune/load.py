"""Load what a stage left, whatever it is."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from seitpp.finetune.classifier import Classifier, read_classifier
from seitpp.mtm.encoder import TokenEncoder
from seitpp.mtm.model import MaskedTokenModel, load_model
from seitpp.runtime.errors import UserError
from seitpp.runtime.schema import record
from seitpp.runtime.weights import read_config
from seitpp.tokenadapt.model import TokenAdapt, load_token_adapt
from seitpp.tokenizers.tokenizer import Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from seitpp.finetune.bundle import Bundle

Device = torch.device | str


def load(path: str | Path, device: Device = "cpu") -> "MaskedTokenModel | Classifier | TokenAdapt | Tokenizer | Bundle":
    """Load a model in evaluation mode: a masked token model, a classifier, TokenAdapt, a tokenizer or a bundle.

        model = load("runs/mtm")
        model = load("runs/mine/bundle")

    Args:
        path: a run or its weights/. Of a fine-tuning with several seeds, the first is loaded; name `RUN/seed-1` for
            another. A bundle (of `seitpp export-model`), a folder that holds one as `bundle/`, or
            `hf://OWNER/NAME` for one on the Hugging Face Hub.
        device: where it goes.
    Raises: UserError if there is no model.
    """
    from seitpp.finetune.bundle import is_bundle, load_bundle  # which reads by `predict`, and that by this

    for place in (path, Path(path, "bundle")):
        if is_bundle(place):
            return load_bundle(place, device)
    folder = model_folder(path)
    if any((folder / place / "tokenizer.json").is_file() for place in ("", "weights")):
        return load_tokenizer(str(folder), device)
    described = read_config(folder, record({}))
    if "class_names" in described:
        return read_classifier(folder, device)
    if "tokenadapt" in described:
        return load_token_adapt(folder, device)[0]
    return load_model(folder, device)[0]


def load_encoder(path: str | Path, device: Device = "cpu") -> TokenEncoder:
    """Load the encoder of a pre-training or of a classifier, in evaluation mode.

        features = load_encoder("runs/mtm").pooled(ids)

    Args:
        path: a run of `seitpp pretrain` or `seitpp finetune`, or its weights/.
        device: where it goes.
    Raises: UserError if there is no encoder.
    """
    model: Any = _inner(load(path, device))
    if not isinstance(model, MaskedTokenModel | Classifier):
        raise UserError(f"{path} is a {type(model).__name__}, which has no encoder: give a run of seitpp pretrain")
    return model.encoder


def load_classifier(path: str | Path, device: Device = "cpu") -> Classifier:
    """Load a classifier in evaluation mode; its attributes `class_names` and `tokenizer` say what it knows.

        classifier = load_classifier("runs/finetune")

    Args:
        path: a run of `seitpp finetune` (of several seeds, the first), one seed's folder, or its weights/.
        device: where it goes.
    Raises: UserError if there is no classifier.
    """
    model: Any = _inner(load(path, device))
    if not isinstance(model, Classifier):
        raise UserError(f"{path} is a {type(model).__name__}, no classifier: give a run of seitpp finetune")
    return model


def _inner(model: Any) -> Any:
    """What reads the tokens, of a bundle; else the same."""
    from seitpp.finetune.bundle import Bundle

    return model.model if isinstance(model, Bundle) else model


def load_tokenizer_of(fingerprint: str, tokenizer: Tokenizer | str | Path, device: Device = "cpu") -> Any:
    """The tokenizer of a classifier.

    Args:
        fingerprint: of the classifier's tokenizer; "": it is not known, and any is taken.
        tokenizer: a Tokenizer, or what `load_tokenizer` takes.
        device: where a tokenizer that is loaded here runs.
    Raises: UserError if it is another one.
    """
    loaded: Any = tokenizer
    if isinstance(tokenizer, str | Path):
        loaded = load_tokenizer(tokenizer, device, fingerprint=fingerprint or None)
    if fingerprint and loaded.fingerprint != fingerprint:
        raise UserError(
            f"the classifier belongs to tokenizer {fingerprint[:12]}, this is {loaded.fingerprint[:12]}: give the one "
            "whose tokens it was trained on"
        )
    return loaded


def model_folder(path: str | Path) -> Path:
    """The folder itself, or its first seed where it is a run that trained several."""
    folder = Path(path)
    if (folder / "weights").is_dir() or not folder.is_dir():
        return folder
    seeds = sorted(folder.glob("seed-*"), key=lambda path: (len(path.name), path.name))
    return seeds[0] if seeds else folder
