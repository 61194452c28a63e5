"""The images of a segmentation store and what rows they become, by the configuration of `seitpp tokenize`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.segmentation.images import SegmentationImages
from seitpp.tokenizers.segmentation.layouts import open_segmentation
from seitpp.tokenizers.segmentation.window_rows import window_rows
from seitpp.tokenizers.shard_rows import StoreRows
from seitpp.tokenizers.tokenizer import Tokenizer
from seitpp.tokens.one_dimensional import refuse_geometry
from seitpp.tokens.store import open_store

if TYPE_CHECKING:
    from seitpp.tokenizers.tokenize import TokenizeConfig


def open_windows(config: "TokenizeConfig", tokenizer: Tokenizer) -> tuple[SegmentationImages, StoreRows]:
    """Open a segmentation data set.

    Args:
        config: a TokenizeConfig with targets "masks".
        tokenizer: what encodes the windows.
    Returns: (images, rows of the store).
    Raises: UserError if they can't be opened, or the tokenizer can't encode such windows.
    """
    from seitpp.tokenizers.store_import import read_classes

    windows = {"windows of a segmentation store": "take a tokenizer of a grid"}
    refuse_geometry(tokenizer, f"the tokenizer {config.tokenizer}", windows)
    classes: Any = read_classes(config.mask_classes) if config.mask_classes else None
    images = open_segmentation(
        config.images, layout=config.layout, split=config.split, masks=config.masks, classes=classes,
        ignore=config.mask_ignore,
    )  # fmt: skip
    if not len(images):
        raise UserError(f"{config.images} holds no images of the part {config.split}: check --split")
    if config.like:
        _refuse_other_classes(images, config.like)
    keeps = config.split not in ("train", "training") if config.own_size is None else config.own_size
    return images, window_rows(images, tokenizer, config.windowing, tiles=config.tiles, own_size=keeps)


def _refuse_other_classes(images: SegmentationImages, like: str | Path) -> None:
    """Refuse a data set whose classes are not those of the store that it goes with, as a test set with its training."""
    known = (open_store(like).manifest.get("mask") or {}).get("classes")
    if known is None:
        raise UserError(f"--like {like} is no segmentation store: name one that --targets masks made")
    if known != images.meaning.classes:
        raise UserError(
            f"--like {like} has {len(known)} classes, the masks have {len(images.meaning.classes)} others, or in "
            f"another order: give the same --mask_classes"
        )
