"""The segmentation model: a token encoder on the grid of a window, features of several depths, a head.

Shapes: b batch, h w token grid of a window, d width, k classes.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seitpp.downstream.segmentation.heads import HeadConfig, depths_of, make_head
from seitpp.finetune.classifier import StemName, make_stem
from seitpp.mtm.encoder import EncoderConfig, TokenEncoder
from seitpp.runtime.config import from_dict
from seitpp.runtime.errors import UserError
from seitpp.runtime.foreign.conversion import built
from seitpp.runtime.schema import (
    Mismatch,
    Schema,
    anything,
    boolean,
    integer,
    listing,
    one_of,
    optional,
    record,
    table,
    text,
)  # fmt: skip
from seitpp.runtime.weights import config_file, load_weights, read_config, save_weights
from seitpp.tokens.format.manifest_schema import CODES, EMBEDDING_DIM, FINGERPRINT, VIEW

MOST_CLASSES = 255
"""Values of a label map of 8 bits, but for the one that is ignored."""
_SIZES = {
    "view": VIEW, "codebook_size": CODES, "embedding_dim": EMBEDDING_DIM, "classes": integer(1, MOST_CLASSES),
    "stem": one_of("patches", "adapter"), "position_view": VIEW, "learned_positions": boolean,
}  # fmt: skip
_PIXELS = listing(integer(1, 2**20), length=2)
_WINDOWS = record(
    {"size": _PIXELS, "stride": _PIXELS, "short_side": optional(integer(1, 2**20)), "tile": _PIXELS}, closed=True
)
"""How the store that a segmenter learned from cut and encoded images: what its manifest says of windows."""


def _described(value: Any, field: str) -> None:
    names = {
        "encoder": table(anything), "segmenter": table(anything), "tokenizer": FINGERPRINT,
        "mask_classes": listing(text()), "windows": _WINDOWS, "origin": table(text()),
    }  # fmt: skip
    record({**_SIZES, **names})(value, field)
    if len(value["mask_classes"]) != value["classes"]:
        raise Mismatch(f"mask_classes has {len(value['mask_classes'])} names for {value['classes']} classes")


DESCRIBED: Schema = _described
"""What the config.json of a segmenter says; `encoder` is an EncoderConfig, `segmenter` a HeadConfig."""


class Segmenter(nn.Module):
    """Ids of windows (b, h, w) to logits (b, k, h', w'): of UPerNet at four times the patch grid, else at the grid.

    With a linear head the encoder is frozen: it learns nothing, and nothing in it is dropped.

    Args:
        config: an EncoderConfig.
        head: a HeadConfig.
        view: (h, w) tokens of a window.
        codebook_size: K.
        embedding_dim: c.
        classes: k.
        stem: which stem the encoder has.
        position_view: the view that the encoder's weights were trained at; None: `view`.
        learned_positions: whether the encoder's positions are trained.
        drop_path: stochastic depth of the last block.

    Attributes:
        frozen: whether the encoder is.
        mask_classes: names of the classes, once it is read from a folder; else empty.
        tokenizer: fingerprint of its tokenizer, likewise.
        windows: {"size", "stride", "short_side", "tile"} of the windows that it learned from, likewise.
        origin: where it comes from, {"init", "augmentation"}, likewise.
    """

    def __init__(
        self, config: EncoderConfig, head: HeadConfig, *, view: Sequence[int], codebook_size: int, embedding_dim: int,
        classes: int, stem: StemName = "patches", position_view: Sequence[int] | None = None,
        learned_positions: bool = False, drop_path: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        self._built_of = {
            "encoder": asdict(config), "segmenter": asdict(head), "codebook_size": codebook_size,
            "embedding_dim": embedding_dim, "classes": classes, "stem": stem, "learned_positions": learned_positions,
        }  # fmt: skip
        self.frozen = head.kind == "linear"
        self.auxiliary_weight = head.auxiliary
        self.mask_classes: list[str] = []
        self.tokenizer = ""
        self.windows: dict[str, Any] = {}
        self.origin: dict[str, str] = {}
        self.encoder = TokenEncoder(
            config, make_stem(stem, config, codebook_size, embedding_dim), view=view, position_view=position_view,
            learned_positions=learned_positions, final_norm=False, drop_path=drop_path,
        ).requires_grad_(not self.frozen)  # fmt: skip
        self.depths = depths_of(config.depth)
        self.head = make_head(head, width=config.width, classes=classes)

    @property
    def described(self) -> dict[str, Any]:
        """What builds the same segmenter, dropout of whole blocks aside; for config.json."""
        views = {"view": list(self.encoder.view), "position_view": list(self.encoder.position_view)}
        return {**self._built_of, **views}

    def train(self, mode: bool = True) -> "Segmenter":
        """As torch's; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        self.encoder.train(mode and not self.frozen)
        return self

    def both(self, ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """(logits of the head, logits of its auxiliary head: None in evaluation mode and where there is none)."""
        wanted = self.depths[-1:] if self.frozen else self.depths
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            found = self.encoder.forward_intermediates(ids, indices=wanted, intermediates_only=True)
        features = dict(zip(sorted(set(wanted)), found, strict=True))
        return self.head([features[depth] for depth in wanted])

    def forward(self, ids: Tensor) -> Any:
        """In evaluation mode logits (b, k, h', w'); in training what `both` gives."""
        return self.both(ids) if self.training else self.both(ids)[0]

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for layer-wise learning rates: 0 below the blocks, depth + 1 for the head."""
        if name.startswith("encoder.blocks."):
            return int(name.split(".")[2]) + 1
        return 0 if name.startswith("encoder.") else self.layers

    @property
    def layers(self) -> int:
        """Index of the last layer."""
        return len(self.encoder.blocks) + 1


def save_segmenter(
    folder: str | Path, segmenter: Segmenter, *, tokenizer: str, mask_classes: Sequence[str],
    windows: dict[str, Any], origin: dict[str, str],
) -> None:  # fmt: skip
    """Write a segmenter's weights/.

    Args:
        folder: the destination.
        segmenter: the Segmenter.
        tokenizer: fingerprint of the tokenizer whose ids it reads.
        mask_classes: names of the classes, in the order of its logits.
        windows: {"size", "stride", "short_side", "tile"} of the windows that it learned from.
        origin: {"init", "augmentation"}, as results name it.
    """
    described = {
        **segmenter.described, "tokenizer": tokenizer, "mask_classes": list(mask_classes), "origin": origin,
        "windows": {name: windows[name] for name in ("size", "stride", "short_side", "tile")},
    }  # fmt: skip
    save_weights(folder, segmenter.state_dict(), described)


def read_segmenter(folder: str | Path, device: torch.device | str = "cpu", *, drop_path: float = 0.0) -> Segmenter:
    """Read what `save_segmenter` wrote: a Segmenter in evaluation mode, with what its Attributes name.

    Args:
        folder: a run of seitpp.downstream.segmentation.train (one seed's folder) or its weights/.
        device: where it goes.
        drop_path: stochastic depth, for further training.
    Raises: UserError if there are no weights, a file is damaged, or they are of something else.
    """
    if "mask_classes" not in read_config(folder, record({})):
        raise UserError(f"{folder} has weights, but is no segmenter: give a run of seitpp segmentation")
    state, described = load_weights(folder, DESCRIBED)
    config = from_dict(EncoderConfig, described["encoder"], config_file(folder))
    head = from_dict(HeadConfig, described["segmenter"], config_file(folder))
    sizes = {name: described[name] for name in _SIZES}
    segmenter = built(lambda: Segmenter(config, head, **sizes, drop_path=drop_path), state, config_file(folder).parent)
    segmenter.mask_classes, segmenter.tokenizer = described["mask_classes"], described["tokenizer"]
    segmenter.windows, segmenter.origin = described["windows"], described["origin"]
    return segmenter.to(device).eval()
