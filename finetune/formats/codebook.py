"""The codebook that a classifier with a Stem-Adapter looks ids up in."""

from pathlib import Path

from torch import Tensor

from seitpp.finetune.classifier import Classifier
from seitpp.mtm.model import MaskedTokenModel
from seitpp.mtm.stems import StemAdapter
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.store import open_store


def codebook_of(model: Classifier | MaskedTokenModel, place: str | None) -> Tensor | None:
    """The codebook of a model's ids, (k, c); None for one that has embeddings of its own.

    Args:
        model: a Classifier or a MaskedTokenModel.
        place: a store or a tokenizer of the model's; None: the classifier has the codebook among its weights.
    Raises: UserError if there is none, or it is of another tokenizer.
    """
    if not isinstance(model, Classifier) or not isinstance(model.encoder.stem, StemAdapter):
        return None
    own = own_codebook(model)
    if own is not None:
        return own
    if place is None:
        raise UserError("this classifier reads embeddings (Stem-Adapter): give --codebook, its store or its tokenizer")
    codebook, fingerprint = _read_codebook(place)
    if model.tokenizer and fingerprint != model.tokenizer:
        raise UserError(f"{place} is of tokenizer {fingerprint[:12]}, the classifier of {model.tokenizer[:12]}")
    wanted = model.described["embedding_dim"]
    if codebook.shape[1] != wanted:
        raise UserError(f"{place} has codes of {codebook.shape[1]} channels, the classifier reads {wanted}")
    return codebook


def own_codebook(classifier: Classifier) -> Tensor | None:
    """The codebook among a classifier's weights, (k, c), if there is one."""
    return {name.rpartition(".")[2]: buffer for name, buffer in classifier.named_buffers()}.get("codebook")


def _read_codebook(place):
    """(codebook, fingerprint) of a store or of a tokenizer."""
    if "://" in place or (Path(place) / "store.json").is_file():
        store = open_store(place)
        return store.codebook, store.tokenizer["fingerprint"]
    tokenizer = load_tokenizer(place)
    return tokenizer.codebook.detach(), tokenizer.fingerprint
