"""The published classifiers and ours: one table of names, read in both directions.

SeiT++'s reads ids and has a table of token embeddings; SeiT's reads embeddings and has the Stem-Adapter in its place.
Their positions are trained, one for the cls token among them: here it is part of the cls token.
"""

import math
from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import pad

from seitpp.finetune.classifier import Classifier
from seitpp.mtm.encoder import EncoderConfig
from seitpp.mtm.formats.published import ENCODER, depth_of, usual_heads
from seitpp.mtm.stems import PatchStem
from seitpp.runtime.errors import UserError
from seitpp.runtime.foreign.conversion import fill, translated
from seitpp.tokenadapt.published import claimed, divided, of_whole_model
from seitpp.tokens.code_factors import whole_ids

_TABLE = "token_emb.word_embeddings.weight"
_CODEBOOK = "encoder.stem.codebook"
_ADAPTER = 4
"""Side of the Stem-Adapter's convolution, whose patches are of 2 x 2 tokens."""


def from_published(
    weights: dict[str, Tensor],
    source: str,
    *,
    view: Sequence[int] | None = None,
    heads: int | None = None,
    codebook: Tensor | None = None,
) -> Classifier:
    """A Classifier of published weights, with learned positions. Its shape and its stem are read from theirs.

    Args:
        weights: published name to tensor; those of a frozen TokenAdapt among them are left out.
        source: where they are from, for messages.
        view: (h, w) tokens of the input that they were trained at; None: a square. For others, see `set_view`.
        heads: of the encoder, which no tensor tells; None: 64 channels each.
        codebook: (k, c), which a Stem-Adapter then holds, so that it reads ids as well; else it is not used.
    Returns: Classifier in evaluation mode.
    Raises: UserError if they are of another model.
    """
    _, weights = divided(weights)
    try:
        width, embedding_dim, kernel, _ = weights["patch_embed.proj.weight"].shape
        adapter = _TABLE not in weights
        patch_size = 2 if adapter else kernel
        held = None if codebook is None else len(codebook)
        codebook_size = held if adapter else len(weights[_TABLE])
        table, classes = weights["pos_embed"], len(weights["head.weight"])
        _, places, _ = table.shape
        weights["cls_token"] = weights["cls_token"].float() + table[:, :1].float()
        weights["pos_embed"] = table[0, 1:]
    except (KeyError, ValueError, IndexError, TypeError, RuntimeError) as error:
        raise UserError(f"{source} is no published classifier ({error} is missing or of odd shape)") from error
    if adapter and kernel != _ADAPTER:
        raise UserError(
            f"{source} has neither {_TABLE} nor a Stem-Adapter (patch_embed.proj of {kernel} x {kernel}, "
            f"expected {_ADAPTER} x {_ADAPTER}): it is of another model"
        )
    config = EncoderConfig(
        width=width, depth=depth_of(weights, "blocks"), heads=heads or usual_heads(width, source),
        patch_size=patch_size, code_factors=whole_ids(codebook_size),
    )  # fmt: skip
    classifier = Classifier(
        config, view=view or _square(places - 1, patch_size, source), codebook_size=codebook_size,
        embedding_dim=embedding_dim, classes=classes, stem="adapter" if adapter else "patches",
        learned_positions=True,
    )  # fmt: skip
    state = claimed(weights, _published_names(classifier), source)
    if adapter and codebook is not None:
        state[_CODEBOOK] = codebook
    fill(classifier, state, source)
    return classifier.eval()


def to_published(classifier: Classifier) -> dict[str, Tensor]:
    """Weights of a Classifier under their published names; fixed positions become a table like learned ones.

    Raises: UserError if it pools in another way than the published ones, or has a part that they lack.
    """
    if classifier.pooling != "mean":
        raise UserError(
            f"this classifier pools by {classifier.pooling}, the published ones by mean: it can't be exported as one"
        )
    stem = classifier.encoder.stem
    if isinstance(stem, PatchStem):
        stem.factors.require_whole("this classifier")
    state, names = classifier.state_dict(), _published_names(classifier)
    if unknown := [ours for name, ours in names.items() if not of_whole_model(name)]:
        raise UserError(
            f"this classifier has a {unknown[0]}, which the published ones lack: it can't be exported as one"
        )
    weights = {name: state[ours] for name, ours in names.items()}
    weights["pos_embed"] = pad(classifier.encoder.pos_embed.detach(), (0, 0, 1, 0))[None]
    return weights


def _published_names(classifier: Classifier) -> dict[str, str]:
    """Published name to ours of every weight of a Classifier but the codebook, which the release has in a file."""
    names = {name: name for name in classifier.state_dict() if name != _CODEBOOK}
    return translated(names, ENCODER, "Classifier")


def _square(patches: int, patch_size: int, source: str) -> tuple[int, int]:
    side = math.isqrt(patches)
    if side**2 != patches:
        raise UserError(f"{source}: its {patches} patches are no square: give its view")
    return side * patch_size, side * patch_size
