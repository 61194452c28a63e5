"""Train vision models from one percent of the storage: SeiT, TokenAdapt, ColorAdapt and SeiT++.

Images become discrete tokens once, the tokens are stored, and everything after that reads tokens:

    import seitpp

    store = seitpp.open_store("stores/train")               # what `seitpp tokenize` made
    images = seitpp.decode(store.ids([0, 1, 2]), "runs/tokenizer")
    features = seitpp.embed("runs/mtm", store)
    seitpp.predict("runs/finetune", ["cat.jpg"], tokenizer="runs/tokenizer")[0]
    seitpp.load("runs/mine/bundle").predict("cat.jpg")[0]   # tokenizer and model in one, `export-model --kind bundle`

The names below are the library's front door; `seitpp --help` lists the commands. Importing this package imports nothing
heavy: each name brings what it needs when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seitpp.finetune.bundle import Bundle as Bundle
    from seitpp.finetune.load import load as load
    from seitpp.finetune.load import load_classifier as load_classifier
    from seitpp.finetune.load import load_encoder as load_encoder
    from seitpp.finetune.predict import Predictions as Predictions
    from seitpp.finetune.predict import embed as embed
    from seitpp.finetune.predict import predict as predict
    from seitpp.mtm.augmentation.augment import Augment as Augment
    from seitpp.mtm.augmentation.augment import AugmentConfig as AugmentConfig
    from seitpp.runtime.errors import UserError as UserError
    from seitpp.tokenizers.tokenize_images import decode as decode
    from seitpp.tokenizers.tokenize_images import tokenize_images as tokenize_images
    from seitpp.tokenizers.tokenizer import load_tokenizer as load_tokenizer
    from seitpp.tokens.dataset import TokenDataset as TokenDataset
    from seitpp.tokens.loader import TokenLoader as TokenLoader
    from seitpp.tokens.store import open_store as open_store

_PLACES = {
    "Augment": "seitpp.mtm.augmentation.augment",
    "AugmentConfig": "seitpp.mtm.augmentation.augment",
    "Bundle": "seitpp.finetune.bundle",
    "Predictions": "seitpp.finetune.predict",
    "TokenDataset": "seitpp.tokens.dataset",
    "TokenLoader": "seitpp.tokens.loader",
    "UserError": "seitpp.runtime.errors",
    "decode": "seitpp.tokenizers.tokenize_images",
    "embed": "seitpp.finetune.predict",
    "load": "seitpp.finetune.load",
    "load_classifier": "seitpp.finetune.load",
    "load_encoder": "seitpp.finetune.load",
    "load_tokenizer": "seitpp.tokenizers.tokenizer",
    "open_store": "seitpp.tokens.store",
    "predict": "seitpp.finetune.predict",
    "tokenize_images": "seitpp.tokenizers.tokenize_images",
}
__all__ = [
    "Augment",
    "AugmentConfig",
    "Bundle",
    "Predictions",
    "TokenDataset",
    "TokenLoader",
    "UserError",
    "decode",
    "embed",
    "load",
    "load_classifier",
    "load_encoder",
    "load_tokenizer",
    "open_store",
    "predict",
    "tokenize_images",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'seitpp' has no attribute {name!r}")
    value = getattr(import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
