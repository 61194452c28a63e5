"""The encoder that is probed: of a pre-training, of a classifier, or one of the same shape that was never trained."""

from pathlib import Path
from typing import TYPE_CHECKING

from seitpp.finetune.classifier import Classifier
from seitpp.finetune.load import load, model_folder
from seitpp.finetune.start import own_origin
from seitpp.mtm.encoder import EncoderConfig, TokenEncoder, fitting_view
from seitpp.mtm.model import MaskedTokenModel
from seitpp.mtm.stems import PatchStem
from seitpp.runtime.config import from_dict
from seitpp.runtime.errors import UserError
from seitpp.runtime.schema import record
from seitpp.runtime.weights import read_config
from seitpp.tokens.store import TokenStore

if TYPE_CHECKING:
    from seitpp.finetune.probe import ProbeConfig


def open_encoder(name: str, config: "ProbeConfig", store: TokenStore) -> TokenEncoder:
    """The encoder of `config.weights`, or one like it as it was before any training, drawn by torch's generator.

    Args:
        name: "mtm", or "random".
        config: has `weights`, and `encoder` and `view` for where there are none.
        store: the TokenStore that it is to read.
    Raises: UserError if the weights are of another tokenizer or have no encoder.
    """
    shape, view = config.encoder, config.view
    if config.weights is not None:
        encoder, shape, tokenizer, codes = trained_encoder(config.weights)
        store.check_tokenizer(tokenizer, f"the model in {config.weights}", codes)
        if name == "mtm":
            return encoder
        view = encoder.view
    view = fitting_view(view, store.grid, shape.patch_size, store.geometry)
    stem = PatchStem(shape, codebook_size=store.codebook_size, embedding_dim=store.codebook.shape[1])
    untrained = TokenEncoder(shape, stem, view=view)
    stem.start_from(store.codebook, shape)
    return untrained


def feature_origin(name: str, weights: str | Path | None) -> dict[str, str]:
    """Where features come from, as results say it: {"init", "augmentation"}.

    The encoder of a pre-training is "mtm"; of a classifier "classifier", with the augmentation of its pre-training.
    """
    if name != "mtm" or weights is None:
        return {"init": name, "augmentation": ""}
    is_classifier, origin = own_origin(weights)
    return origin | {"init": "classifier"} if is_classifier else origin


def trained_encoder(weights: str | Path) -> tuple[TokenEncoder, EncoderConfig, str, int]:
    """(encoder, its EncoderConfig, fingerprint of its tokenizer, how many codes) of a pre-training or a classifier.

    Raises: UserError if there is no encoder.
    """
    model = load(weights)
    if not isinstance(model, MaskedTokenModel | Classifier):
        raise UserError(f"{weights} is a {type(model).__name__}, which has no encoder: give a run of seitpp pretrain")
    described = read_config(model_folder(weights), record({}))
    shape = described["encoder"] if isinstance(model, Classifier) else described["model"]["encoder"]
    codes = described["codebook_size"]
    return model.encoder, from_dict(EncoderConfig, shape, weights), described["tokenizer"], codes
