"""The classifier that a fine-tuning begins with: from scratch, from a pre-training, or from another classifier."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from seitpp.finetune.classifier import (
    DESCRIBED,
    Classifier,
    StemName,
    classifier_from_pretraining,
    read_classifier,
)
from seitpp.finetune.load import model_folder
from seitpp.mtm.encoder import EncoderConfig, fitting_view
from seitpp.mtm.model import augmentation_of
from seitpp.runtime.config import from_dict
from seitpp.runtime.errors import UserError
from seitpp.runtime.schema import record
from seitpp.runtime.weights import read_config
from seitpp.tokens.store import TokenStore


def start_classifier(
    store: TokenStore, class_names: Sequence[str], *, weights: str | None, encoder: EncoderConfig, stem: StemName,
    learned_positions: bool, view: Sequence[int] | None, token_dropout: float | None, drop_path: float,
) -> Classifier:  # fmt: skip
    """The classifier of a training on a store, initialised.

    Args:
        store: the TokenStore.
        class_names: of the store.
        weights: run of a pre-training or of a classifier (of several seeds, the first), or its weights/; None: from
            scratch.
        encoder: shape from scratch.
        stem: from scratch.
        learned_positions: from scratch.
        view: (h, w) tokens of the input; None: what `weights` see, from scratch the whole grid.
        token_dropout: dropout of token embeddings; None: what the encoder's configuration says.
        drop_path: stochastic depth of the last block.
    Raises: UserError if weights are of another tokenizer, or none of these.
    """
    folder = None if weights is None else model_folder(weights)
    if folder is None:
        classifier = _from_scratch(
            store, len(class_names), encoder=_dropping(encoder, token_dropout), stem=stem, view=view,
            learned_positions=learned_positions, drop_path=drop_path,
        )  # fmt: skip
    else:
        if "class_names" in read_config(folder, record({})):
            classifier, fingerprint = _from_classifier(
                folder, store, class_names, token_dropout=token_dropout, drop_path=drop_path
            )
        else:
            classifier, fingerprint = classifier_from_pretraining(
                folder, classes=len(class_names), drop_path=drop_path, token_dropout=token_dropout
            )
        store.check_tokenizer(fingerprint, f"the model in {weights}", classifier.described["codebook_size"])
        wanted = fitting_view(
            view or classifier.encoder.view, store.grid, classifier.encoder.patch_size, store.geometry
        )
        classifier.encoder.set_view(wanted)
    return classifier


def origin_of(weights: str | None) -> dict[str, str]:
    """Where a classifier comes from, as results say it: {"init", "augmentation"}.

    Args:
        weights: as in `start_classifier`.
    """
    if weights is None:
        return {"init": "scratch", "augmentation": ""}
    is_classifier, origin = own_origin(weights)
    if not is_classifier:
        return origin
    init = "supervised" if origin["init"] == "scratch" else f"{origin['init']}+supervised"
    return origin | {"init": init}


def own_origin(weights: str | Path) -> tuple[bool, dict[str, str]]:
    """Whether weights are a classifier's, and what they themselves come from: {"init", "augmentation"}.

    The encoder of a pre-training comes from "mtm"; a classifier from what its training began with.
    """
    folder = model_folder(weights)
    if "class_names" not in read_config(folder, record({})):
        return False, {"init": "mtm", "augmentation": augmentation_of(folder)}
    origin = read_config(folder, DESCRIBED).get("origin") or {}
    return True, {"init": origin.get("init") or "scratch", "augmentation": origin.get("augmentation", "")}


def _dropping(encoder: EncoderConfig, token_dropout: float | None) -> EncoderConfig:
    return encoder if token_dropout is None else replace(encoder, token_dropout=token_dropout)


def _from_scratch(store, classes, *, encoder, stem, view, learned_positions, drop_path):
    view = fitting_view(view, store.grid, encoder.patch_size, store.geometry)
    try:
        classifier = Classifier(
            encoder, view=view, codebook_size=store.codebook_size, embedding_dim=store.codebook.shape[1],
            classes=classes, stem=stem, drop_path=drop_path, learned_positions=learned_positions,
        )  # fmt: skip
    except ValueError as error:  # a Stem-Adapter makes patches of 2 x 2 tokens
        raise UserError(f"{error}: set --encoder.patch_size 2, or --stem patches") from error
    classifier.encoder.stem.start_from(store.codebook, encoder)
    return classifier


def _from_classifier(folder, store, class_names, *, token_dropout, drop_path):
    """(Classifier with the encoder and norm of another one, fingerprint of its tokenizer).

    The head comes along where the classes are the same, in the same order; else it is new, and the only part that is.
    """
    trained = read_classifier(folder)
    described, state = trained.described, trained.state_dict()
    encoder = _dropping(from_dict(EncoderConfig, described.pop("encoder"), folder), token_dropout)
    described |= {"classes": len(class_names), "drop_path": drop_path}
    if described["stem"] == "adapter":  # a published one may have come without a codebook
        described["codebook_size"] = store.codebook_size
    classifier = Classifier(encoder, **described)
    if trained.class_names != list(class_names):
        state = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
    classifier.load_state_dict({**classifier.state_dict(), **state})
    classifier.encoder.stem.start_from(store.codebook, replace(encoder, embedding_init="normal"))
    return classifier, trained.tokenizer
