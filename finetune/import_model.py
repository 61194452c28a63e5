"""Make a run folder of a checkpoint of the SeiT, TokenAdapt or SeiT++ release. Nothing in its file is ever run.

    seitpp import-model --kind mtm --checkpoint checkpoint-399.pth --store stores/train --output_dir runs/mtm
    seitpp import-model --kind tokenadapt --checkpoint tokenadapt.ckpt --store stores/train --output_dir runs/ta
    seitpp import-model --kind classifier --checkpoint best.pth --ema true --store stores/train --output_dir runs/seit

Every other command takes the folder as if our own training had written it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seitpp.finetune import published as published_classifiers
from seitpp.finetune.classifier import save_classifier
from seitpp.mtm.encoder import fitting_view
from seitpp.mtm.formats import published
from seitpp.mtm.model import save_model
from seitpp.runtime.command import run_command
from seitpp.runtime.config import StageConfig, require
from seitpp.runtime.errors import UserError
from seitpp.runtime.fingerprints import file_fingerprint
from seitpp.runtime.foreign.state_dict import read_weights
from seitpp.runtime.locations import Location
from seitpp.runtime.run_folder import RunFolder
from seitpp.runtime.weights import save_weights
from seitpp.tokenadapt import published as token_adapt_published
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.one_dimensional import geometry_of, refuse_geometry
from seitpp.tokens.store import open_store


@dataclass(frozen=True, kw_only=True)
class ImportModelConfig(StageConfig):
    """Make a run folder of a checkpoint of the SeiT, TokenAdapt or SeiT++ release."""

    kind: Literal["mtm", "tokenadapt", "classifier"]
    """mtm: masked pre-training; tokenadapt: f and g, of a file of their own or out of one of pre-training; classifier:
    SeiT++'s, or SeiT's with the Stem-Adapter"""
    checkpoint: Location
    """file of torch.save or safetensors"""
    store: Location | None = None
    """token store whose ids the model reads; or give --tokenizer"""
    tokenizer: Location | None = None
    """the tokenizer whose ids it reads, instead of a store"""
    view: tuple[int, int] | None = None
    """tokens (h, w) of the model's input; None: the square that the file's tables are made for"""
    heads: int | None = None
    """attention heads of the encoder, which the release's files do not tell; None: as our own exports tell, else 64
    channels each, as in ViT-S, B and L; for mtm and classifier"""
    ema: bool = False
    """whether to take the averaged weights that are beside a classifier's (`model_ema`)"""
    decoder_heads: int | None = None
    """attention heads of the decoder; None: as our own exports tell, else 16, the papers'; for mtm"""

    def __post_init__(self):
        super().__post_init__()
        one = (self.store is None) != (self.tokenizer is None)
        require(self, "store", one, "but one of --store and --tokenizer is needed: they say what the ids mean")
        for name in ("heads", "decoder_heads"):
            heads = getattr(self, name)
            require(self, name, heads is None or heads >= 1, "must be at least 1")
            kinds = ("mtm", "classifier") if name == "heads" else ("mtm",)
            require(self, name, heads is None or self.kind in kinds, f"is for --kind {' and '.join(kinds)}")
        require(self, "ema", not self.ema or self.kind == "classifier", "is for --kind classifier")


def main(config: ImportModelConfig) -> None:
    """Read, convert, check against the store or tokenizer, write."""
    ids = open_store(config.store) if config.store else load_tokenizer(config.tokenizer)
    where = config.store or config.tokenizer
    fingerprint = ids.tokenizer["fingerprint"] if config.store else ids.fingerprint
    convert = {"mtm": _pre_training, "tokenadapt": _token_adapt, "classifier": _classifier}[config.kind]
    model, view, note, save = convert(config, ids)
    if model.described["codebook_size"] != ids.codebook_size:
        raise UserError(
            f"{config.checkpoint} is for K = {model.described['codebook_size']}, but {where} has {ids.codebook_size} "
            f"codes: give the store or tokenizer that it was trained on"
        )
    # Of the store, or else of the tokenizer, only what its ids mean is read.
    known = {"inputs": {"tokenizer": fingerprint}, "data": {"checkpoint": file_fingerprint(config.checkpoint)}}
    run = RunFolder(config, stage="mtm.import_model", may_change=["store"], **known)
    if run.finished:
        print(f"{run.path}: finished before, nothing to do")
        return
    run.begin()
    save(run.weights, fingerprint)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    run.finish({"parameters": parameters})
    print(f"{run.path}: {config.kind} of {parameters:,} parameters, {view[0]} x {view[1]} tokens, "
          f"K = {ids.codebook_size}, from {Path(config.checkpoint).name}{note}")  # fmt: skip


