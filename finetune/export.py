"""Write a trained model in a form that others read: a bundle, the release's file, a timm ViT, the Hub's layout, ONNX.

    seitpp export-model --weights runs/finetune --kind bundle --tokenizer runs/tokenizer --out bundle
    seitpp export-model --weights runs/finetune --kind onnx --tokenizer runs/tokenizer --out model.onnx
    seitpp export-model --weights runs/finetune --kind onnx --out from-ids.onnx
    seitpp export-model --weights runs/finetune --kind program --out model.pt2
    seitpp export-model --weights runs/finetune --kind hub --results '[runs/robustness]' --out exported/classifier
    seitpp export-model --weights runs/mtm --kind timm --out exported/vit
    seitpp export-model --weights runs/mtm --kind published --token_adapt runs/tokenadapt --out checkpoint.pth
    seitpp export-model --weights runs/tokenadapt --kind published --out tokenadapt.ckpt

It is written beside its place and moved there when it is whole, and found to compute what the model does.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from seitpp.finetune.classifier import Classifier
from seitpp.finetune.formats.codebook import codebook_of
from seitpp.finetune.load import load, model_folder
from seitpp.mtm.model import MaskedTokenModel, load_model
from seitpp.runtime.command import run_command
from seitpp.runtime.config import require
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import replacing
from seitpp.runtime.locations import Location
from seitpp.runtime.places import fresh_output
from seitpp.runtime.schema import record
from seitpp.runtime.weights import read_config
from seitpp.tokenizers.tokenizer import load_tokenizer


@dataclass(frozen=True, kw_only=True)
class ExportModelConfig:
    """Write a trained model in a form that others read."""

    weights: Location
    """run of seitpp finetune (of several seeds, the first) or pretrain, or its weights/; for --kind published also of
    train-tokenadapt"""
    kind: Literal["published", "bundle", "timm", "hub", "onnx", "program"]
    """bundle: a folder with tokenizer and model, which seitpp predict and seitpp.load take; published: a file
    as the SeiT++ release has it; timm: a folder with a timm ViT, for users without this suite; hub: a folder for the
    Hugging Face Hub; onnx: an ONNX graph; program: a program of torch.export (.pt2)"""
    out: Location
    """file (published, onnx, program) or folder to make"""
    token_adapt: Location | None = None
    """run of seitpp.tokenadapt.train or its weights/, whose frozen f and g go into the file, as in the release's; for
    published MTM models"""
    tokenizer: Location | None = None
    """the model's tokenizer: what is written takes images instead of ids; for bundle, onnx and program"""
    codebook: Location | None = None
    """store or tokenizer in whose codebook ids are looked up, for a classifier with a Stem-Adapter that has none of its
    own; not needed with --tokenizer"""
    results: tuple[Location, ...] = ()
    """run folders (probe, robustness, …) whose results.csv goes onto the model card, beside that of the model's own
    run; for bundle, timm and hub"""

    def __post_init__(self):
        require(self, "tokenizer", self.tokenizer or self.kind != "bundle", "but --kind bundle needs it")
        for field, kinds in _ONLY_FOR.items():
            fits = not getattr(self, field) or self.kind in kinds
            require(self, field, fits, f"is for --kind {' and '.join(kinds)}")


_ONLY_FOR = {
    "token_adapt": ("published",),
    "tokenizer": ("bundle", "onnx", "program"),
    "codebook": ("timm", "onnx", "program"),
    "results": ("bundle", "timm", "hub"),
}


def main(config: ExportModelConfig) -> None:
    """Write the file or folder."""
    out = fresh_output(config, folder=config.kind in ("bundle", "timm", "hub"))
    write = {
        "bundle": _bundle,
        "published": _published,
        "timm": _folder,
        "hub": _folder,
        "onnx": _program,
        "program": _program,
    }
    with replacing(out) as place:
        said = write[config.kind](config, place)
    print(f"{out}: {said}")


