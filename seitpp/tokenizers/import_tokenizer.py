"""Make a tokenizer folder of weights that were published elsewhere. Nothing in their files is ever run.

    seitpp import-tokenizer --kind vit_vqgan --checkpoint tokenizer.ckpt --output_dir tokenizers/vit_vqgan
    seitpp import-tokenizer --kind ldm --checkpoint vq-f8-n256/model.ckpt --output_dir tokenizers/vq-f8-n256
    seitpp import-tokenizer --kind llamagen --checkpoint vq_ds16_c2i.pt --output_dir tokenizers/vq_ds16
    seitpp import-tokenizer --kind ibq --checkpoint imagenet256_1024.ckpt --output_dir tokenizers/ibq_1024
    seitpp import-tokenizer --kind maskbit --checkpoint maskbit_tokenizer_12bit.bin --output_dir tokenizers/maskbit_12
    seitpp import-tokenizer --kind open_magvit2 --checkpoint imagenet_256_L.ckpt --output_dir tokenizers/magvit2
    seitpp import-tokenizer --kind titok --checkpoint tokenizer_titok_l32.bin --output_dir tokenizers/titok_l32
    seitpp import-tokenizer --kind diffusers --checkpoint FOLDER_OR_ID --subfolder movq --output_dir movq

The folder holds all that is needed: every other command takes it as --tokenizer, without a network.
"""

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from seitpp.runtime.command import run_command
from seitpp.runtime.config import StageConfig, require
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.errors import UserError
from seitpp.runtime.foreign.conversion import translated
from seitpp.runtime.foreign.state_dict import read_weights
from seitpp.runtime.locations import Location
from seitpp.runtime.ownership import is_tokenizer, visible
from seitpp.runtime.pictures import image_grid
from seitpp.runtime.places import claim
from seitpp.runtime.rights import check_readable
from seitpp.tokenizers.reconstruction import measure_reconstruction
from seitpp.tokenizers.sources.decoding.resize import Resize
from seitpp.tokenizers.sources.images import open_image_folder, read_all
from seitpp.tokenizers.sources.listing.left_out import sentence
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.codec import packed_bytes
from seitpp.tokens.exchange.codebook_file import read_codebook

_OLD_ATTENTION = [  # names of diffusers before 0.16
    (r"\.attentions\.(\d+)\.([qkv])(uery|ey|alue)\.", r".attentions.\1.to_\2."),
    (r"\.attentions\.(\d+)\.proj_attn\.", r".attentions.\1.to_out.0."),
]

_WRITTEN = (
    *("reconstructions.png", "model.safetensors", "diffusion_pytorch_model.safetensors", "config.json"),
    "tokenizer.json",
)
"""What lies in a tokenizer's folder; the last proves that it is one."""


@dataclass(frozen=True, kw_only=True)
class ImportTokenizerConfig(StageConfig):
    """Make a tokenizer folder of published weights."""

    kind: Literal["vit_vqgan", "ldm", "llamagen", "ibq", "maskbit", "open_magvit2", "titok", "diffusers"]
    """whose weights: ViT-VQGAN of enhancing-transformers or of the SeiT release, a VQ model of latent diffusion or
    taming-transformers, a tokenizer of LlamaGen, of IBQ, of MaskBit (VQGAN+ too), of Open-MAGVIT2, a TiTok of ids,
    or a VQModel of diffusers"""
    checkpoint: Location
    """file of torch.save or safetensors; for diffusers a folder, or the id of a model on the Hugging Face Hub that has
    its weights as safetensors"""
    subfolder: str | None = None
    """where in the folder or repository the VQModel lies, such as movq or vqvae; for diffusers"""
    image_size: int | None = None
    """pixels a side; None: what the checkpoint says, else 256"""
    resize: Resize = "crop"
    """what is done with images of another shape: crop keeps the centre, pad adds a white border, squash changes the
    aspect, as the published preprocessing. It is a part of the tokenizer's fingerprint"""
    codebook: Location | None = None
    """file of a (k, c) tensor to use instead of the checkpoint's codes, such as the release's codebook.ckpt; for
    vit_vqgan"""
    images: Location | None = None
    """folder of images to measure PSNR on and to show in reconstructions.png"""
    images_used: int = 64
    """at most this many of them, evenly spread"""

    def __post_init__(self):
        super().__post_init__()
        require(self, "image_size", self.image_size is None or self.image_size >= 1, "must be at least 1")
        require(self, "images_used", self.images_used >= 1, "must be at least 1")
        require(self, "subfolder", self.subfolder is None or self.kind == "diffusers", "is for --kind diffusers")
        require(self, "codebook", self.codebook is None or self.kind == "vit_vqgan", "is for --kind vit_vqgan")


def main(config: ImportTokenizerConfig) -> None:
    """Read, convert, write, and say what it is."""
    folder = claim(config, is_tokenizer, "a tokenizer")
    tokenizer = read_tokenizer(config).eval().requires_grad_(False)
    tokenizer.resize = config.resize
    if (folder / "tokenizer.json").is_file() and config.resume != "none":
        if load_tokenizer(folder).fingerprint != tokenizer.fingerprint:
            raise UserError(
                f"{folder} holds another tokenizer: choose another --output_dir, or --resume none to replace it"
            )
    else:
        remove_tokenizer(folder)
        tokenizer.save(folder)
    height, width = tokenizer.grid
    size = packed_bytes(height * width, tokenizer.codebook_size)
    print(f"{folder}: {height} x {width} tokens of {tokenizer.image_size[0]} x {tokenizer.image_size[1]} pixels, "
          f"K = {tokenizer.codebook_size}, {size} bytes an image, fingerprint {tokenizer.fingerprint}")  # fmt: skip
    if config.images is not None:
        _reconstruct(load_tokenizer(folder, make_accelerator("no").device), config, folder)


