"""The classifier of SeiT++: a token encoder, mean over patches, norm, linear head."""

from dataclasses import asdict, replace

from torch import nn

from seitpp.mtm.encoder import LAYER_NORM, EncoderConfig, TokenEncoder
from seitpp.mtm.model import load_model
from seitpp.runtime.weights import load_weights, save_weights


class Classifier(nn.Module):
    """Ids (b, h, w) to logits (b, classes). The mean over patches comes before the norm, as in MAE's fine-tuning.

    Args:
        config: an EncoderConfig.
        view: (h, w) tokens of the input.
        codebook_size: K.
        embedding_dim: c.
        classes: how many.
        drop_path: stochastic depth.
    Source: SeiT++ (arXiv 2312.10105), section 4.
    """

    def __init__(self, config, *, view, codebook_size, embedding_dim, classes, drop_path=0.0):
        super().__init__()
        self.described = {
            "encoder": asdict(config), "view": list(view), "codebook_size": codebook_size,
            "embedding_dim": embedding_dim, "classes": classes,
        }  # fmt: skip
        self.encoder = TokenEncoder(
            config, view=view, codebook_size=codebook_size, embedding_dim=embedding_dim, drop_path=drop_path
        )
        self.encoder.norm = nn.Identity()
        self.norm = LAYER_NORM(config.width)
        self.head = nn.Linear(config.width, classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, ids):
        """Logits, (b, classes)."""
        return self.head(self.norm(self.encoder(ids)[:, 1:].mean(dim=1)))

    def layer_of(self, name):
        """Layer index of a parameter for layer-wise learning rates: 0 below the blocks, depth + 1 for norm and head."""
        if name.startswith("encoder.blocks."):
            return int(name.split(".")[2]) + 1
        return 0 if name.startswith("encoder.") else len(self.encoder.blocks) + 1

    @property
    def layers(self):
        """Index of the last layer."""
        return len(self.encoder.blocks) + 1


def classifier_from_pretraining(folder, *, classes, drop_path=0.0, token_dropout=None):
    """A classifier whose encoder comes from `seitpp.mtm.pretrain`; its norm and head are new.

    Args:
        folder: a run of seitpp.mtm.pretrain or its weights/.
        classes: how many.
        drop_path: stochastic depth.
        token_dropout: dropout of token embeddings; None: as in pre-training.
    Returns: (Classifier, fingerprint of its tokenizer).
    """
    model, fingerprint = load_model(folder)
    described = model.described
    encoder = EncoderConfig(**described["model"]["encoder"])
    classifier = Classifier(
        encoder if token_dropout is None else replace(encoder, token_dropout=token_dropout),
        view=described["view"],
        codebook_size=described["codebook_size"],
        embedding_dim=described["embedding_dim"],
        classes=classes,
        drop_path=drop_path,
    )
    state = {name: value for name, value in model.encoder.state_dict().items() if not name.startswith("norm.")}
    classifier.encoder.load_state_dict(state)
    return classifier, fingerprint


def save_classifier(folder, classifier, *, tokenizer, class_names, origin=None):
    """Write a classifier's weights/.

    Args:
        folder: the destination.
        classifier: the Classifier.
        tokenizer: fingerprint of the tokenizer whose ids it reads.
        class_names: in the order of its logits.
        origin: what results say of it, for those who measure it later: {"init", "augmentation", "label_fraction",
            "train_images"}.
    """
    described = {
        **classifier.described, "tokenizer": tokenizer, "class_names": list(class_names), "origin": origin or {}
    }  # fmt: skip
    save_weights(folder, classifier.state_dict(), described)


def load_classifier(folder, device="cpu"):
    """Load a fine-tuned classifier in evaluation mode.

    Args:
        folder: a run of seitpp.finetune.train (one seed's folder) or its weights/.
        device: where it goes.
    Returns: (Classifier, fingerprint of its tokenizer, class names).
    """
    state, described = load_weights(folder)
    fingerprint, names = described.pop("tokenizer"), described.pop("class_names")
    described.pop("origin", None)
    classifier = Classifier(EncoderConfig(**described.pop("encoder")), **described)
    classifier.load_state_dict(state)
    return classifier.to(device).eval(), fingerprint, names
