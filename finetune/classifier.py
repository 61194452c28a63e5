"""The classifiers of SeiT++ and SeiT: an encoder, features pooled over it, norm, linear head."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from seitpp.mtm.encoder import LAYER_NORM, EncoderConfig, Pooling, Stem, TokenEncoder, pool
from seitpp.mtm.model import load_model
from seitpp.mtm.stems import PatchStem, PixelStem, StemAdapter
from seitpp.runtime.config import from_dict
from seitpp.runtime.foreign.conversion import built
from seitpp.runtime.schema import (
    Mismatch,
    Schema,
    anything,
    boolean,
    integer,
    listing,
    number,
    one_of,
    optional,
    record,
    table,
    text,
)  # fmt: skip
from seitpp.runtime.weights import config_file, load_weights, save_weights
from seitpp.tokens.format.manifest_schema import CODES, EMBEDDING_DIM, FINGERPRINT, VIEW

StemName = Literal["patches", "adapter"]
"""patches: ids, as SeiT++; adapter: embeddings of the codebook, as SeiT."""
AnyStemName = StemName | Literal["pixels"]
"""pixels: the images themselves, (b, 3, height, width), as ViT; views and patches are counted in pixels then."""
_SIZES = {
    "view": VIEW, "codebook_size": optional(CODES), "embedding_dim": EMBEDDING_DIM, "classes": integer(1, 1 << 24)
}  # fmt: skip
_KINDS = {
    "stem": one_of("patches", "adapter", "pixels"), "pooling": one_of("mean", "cls"), "position_view": optional(VIEW),
    "learned_positions": boolean,
}  # fmt: skip
_ORIGIN = {
    "init": text(), "augmentation": text(), "label_fraction": number(0, 1), "budget_bytes": optional(integer(0)),
    "train_images": integer(0),
}  # fmt: skip


def _described(value: Any, field: str) -> None:
    names = {"encoder": table(anything), "tokenizer": FINGERPRINT, "class_names": listing(text())}
    record({**_SIZES, **names}, {**_KINDS, "origin": optional(record({}, _ORIGIN))})(value, field)
    if len(value["class_names"]) != value["classes"]:
        raise Mismatch(f"class_names has {len(value['class_names'])} names for {value['classes']} classes")


DESCRIBED: Schema = _described
"""What the config.json of a classifier says; `encoder` is an EncoderConfig."""


class Classifier(nn.Module):
    """Ids (b, h, w) to logits (b, classes). The mean over patches comes before the norm, as in MAE's fine-tuning.

    With SeiT's Stem-Adapter it reads embeddings, (b, c, h, w), and ids if it holds the codebook; with the stem "pixels"
    it reads images, (b, 3, h, w) in [0, 1].

    Args:
        config: an EncoderConfig.
        view: (h, w) tokens of the input.
        codebook_size: K; None: a Stem-Adapter without a codebook, which reads embeddings alone, or pixels.
        embedding_dim: c; 3 of pixels.
        classes: how many.
        stem: which stem the encoder has.
        pooling: what the norm and the head get of the encoder's features.
        position_view: the view that the encoder's weights were trained at; None: `view`.
        learned_positions: positions are trained, as in the published classifiers; ours keep pre-training's fixed ones.
        drop_path: stochastic depth.

    Attributes:
        class_names: in the order of the logits, once it is read from a folder; else empty.
        tokenizer: fingerprint of its tokenizer, likewise.
    Source: SeiT++ (arXiv 2312.10105), section 4; SeiT (arXiv 2303.11114).
    """

    def __init__(
        self, config: EncoderConfig, *, view: Sequence[int], codebook_size: int | None, embedding_dim: int,
        classes: int, stem: AnyStemName = "patches", pooling: Pooling = "mean",
        position_view: Sequence[int] | None = None, learned_positions: bool = False, drop_path: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        self._built_of = {
            "encoder": asdict(config), "codebook_size": codebook_size, "embedding_dim": embedding_dim,
            "classes": classes, "stem": stem, "pooling": pooling, "learned_positions": learned_positions,
        }  # fmt: skip
        self.pooling: Pooling = pooling
        self.class_names: list[str] = []
        self.tokenizer = ""
        self.encoder = TokenEncoder(
            config, _make_stem(stem, config, codebook_size, embedding_dim), view=view, position_view=position_view,
            learned_positions=learned_positions, final_norm=False, drop_path=drop_path,
        )  # fmt: skip
        self.norm = LAYER_NORM(config.width)
        self.head = nn.Linear(config.width, classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    @property
    def described(self) -> dict[str, Any]:
        """What builds the same classifier, dropout of whole blocks aside; for config.json."""
        views = {"view": list(self.encoder.view), "position_view": list(self.encoder.position_view)}
        return {**self._built_of, **views}

    def features(self, inputs: Tensor) -> Tensor:
        """What the head reads, pooled and normed: (b, d)."""
        return self.norm(pool(self.encoder(inputs), self.pooling))

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits, (b, classes)."""
        return self.head(self.features(inputs))

    def layer_of(self, name: str, *, embeddings_with_head: bool = False) -> int:
        """Layer index of a parameter for layer-wise learning rates: 0 below the blocks, depth + 1 for norm and head.

        Args:
            name: of the parameter.
            embeddings_with_head: whether the table of token embeddings counts as part of the head, as in the published
                fine-tuning, where its name matches no rule.
        """
        if name.startswith("encoder.blocks."):
            return int(name.split(".")[2]) + 1
        below = name.startswith("encoder.") and not (embeddings_with_head and ".embeddings." in name)
        return 0 if below else self.layers

    @property
    def layers(self) -> int:
        """Index of the last layer."""
        return len(self.encoder.blocks) + 1


