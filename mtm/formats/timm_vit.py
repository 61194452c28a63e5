"""The encoder as a timm VisionTransformer, for timm users without seitpp.

The ViT sees a picture of c channels, one token a pixel. What comes before it, embedding and LayerNorm, is a function of
the id alone: a table of k rows.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from seitpp.mtm.encoder import TokenEncoder
from seitpp.mtm.model import MaskedTokenModel
from seitpp.mtm.stems import PatchStem
from seitpp.runtime.weights import save_weights

ARCHITECTURE = "vit_base_patch16_224"
"""timm's name of the plain ViT; `model_args` sets all that its name says."""

CARD = """\
---
library_name: timm
tags: [seitpp, masked-token-modelling, vision-tokens]
---

# A ViT on image tokens

The encoder of a masked token model (SeiT++, arXiv 2312.10105), pre-trained without labels by seitpp and written as a
timm model. It reads {height} x {width} token ids in [0, {codes}), the centre of the {grid_height} x {grid_width} that
the tokenizer {fingerprint} makes of an image, and gives {features} features: the mean over patches after the norm.

`tokens.safetensors` holds a vector of {channels} channels for each id (embedding and LayerNorm together),
`model.safetensors` the ViT. With `ids` a (b, {height}, {width}) tensor of int64, in this folder:

```python
import json, pathlib, timm
from safetensors.torch import load_file

config = json.loads(pathlib.Path("config.json").read_text())
vit = timm.create_model(config["architecture"], num_classes=0, **config["model_args"]).eval()
vit.load_state_dict(load_file("model.safetensors"), strict=True)
table = load_file("tokens.safetensors")["table"]
features = vit(table[ids].permute(0, 3, 1, 2))
```

`vit.forward_features` gives all patches, the cls token first; `num_classes=N` adds a new head.
"""


def save_timm(folder: Path, model: MaskedTokenModel, described: dict[str, Any]) -> None:
    """Write an encoder as a timm model: config.json as timm's Hub models have it, weights, token table, model card.

    Args:
        folder: the destination.
        model: a MaskedTokenModel.
        described: its config.json.
    """
    from safetensors.torch import save_file

    channels = model.encoder.stem.embeddings.embedding_dim
    save_weights(folder, timm_weights(model.encoder), timm_config(model.encoder, channels))
    save_file({"table": token_table(model.encoder)}, folder / "tokens.safetensors", metadata={"format": "pt"})
    card = CARD.format(
        height=model.encoder.view[0],
        width=model.encoder.view[1],
        grid_height=described["grid"][0],
        grid_width=described["grid"][1],
        codes=described["codebook_size"],
        channels=channels,
        features=model.encoder.width,
        fingerprint=described["tokenizer"][:12],
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def timm_config(
    encoder: TokenEncoder, channels: int, *, picture: Sequence[int] | None = None, patch_size: int | None = None,
    classes: int = 0, global_pool: str = "avg", fc_norm: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """config.json of an encoder as a timm model.

    Args:
        encoder: the TokenEncoder.
        channels: of the picture that the ViT sees.
        picture: (h, w) of it; None: the view, a pixel for each token.
        patch_size: pixels a side of a patch; None: that of the encoder.
        classes: outputs of the head; 0: none.
        global_pool: timm's name of the pooling.
        fc_norm: whether the norm comes after it; in pre-training it comes before.
    """
    picture = list(picture or encoder.view)
    return {
        "architecture": ARCHITECTURE,
        "num_classes": classes,
        "num_features": encoder.width,
        "global_pool": global_pool,
        "model_args": {
            "img_size": picture,
            "patch_size": patch_size or encoder.patch_size,
            "in_chans": channels,
            "embed_dim": encoder.width,
            "depth": len(encoder.blocks),
            "num_heads": encoder.blocks[0].attn.num_heads,
            "global_pool": global_pool,
            "fc_norm": fc_norm,
        },
        "pretrained_cfg": {
            "input_size": [channels, *picture],
            "fixed_input_size": True,
            "num_classes": classes,
            "pool_size": None,
            "first_conv": None,  # or timm would convert it from three channels
            "classifier": "head",
        },
    }


def timm_weights(encoder: TokenEncoder) -> dict[str, Tensor]:
    """State dict of an encoder under timm's names, without token embeddings; the cls token has no position."""
    own = ("stem.embeddings.", "stem.embedding_norm.", "stem.codebook")
    weights = {name: tensor for name, tensor in encoder.state_dict().items() if not name.startswith(own)}
    weights = {name.replace("stem.patches.", "patch_embed.proj.", 1): tensor for name, tensor in weights.items()}
    return {**weights, "pos_embed": pad(encoder.pos_embed, (0, 0, 1, 0))[None]}


@torch.no_grad()
def token_table(encoder: TokenEncoder[PatchStem]) -> Tensor:
    """What the patches are made of, for each id: (k, c)."""
    return encoder.stem.embedding_norm(encoder.stem.table).detach().cpu().contiguous()
