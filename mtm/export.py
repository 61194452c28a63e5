"""Write a trained model in a form that others read: the SeiT++ release's file, a timm ViT, or the Hub's layout.

    python -m seitpp.mtm.export --weights runs/mtm --kind timm --out exported/vit
    python -m seitpp.mtm.export --weights runs/mtm --kind hub --out exported/mtm
    python -m seitpp.mtm.export --weights runs/mtm --kind published --token_adapt runs/tokenadapt --out checkpoint.pth
    python -m seitpp.mtm.export --weights runs/tokenadapt --kind published --out tokenadapt.ckpt

It is written beside its place and moved there when it is whole.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from seitpp.mtm.model import describe_model, load_model
from seitpp.runtime.command import run_command
from seitpp.runtime.config import require
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import replacing
from seitpp.runtime.locations import Location
from seitpp.runtime.places import fresh_output
from seitpp.runtime.schema import record
from seitpp.runtime.weights import read_config


@dataclass(frozen=True, kw_only=True)
class ExportModelConfig:
    """Write a trained model in a form that others read."""

    weights: Location
    """run of seitpp.mtm.pretrain or its weights/; for --kind published also of seitpp.tokenadapt.train"""
    kind: Literal["published", "timm", "hub"]
    """published: a file as the SeiT++ release has it; timm: a folder with the encoder as a timm ViT, for users without
    this suite; hub: a folder for the Hugging Face Hub"""
    out: Location
    """file (published) or folder to make"""
    token_adapt: Location | None = None
    """run of seitpp.tokenadapt.train or its weights/, whose frozen f and g go into the file, as in the release's; for
    published"""

    def __post_init__(self):
        fits = self.token_adapt is None or self.kind == "published"
        require(self, "token_adapt", fits, "is for --kind published")


def main(config: ExportModelConfig) -> None:
    """Write the file or folder."""
    out = fresh_output(config, folder=config.kind != "published")
    if config.kind == "published":
        content = _published(config)
        with replacing(out) as file:
            torch.save(content, file)
        print(f"{out}: {len(content.get('model', content))} tensors under their published names")
        return
    model, _ = load_model(config.weights)
    described = describe_model(config.weights)
    with replacing(out) as folder:
        if config.kind == "timm":
            from seitpp.mtm.formats.timm_vit import save_timm

            save_timm(folder, model, described)
        else:
            from seitpp.mtm.formats.hub import save_hub

            save_hub(folder, model, described)
    print(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}")


def _published(config):
    """What a file of the release holds: pre-training under `model`, its settings under `args`; f and g bare."""
    from seitpp.mtm.formats import published
    from seitpp.tokenadapt import published as token_adapt_published
    from seitpp.tokenadapt.model import load_token_adapt

    if "tokenadapt" in read_config(config.weights, record({})):
        if config.token_adapt is not None:
            raise UserError(f"{config.weights} is a TokenAdapt itself: leave --token_adapt out")
        return _plain(token_adapt_published.to_published(load_token_adapt(config.weights)[0]))
    model, tokenizer = load_model(config.weights)
    token_adapt = None
    if config.token_adapt is not None:
        token_adapt, fingerprint = load_token_adapt(config.token_adapt)
        if fingerprint != tokenizer:
            raise UserError(
                f"{config.token_adapt} belongs to tokenizer {fingerprint[:12]}, but {config.weights} to "
                f"{tokenizer[:12]}: give the one that the model was trained with"
            )
    return {"model": _plain(published.to_published(model, token_adapt)), "args": published.heads_of(model)}


def _plain(weights):
    """Tensors that share no memory with others, as torch.save would write all that lies behind them."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in weights.items()}


def cli() -> None:
    """Run the stage from the command line."""
    run_command(main, ExportModelConfig, recipes="export_model")


if __name__ == "__main__":
    cli()