def _make_stem(name: AnyStemName, config: EncoderConfig, codebook_size: int | None, embedding_dim: int) -> Stem:
    if name == "pixels":
        return PixelStem(config)
    if name == "adapter":
        return StemAdapter(config, embedding_dim=embedding_dim, codebook_size=codebook_size)
    if name == "patches" and codebook_size is not None:
        return PatchStem(config, codebook_size=codebook_size, embedding_dim=embedding_dim)
    raise ValueError(f"stem must be patches, with a codebook_size, adapter or pixels; got {name!r}, {codebook_size}")


def classifier_from_pretraining(
    folder: str | Path, *, classes: int, view: Sequence[int] | None = None, drop_path: float = 0.0,
    token_dropout: float | None = None,
) -> tuple[Classifier, str]:  # fmt: skip
    """A classifier whose encoder comes from `seitpp.mtm.pretrain`; its norm and head are new.

    Args:
        folder: a run of seitpp.mtm.pretrain or its weights/.
        classes: how many.
        view: (h, w) tokens of the input; None: as in pre-training.
        drop_path: stochastic depth.
        token_dropout: dropout of token embeddings; None: as in pre-training.
    Returns: (Classifier, fingerprint of its tokenizer).
    """
    model, fingerprint = load_model(folder)
    described = model.described
    encoder = from_dict(EncoderConfig, described["model"]["encoder"], folder)
    classifier = Classifier(
        encoder if token_dropout is None else replace(encoder, token_dropout=token_dropout),
        view=view or described["view"],
        position_view=described["view"],
        codebook_size=described["codebook_size"],
        embedding_dim=described["embedding_dim"],
        classes=classes,
        drop_path=drop_path,
    )
    state = {name: value for name, value in model.encoder.state_dict().items() if not name.startswith("norm.")}
    classifier.encoder.load_state_dict(state)
    return classifier, fingerprint


def save_classifier(
    folder: str | Path, classifier: Classifier, *, tokenizer: str, class_names: Sequence[str],
    origin: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """Write a classifier's weights/.

    Args:
        folder: the destination.
        classifier: the Classifier.
        tokenizer: fingerprint of the tokenizer whose ids it reads.
        class_names: in the order of its logits.
        origin: what results say of it, for those who measure it later: {"init", "augmentation", "label_fraction",
            "budget_bytes", "train_images"}.
    """
    described = {
        **classifier.described, "tokenizer": tokenizer, "class_names": list(class_names), "origin": origin or {}
    }  # fmt: skip
    save_weights(folder, classifier.state_dict(), described)


def read_classifier(folder: str | Path, device: torch.device | str = "cpu") -> Classifier:
    """Read what `save_classifier` wrote: a Classifier in evaluation mode, with its class names and tokenizer.

    Args:
        folder: a run of seitpp.finetune.train (one seed's folder) or its weights/.
        device: where it goes.
    Raises: UserError if there are no weights, a file is damaged, or they are of something else.
    """
    state, described = load_weights(folder, DESCRIBED)
    config = from_dict(EncoderConfig, described["encoder"], config_file(folder))
    sizes = {name: described[name] for name in (*_SIZES, *_KINDS) if name in described}
    classifier = built(lambda: Classifier(config, **sizes), state, config_file(folder).parent)
    classifier.class_names, classifier.tokenizer = described["class_names"], described["tokenizer"]
    return classifier.to(device).eval()
