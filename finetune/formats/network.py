"""What an exported program computes: the network of a classifier or an encoder, from ids or from images on.

Shapes: b batch, h w tokens of the view, H W pixels of the tokenizer.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from seitpp.finetune.classifier import Classifier
from seitpp.mtm.model import MaskedTokenModel
from seitpp.tokenizers.tokenizer import Tokenizer
from seitpp.tokens.codebook import embed
from seitpp.tokens.views import centre


class FromIds(nn.Module):
    """Ids (b, h, w) int64 of the view to logits (b, classes), or to the pooled features (b, d) of an encoder.

    Args:
        model: a Classifier, or a MaskedTokenModel, of which the encoder counts.
        codebook: (k, c), that ids are looked up in, for a Classifier with a Stem-Adapter; else None.
    """

    input_name = "ids"

    def __init__(self, model: Classifier | MaskedTokenModel, codebook: Tensor | None = None):
        super().__init__()
        classifies = isinstance(model, Classifier)
        self.output_names = ("logits" if classifies else "features",)
        self.network = model if classifies else model.encoder
        self.view = model.encoder.view
        self.codes = model.described["codebook_size"] if codebook is None else len(codebook)
        self.register_buffer("codebook", codebook)

    def forward(self, ids: Tensor) -> Tensor:
        """What the model makes of ids of its view."""
        inputs = ids if self.codebook is None else embed(ids, self.codebook)
        return self.network(inputs) if isinstance(self.network, Classifier) else self.network.pooled(inputs)

    def example(self, batch: int) -> Tensor:
        """Some input of so many samples."""
        return torch.randint(self.codes, (batch, *self.view), generator=torch.Generator().manual_seed(batch))


class FromImages(nn.Module):
    """Images (b, 3, H, W) in [0, 1] to their ids (b, h', w'), all of the grid, and what FromIds makes of the centre.

    Args:
        tokenizer: a Tokenizer that is a torch module, in evaluation mode.
        network: the FromIds behind it.
    """

    input_name = "images"

    def __init__(self, tokenizer: Tokenizer, network: FromIds):
        super().__init__()
        self.output_names = ("ids", *network.output_names)
        self.tokenizer = tokenizer
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(ids, logits or features)."""
        ids = self.tokenizer.encode(images)
        return ids, self.of_ids(ids)

    def of_ids(self, ids: Tensor) -> Tensor:
        """Logits or features of ids of the whole grid."""
        return self.network(centre(ids, self.network.view))

    def example(self, batch: int) -> Tensor:
        """Some input of so many samples."""
        return torch.rand(batch, 3, *self.tokenizer.image_size, generator=torch.Generator().manual_seed(batch))


Network = FromIds | FromImages


@torch.no_grad()
def drop_unused_weights(network: Network) -> None:
    """Remove the parameters that a pass does not read, such as those of a tokenizer's decoder, in place."""
    with _Reads() as reads:
        network(network.example(1))
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) not in reads.seen:
                delattr(module, name)


class _Reads(TorchFunctionMode):
    """Remembers which tensors torch's functions were given."""

    def __init__(self):
        super().__init__()
        self.seen: set[int] = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.seen |= {id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        return func(*args, **(kwargs or {}))


def describe(network: Network, model: Classifier | MaskedTokenModel, tokenizer: Any) -> dict[str, Any]:
    """What a user of the program must know and no shape tells, as JSON can hold it."""
    described: dict[str, Any] = {
        "input": network.input_name, "outputs": list(network.output_names), "view": list(model.encoder.view)
    }  # fmt: skip
    if isinstance(model, Classifier):
        described |= {"tokenizer": model.tokenizer, "class_names": model.class_names}
    if tokenizer is not None:
        described |= {
            "images": "RGB, float32 in [0, 1]", "image_size": list(tokenizer.image_size),
            "preprocessing": tokenizer.preprocessing,
        }  # fmt: skip
    return described
