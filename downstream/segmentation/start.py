"""The segmenter that a training begins with: from scratch, from a pre-training, from a classifier, or from another."""

from seitpp.downstream.segmentation.heads import HeadConfig
from seitpp.downstream.segmentation.segmenter import DESCRIBED, Segmenter, read_segmenter
from seitpp.finetune.classifier import StemName
from seitpp.finetune.load import model_folder
from seitpp.finetune.start import origin_of, start_classifier
from seitpp.mtm.encoder import EncoderConfig
from seitpp.runtime.config import from_dict
from seitpp.runtime.errors import UserError
from seitpp.runtime.schema import record
from seitpp.runtime.weights import read_config
from seitpp.tokens.store import TokenStore


def is_segmenter(weights: str | None) -> bool:
    """Whether weights are those of a segmenter."""
    return weights is not None and "mask_classes" in read_config(model_folder(weights), record({}))


def start_segmenter(
    store: TokenStore, mask_classes: list[str], head: HeadConfig, *, weights: str | None, encoder: EncoderConfig,
    stem: StemName, learned_positions: bool, token_dropout: float | None, drop_path: float,
) -> Segmenter:  # fmt: skip
    """The segmenter of a training on a store, initialised; its positions are carried to the grid of a window.

    Args:
        store: the segmentation store.
        mask_classes: names of its classes.
        head: a HeadConfig; with a segmenter's weights theirs counts.
        weights: run of a pre-training, of a classifier or of a segmentation (of several seeds, the first), or its
            weights/; None: from scratch.
        encoder: shape from scratch.
        stem: from scratch.
        learned_positions: from scratch.
        token_dropout: dropout of token embeddings; None: what the encoder's configuration says.
        drop_path: stochastic depth of the last block.
    Raises: UserError if weights are of another tokenizer, or a segmenter's of other classes or another grid.
    """
    if weights is not None and is_segmenter(weights):
        return _from_segmenter(weights, store, mask_classes, drop_path)
    classifier = start_classifier(
        store, mask_classes, weights=weights, encoder=encoder, stem=stem, view=store.grid,
        learned_positions=learned_positions, token_dropout=token_dropout, drop_path=drop_path,
    )  # fmt: skip
    described = classifier.described
    names = ("view", "codebook_size", "embedding_dim", "stem", "position_view", "learned_positions")
    sizes = {name: described[name] for name in names}
    config = from_dict(EncoderConfig, described["encoder"], weights or "the encoder")
    segmenter = Segmenter(config, head, **sizes, classes=len(mask_classes), drop_path=drop_path)
    segmenter.encoder.load_state_dict(classifier.encoder.state_dict())
    return segmenter


def start_of(weights: str | None, head: HeadConfig) -> dict[str, str]:
    """Where a segmenter comes from, as results say it: {"init", "augmentation"}.

    Args:
        weights: as in `start_segmenter`.
        head: a HeadConfig; behind a linear one an encoder without weights was never trained: "random".
    """
    if weights is None and head.kind == "linear":
        return {"init": "random", "augmentation": ""}
    if weights is not None and is_segmenter(weights):
        return dict(read_config(model_folder(weights), DESCRIBED)["origin"])
    return origin_of(weights)


def _from_segmenter(weights, store, mask_classes, drop_path):
    segmenter = read_segmenter(model_folder(weights), drop_path=drop_path)
    store.check_tokenizer(segmenter.tokenizer, f"the segmenter in {weights}", segmenter.described["codebook_size"])
    if segmenter.mask_classes != list(mask_classes):
        raise UserError(f"{weights} knows other classes than {store.folder}: start from its pre-training instead")
    if segmenter.encoder.view != store.grid:
        raise UserError(
            f"{weights} sees windows of {segmenter.encoder.view} tokens, {store.folder} has {store.grid}: make the "
            f"store with windows of {segmenter.windows['size']} pixels"
        )
    return segmenter
