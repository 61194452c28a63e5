"""Use what was trained from a program: features and predictions for stores, ids or images."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seitpp.finetune.classifier import Classifier
from seitpp.finetune.load import load_classifier, load_encoder, load_tokenizer_of
from seitpp.mtm.encoder import Pooling, TokenEncoder
from seitpp.mtm.model import MaskedTokenModel
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.tokenize_images import tokenize_images
from seitpp.tokenizers.tokenizer import Tokenizer
from seitpp.tokens.loader import evaluation_batches
from seitpp.tokens.store import TokenStore, open_store
from seitpp.tokens.views import centre

Device = torch.device | str


@dataclass(frozen=True)
class Predictions:
    """The most likely classes of some images.

    Attributes:
        names: class names of each image, the most likely first.
        probabilities: (n, top) float32, of these classes.
    """

    names: list[list[str]]
    probabilities: Tensor

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, float]:
        """{class name: probability} of one image, the most likely first."""
        return dict(zip(self.names[index], self.probabilities[index].tolist(), strict=True))


@torch.no_grad()
def embed(
    model: TokenEncoder | MaskedTokenModel | Classifier | str | Path, data: TokenStore | Tensor, *,
    pooling: Pooling = "mean", batch_size: int = 256, device: Device = "cpu",
) -> Tensor:  # fmt: skip
    """Features of every row of a store, or of ids, in memory; `seitpp embed` writes those of large stores to a file.

        features = embed("runs/mtm", store)

    Args:
        model: an encoder, a model that has one, or a run of `seitpp pretrain` or `seitpp finetune`.
        data: a TokenStore, the folder or URL of one, or ids (n, h, w) int64.
        pooling: "mean" over patches or "cls", both after the encoder's final norm.
        batch_size: rows of a forward pass.
        device: where a model that is loaded here runs.
    Returns: (n, d) float32, on the CPU.
    Raises: UserError if the model and the store belong to different tokenizers.
    """
    if isinstance(model, str | Path):
        model = load_encoder(model, device)
    encoder = model if isinstance(model, TokenEncoder) else model.encoder
    data = _opened(data)
    parts = [
        encoder.pooled(centre(ids, encoder.view), pooling).float().cpu() for ids in _ids(data, batch_size, encoder)
    ]
    return torch.cat(parts)


@torch.no_grad()
def predict(
    model: Classifier | str | Path, data: TokenStore | Tensor | Any, *, tokenizer: Tokenizer | str | Path | None = None,
    top: int = 5, batch_size: int = 256, device: Device = "cpu",
) -> Predictions:  # fmt: skip
    """The most likely classes of every row of a store, of ids, or of images.

        predict("runs/finetune", ["cat.jpg"], tokenizer="runs/tokenizer")[0]

    Args:
        model: a Classifier, or a run of `seitpp finetune`.
        data: a TokenStore, the folder or URL of one, ids (n, h, w) int64, or images as for `tokenize_images`.
        tokenizer: the classifier's; needed for images.
        top: how many classes.
        batch_size: rows of a forward pass.
        device: where models that are loaded here run.
    Raises: UserError if a tokenizer is needed and not given, or another than the classifier's.
    """
    classifier = load_classifier(model, device) if isinstance(model, str | Path) else model
    data = _opened(data)
    if not isinstance(data, TokenStore | Tensor):
        data = _tokenised(data, tokenizer, classifier, batch_size, device)
    elif isinstance(data, TokenStore) and classifier.tokenizer:
        data.check_tokenizer(classifier.tokenizer, "the classifier", classifier.described["codebook_size"])
    parts = [most_likely(classifier, ids, top) for ids in _ids(data, batch_size, classifier)]
    names = [row for part in parts for row in part.names]
    return Predictions(names, torch.cat([part.probabilities for part in parts]))


@torch.no_grad()
def most_likely(classifier: Classifier, ids: Tensor, top: int) -> Predictions:
    """The most likely classes of a batch.

    Args:
        classifier: a Classifier in evaluation mode.
        ids: (b, h, w) int64 on its device, of which it sees the centre.
        top: how many classes; at most all.
    """
    probabilities = classifier(centre(ids, classifier.encoder.view)).float().softmax(dim=1).cpu()
    best = probabilities.topk(min(top, probabilities.shape[1]), dim=1)
    names = classifier.class_names or [str(number) for number in range(probabilities.shape[1])]
    return Predictions([[names[number] for number in row] for row in best.indices.tolist()], best.values)


def _opened(data):
    """A store, where a folder or URL is that of one; else the same."""
    if isinstance(data, str | Path) and ("://" in str(data) or (Path(data) / "store.json").is_file()):
        return open_store(data)
    return data


def _tokenised(images, tokenizer, classifier, batch_size, device):
    if tokenizer is None:
        raise UserError("images need the classifier's tokenizer: give tokenizer=, a run of seitpp train-tokenizer")
    tokenizer = load_tokenizer_of(classifier.tokenizer, tokenizer, device)
    return tokenize_images(images, tokenizer, batch_size=batch_size)


def _ids(data: TokenStore | Tensor, batch_size: int, model: torch.nn.Module) -> Iterator[Tensor]:
    """Batches of ids on the model's device."""
    device = next(model.parameters()).device
    if isinstance(data, TokenStore):
        for batch in evaluation_batches(data, batch_size, device=device):
            yield batch.ids
    else:
        yield from (part.to(device) for part in data.split(batch_size))