def _pre_training(config, ids):
    """(model, its view, what is worth a note, function that saves it)."""
    heads = _known_heads(config)
    weights = read_weights(config.checkpoint)
    model = published.from_published(weights, config.checkpoint, view=config.view, **heads)
    view = fitting_view(model.encoder.view, ids.grid, model.encoder.patch_size, geometry_of(ids))
    note = ""
    if token_adapt := token_adapt_published.divided(weights)[0]:  # only checked: no tensor goes by unseen
        token_adapt_published.from_published(token_adapt, config.checkpoint, grid=ids.grid, view=view)
        note = "; it holds a TokenAdapt too, which --kind tokenadapt takes out"
    usual = {"heads": f"{published.HEAD_WIDTH} channels each", "decoder_heads": "the papers' decoder"}
    if assumed := [name for name in usual if name not in heads]:
        both = " and ".join(str(number) for number in published.heads_of(model).values())
        note += (
            f"; heads {both} (assumed: {', '.join(usual[name] for name in assumed)}; "
            f"if it has others, give {' and '.join(f'--{name}' for name in assumed)})"
        )

    def save(folder, fingerprint):
        save_model(folder, model, tokenizer=fingerprint, grid=ids.grid)

    return model, view, note, save


def _known_heads(config):
    """The heads that flags or else the file tell: some of {"heads", "decoder_heads"}."""
    flags = {"heads": config.heads, "decoder_heads": config.decoder_heads}
    given = {name: number for name, number in flags.items() if number is not None}
    file = Path(config.checkpoint)
    told = len(given) < len(flags) and file.is_file() and file.suffix != ".safetensors"
    return {**published.read_heads(file), **given} if told else given


def _token_adapt(config, ids):
    """(model, its view, what is worth a note, function that saves it)."""
    needed = {"TokenAdapt": "give the store or tokenizer of a grid"}
    refuse_geometry(ids, config.store or config.tokenizer, needed)
    weights = read_weights(config.checkpoint)
    model = token_adapt_published.from_published(weights, config.checkpoint, grid=ids.grid, view=config.view)
    _check_channels(config, model, ids)

    def save(folder, fingerprint):
        save_weights(folder, model.state_dict(), {**model.described, "tokenizer": fingerprint})

    return model, fitting_view(model.view, ids.grid, 1), "", save


def _classifier(config, ids):
    """(model, its view, what is worth a note, function that saves it)."""
    weights = read_weights(config.checkpoint, averaged=config.ema)
    model = published_classifiers.from_published(
        weights, config.checkpoint, view=config.view, heads=config.heads, codebook=ids.codebook
    )
    _check_channels(config, model, ids)
    view = fitting_view(model.encoder.view, ids.grid, model.encoder.patch_size, geometry_of(ids))
    classes = model.head.out_features
    names, note = list(getattr(ids, "classes", [])), f"; {classes} classes"
    if len(names) != classes:
        names, note = [str(number) for number in range(classes)], f"{note}, named by number"
    if token_adapt := token_adapt_published.divided(weights)[0]:  # only checked: no tensor goes by unseen
        token_adapt_published.from_published(token_adapt, config.checkpoint, grid=ids.grid, view=view)

    def save(folder, fingerprint):
        save_classifier(folder, model, tokenizer=fingerprint, class_names=names, origin={"init": "published"})

    return model, view, note, save


def _check_channels(config, model, ids):
    if model.described["embedding_dim"] != ids.codebook.shape[1]:
        raise UserError(
            f"{config.checkpoint} takes embeddings of {model.described['embedding_dim']} channels, but the codebook of "
            f"{config.store or config.tokenizer} has {ids.codebook.shape[1]}: give the one that it was trained on"
        )


def cli() -> None:
    """Run the stage from the command line."""
    run_command(main, ImportModelConfig, recipes="import_model")


if __name__ == "__main__":
    cli()