def _bundle(config, folder):
    """Tokenizer and model in one folder, read again after writing, with what was measured on its card."""
    from seitpp.finetune.bundle import save_bundle
    from seitpp.finetune.formats.card import results_of_model, write_measured

    folder.mkdir()
    name = Path(config.out).name
    bundle = save_bundle(folder, model_folder(config.weights), config.tokenizer, title=name)
    results = results_of_model(model_folder(config.weights), config.results)
    write_measured(folder / "README.md", results, name)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    classes = f"{len(bundle.class_names)} classes" if bundle.class_names else "features"
    return f"tokenizer and model, {classes}, {size / 1e6:.1f} MB; seitpp.load({str(config.out)!r}) loads it"


def _published(config, file):
    """A file of the release: models under `model`, their settings under `args`; f and g bare."""
    content = _published_content(config)
    torch.save(content, file)
    return f"{len(content.get('model', content))} tensors under their published names"


def _published_content(config):
    from seitpp.finetune import published as classifier_published
    from seitpp.mtm.formats import published
    from seitpp.tokenadapt import published as token_adapt_published
    from seitpp.tokenadapt.model import TokenAdapt, load_token_adapt

    model: Any = load(config.weights)
    if isinstance(model, TokenAdapt | Classifier) and config.token_adapt is not None:
        raise UserError(f"{config.weights} is a {type(model).__name__}, no MTM model: leave --token_adapt out")
    if isinstance(model, TokenAdapt):
        return _plain(token_adapt_published.to_published(model))
    if isinstance(model, Classifier):
        heads = model.described["encoder"]["heads"]
        return {"model": _plain(classifier_published.to_published(model)), "args": {"num_heads": heads}}
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


def _folder(config, folder):
    """A timm model or one for the Hub, with what was measured on its card."""
    from seitpp.finetune.formats.card import results_of_model, write_measured

    model = _model(config)
    save = _save_timm if config.kind == "timm" else _save_hub
    save(config, model, folder)
    results = results_of_model(model_folder(config.weights), config.results)
    write_measured(folder / "README.md", results, Path(config.out).name)
    files = ", ".join(sorted(path.name for path in folder.iterdir()))
    return f"{files}; {len(results)} measured numbers on its card" if len(results) else files


def _save_timm(config, model, folder):
    if isinstance(model, Classifier):
        from seitpp.finetune.formats.timm_vit import save_timm_classifier

        save_timm_classifier(folder, model, codebook_of(model, config.codebook))
    else:
        from seitpp.mtm.formats.timm_vit import save_timm

        save_timm(folder, model, _described(config))


def _save_hub(config, model, folder):
    if isinstance(model, Classifier):
        from seitpp.finetune.formats.hub import save_hub_classifier

        save_hub_classifier(folder, model, _described(config))
    else:
        from seitpp.mtm.formats.hub import save_hub

        save_hub(folder, model, _described(config))


def _program(config, file):
    """An ONNX graph or a program of torch.export, from ids or, with a tokenizer, from images on."""
    from seitpp.finetune.formats.network import FromIds, FromImages, describe
    from seitpp.finetune.formats.onnx_graph import save_onnx
    from seitpp.finetune.formats.program import save_program

    model = _model(config)
    tokenizer = None if config.tokenizer is None else load_tokenizer(config.tokenizer)
    codebook = codebook_of(model, config.tokenizer or config.codebook)
    network = FromIds(model, codebook)
    if tokenizer is not None:
        _check_tokenizer(config, tokenizer)
        network = FromImages(tokenizer, network)
    save = save_onnx if config.kind == "onnx" else save_program
    return save(file, network, describe(network, model, tokenizer))


def _check_tokenizer(config, tokenizer):
    expected = read_config(model_folder(config.weights), record({})).get("tokenizer")
    if expected and tokenizer.fingerprint != expected:
        raise UserError(
            f"{config.tokenizer} is tokenizer {tokenizer.fingerprint[:12]}, {config.weights} belongs to {expected[:12]}"
        )


def _model(config):
    model: Any = load(config.weights)
    if not isinstance(model, MaskedTokenModel | Classifier):
        raise UserError(
            f"{config.weights} is no masked token model and no classifier: give a run of seitpp pretrain or finetune"
        )
    return model


def _described(config):
    """config.json of the model."""
    return read_config(model_folder(config.weights), record({}))


def cli() -> None:
    """Run the stage from the command line."""
    run_command(main, ExportModelConfig, recipes="export_model")


if __name__ == "__main__":
    cli()