def remove_tokenizer(folder: Path) -> None:
    """Remove what this command wrote into a folder; in one that holds no tokenizer, nothing is removed.

    Raises: UserError, before anything is removed, if something else lies there, which would be lost with the folder.
    """
    if not is_tokenizer(folder):
        return
    if foreign := [name for name in visible(folder) if name not in _WRITTEN]:
        raise UserError(f"{folder / foreign[0]} is no part of a tokenizer, and would be lost: move it elsewhere")
    for name in _WRITTEN:
        (folder / name).unlink(missing_ok=True)


def read_tokenizer(config: ImportTokenizerConfig) -> Any:
    """The tokenizer of a checkpoint.

    Args:
        config: an ImportTokenizerConfig.
    Raises: UserError if the checkpoint can't be read or is of another kind.
    """
    from seitpp.tokenizers.networks.vq import VQTokenizer

    source, size = config.checkpoint, config.image_size
    if config.kind == "diffusers":
        return VQTokenizer(_from_diffusers(source, config.subfolder), (size or 256,) * 2)
    weights = read_weights(source)
    if config.kind == "vit_vqgan":
        from seitpp.tokenizers.networks.foreign_vit import from_published

        codebook = None if config.codebook is None else read_codebook(config.codebook)
        return from_published(weights, source, image_size=size, codebook=codebook)
    if config.kind == "llamagen":
        from seitpp.tokenizers.networks.llamagen_vq import from_llamagen

        return VQTokenizer(from_llamagen(weights, source), (size or 256,) * 2, lookup="cosine")
    if config.kind == "ibq":
        from seitpp.tokenizers.networks.ibq_vq import from_ibq

        return VQTokenizer(from_ibq(weights, source), (size or 256,) * 2)
    if config.kind == "maskbit":
        from seitpp.tokenizers.networks.maskbit_vq import from_maskbit

        return VQTokenizer(from_maskbit(weights, source), (size or 256,) * 2, black=0)
    if config.kind == "open_magvit2":
        from seitpp.tokenizers.networks.open_magvit2 import from_open_magvit2

        return from_open_magvit2(weights, source, image_size=size or 256)
    if config.kind == "titok":
        from seitpp.tokenizers.networks.foreign_titok import from_titok

        return from_titok(weights, source, image_size=size)
    from seitpp.tokenizers.networks.ldm_vq import from_ldm

    return VQTokenizer(from_ldm(weights, source), (size or 256,) * 2)


def _from_diffusers(checkpoint, subfolder):
    from diffusers.models.autoencoders.vq_model import VQModel

    from seitpp.tokenizers.networks.vq import load_vqmodel

    folder = Path(checkpoint, subfolder or "")
    pickled = folder / "diffusion_pytorch_model.bin"
    if pickled.is_file() and not pickled.with_suffix(".safetensors").is_file():
        weights = translated(read_weights(pickled), _OLD_ATTENTION, pickled)
        return load_vqmodel(folder / "config.json", weights, pickled).float()
    where = f"{checkpoint}/{subfolder}" if subfolder else checkpoint
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # a line for each retry
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # diffusers calls the hub's library in an old way
            loaded: Any = VQModel.from_pretrained(
                checkpoint, subfolder=subfolder, use_safetensors=True, output_loading_info=True
            )
            model, found = loaded
    except (OSError, ValueError, RuntimeError) as error:
        for file in folder.glob("*.*"):
            check_readable(file)
        advice = "see --subfolder" if Path(checkpoint).is_dir() else "is the id right, and is there a network?"
        reason = " ".join(str(error).split())[:100]
        raise UserError(
            f"{where} can't be loaded as a VQModel with safetensors weights ({reason}…): {advice}"
        ) from error
    unfit = [*found["missing_keys"], *found["unexpected_keys"], *found["mismatched_keys"]]
    if unfit:  # diffusers only logs this
        raise UserError(
            f"{where} is no VQModel of its config.json: {unfit[0]} is missing or unknown ({len(unfit)} such)"
        )
    if Path(checkpoint).is_dir():
        model.register_to_config(_name_or_path=Path(checkpoint).name)  # it would tell the whole path to all readers
    return model.float()


def _reconstruct(tokenizer, config, folder):
    """Print the PSNR of some images and write them beside their reconstructions."""
    images = open_image_folder(config.images)
    used = min(config.images_used, len(images))
    rows = [len(images) * place // used for place in range(used)]
    pixels = read_all(images, rows, tokenizer.image_size, tokenizer.resize).to(next(tokenizer.parameters()).device)
    measured = measure_reconstruction(tokenizer, pixels)
    image_grid([pixels[:8], tokenizer.decode(tokenizer.encode(pixels[:8]))], folder / "reconstructions.png")
    print(f"{folder / 'reconstructions.png'}: PSNR {measured['psnr']:.2f} dB on {used} images, "
          f"{measured['codes_used']} of {tokenizer.codebook_size} codes used{sentence(images.left_out)}")  # fmt: skip


def cli() -> None:
    """Run the stage from the command line."""
    run_command(main, ImportTokenizerConfig, recipes="import_tokenizer")


if __name__ == "__main__":
    cli()
