"""A classifier as a timm VisionTransformer with its head, for timm users without seitpp.

As with encoders (seitpp.mtm.formats.timm_vit), the ViT sees a picture of c channels. A Stem-Adapter's patches overlap,
and timm's don't: there the picture has one pixel a patch, with all 4 x 4 x c numbers that the convolution reads.
"""

from pathlib import Path
from typing import Any

from torch import Tensor

from seitpp.finetune.classifier import Classifier
from seitpp.mtm.formats.timm_vit import timm_config, timm_weights, token_table
from seitpp.mtm.stems import StemAdapter
from seitpp.runtime.weights import save_weights

CARD = """\
---
library_name: timm
pipeline_tag: image-classification
tags: [seitpp, vision-tokens]
---

# A ViT that classifies image tokens

A classifier of seitpp, written as a timm model. It reads {height} x {width} token ids in [0, {codes}), the centre of
what the tokenizer {fingerprint} makes of an image, and gives the logits of {classes} classes, whose names are the
`label_names` of `config.json`.

`tokens.safetensors` holds a vector of {channels} channels for each id, `model.safetensors` the ViT. With `ids` a
(b, {height}, {width}) tensor of int64, in this folder:

```python
import json, pathlib, timm, torch
from safetensors.torch import load_file

config = json.loads(pathlib.Path("config.json").read_text())
vit = timm.create_model(config["architecture"], num_classes=config["num_classes"], **config["model_args"]).eval()
vit.load_state_dict(load_file("model.safetensors"), strict=True)
picture = load_file("tokens.safetensors")["table"][ids].permute(0, 3, 1, 2)
{unfold}logits = vit(picture)
```

`vit.forward_head(vit.forward_features(picture), pre_logits=True)` gives the {features} features that the head reads.
"""
_UNFOLD = """\
picture = torch.nn.functional.unfold(picture, 4, padding=1, stride=2).unflatten(2, {grid})
"""


def save_timm_classifier(folder: Path, classifier: Classifier, codebook: Tensor | None) -> None:
    """Write a classifier as a timm model: config.json as timm's Hub models have it, weights, token table, model card.

    Args:
        folder: the destination.
        classifier: the Classifier.
        codebook: (k, c), that ids are looked up in, where it has a Stem-Adapter; else None.
    """
    from safetensors.torch import save_file

    encoder = classifier.encoder
    table = token_table(encoder) if codebook is None else codebook.detach().cpu().contiguous()
    save_weights(folder, classifier_weights(classifier), classifier_config(classifier))
    save_file({"table": table}, folder / "tokens.safetensors", metadata={"format": "pt"})
    card = CARD.format(
        height=encoder.view[0],
        width=encoder.view[1],
        codes=len(table),
        channels=table.shape[1],
        classes=classifier.head.out_features,
        features=encoder.width,
        fingerprint=classifier.tokenizer[:12] or "that it was trained with",
        unfold=_UNFOLD.format(grid=encoder.patch_grid) if isinstance(encoder.stem, StemAdapter) else "",
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def classifier_config(classifier: Classifier) -> dict[str, Any]:
    """config.json of a classifier as a timm model."""
    encoder, mean = classifier.encoder, classifier.pooling == "mean"
    convolution = encoder.stem.patches
    if isinstance(encoder.stem, StemAdapter):
        shape = {"channels": convolution.weight[0].numel(), "picture": encoder.patch_grid, "patch_size": 1}
    else:
        shape = {"channels": convolution.in_channels}
    config = timm_config(
        encoder, **shape, classes=classifier.head.out_features, global_pool="avg" if mean else "token", fc_norm=mean
    )
    return {**config, "label_names": classifier.class_names} if classifier.class_names else config


def classifier_weights(classifier: Classifier) -> dict[str, Tensor]:
    """State dict of a classifier under timm's names."""
    weights = timm_weights(classifier.encoder)
    kernel = weights["patch_embed.proj.weight"]
    if isinstance(classifier.encoder.stem, StemAdapter):  # as F.unfold orders what the convolution reads
        weights["patch_embed.proj.weight"] = kernel.flatten(1)[..., None, None]
    norm = "fc_norm" if classifier.pooling == "mean" else "norm"
    weights |= {f"{norm}.{name}": tensor for name, tensor in classifier.norm.state_dict().items()}
    return weights | {f"head.{name}": tensor for name, tensor in classifier.head.state_dict().items()}
