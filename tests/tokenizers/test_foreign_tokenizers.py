"""Tokenizers of other projects: every published weight finds its place, and ids and pixels are what they were there."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

import published
import tiny
from seitpp.runtime.errors import UserError
from seitpp.tokenizers import import_tokenizer as stage
from seitpp.tokenizers.networks.ldm_vq import from_ldm
from seitpp.tokenizers.networks.llamagen_vq import from_llamagen
from seitpp.tokenizers.networks.vit_vqgan import ViTVQGAN
from seitpp.tokenizers.networks.vq import VQTokenizer
from seitpp.tokenizers.tokenizer import load_tokenizer
from vit_checkpoint import SQUARE, as_published, module_of

# The published structure, written down once more: names, shapes and the forward pass


@dataclass(frozen=True)
class Style:
    """How a project names its parts."""

    residual: str
    middle: tuple
    down: str
    up: str
    ups_from_the_pixels: bool

    def up_level(self, step, levels):
        """Name of the decoder's level that is `step` steps away from the codes."""
        return self.up.format(levels - 1 - step if self.ups_from_the_pixels else step)


LDM = Style("block", ("mid.block_1", "mid.attn_1", "mid.block_2"), "encoder.down.{}", "decoder.up.{}", True)
LLAMAGEN = Style("res", ("mid.0", "mid.1", "mid.2"), "encoder.conv_blocks.{}", "decoder.conv_blocks.{}", False)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Shape of a published model."""

    style: Style
    width: int
    multiples: tuple
    attends: bool = True  # at the lowest level
    middle_attends: bool = True
    blocks: int = 2
    channels: int
    dim: int
    codes: int

    def widths(self):
        return [self.width * multiple for multiple in self.multiples]


def shapes_of(shape):
    """Every tensor of a published checkpoint: name to shape."""
    found, style, widths, levels = {}, shape.style, shape.widths(), len(shape.multiples)

    def conv(name, inputs, outputs, kernel):
        found[f"{name}.weight"], found[f"{name}.bias"] = (outputs, inputs, kernel, kernel), (outputs,)

    def norm(name, width):
        found[f"{name}.weight"], found[f"{name}.bias"] = (width,), (width,)

    def residual(name, inputs, outputs):
        norm(f"{name}.norm1", inputs)
        conv(f"{name}.conv1", inputs, outputs, 3)
        norm(f"{name}.norm2", outputs)
        conv(f"{name}.conv2", outputs, outputs, 3)
        if inputs != outputs:
            conv(f"{name}.nin_shortcut", inputs, outputs, 1)

    def attention(name, width):
        norm(f"{name}.norm", width)
        for part in ("q", "k", "v", "proj_out"):
            conv(f"{name}.{part}", width, width, 1)

    def middle(side, width):
        residual(f"{side}.{style.middle[0]}", width, width)
        if shape.middle_attends:
            attention(f"{side}.{style.middle[1]}", width)
        residual(f"{side}.{style.middle[2]}", width, width)

    conv("encoder.conv_in", 3, widths[0], 3)
    inputs = widths[0]
    for level, width in enumerate(widths):
        name = style.down.format(level)
        for block in range(shape.blocks):
            residual(f"{name}.{style.residual}.{block}", inputs, width)
            inputs = width
            if shape.attends and level == levels - 1:
                attention(f"{name}.attn.{block}", width)
        if level < levels - 1:
            conv(f"{name}.downsample.conv", width, width, 3)
    middle("encoder", widths[-1])
    norm("encoder.norm_out", widths[-1])
    conv("encoder.conv_out", widths[-1], shape.channels, 3)
    conv("decoder.conv_in", shape.channels, widths[-1], 3)
    middle("decoder", widths[-1])
    inputs = widths[-1]
    for step, width in enumerate(reversed(widths)):
        name = style.up_level(step, levels)
        for block in range(shape.blocks + 1):
            residual(f"{name}.{style.residual}.{block}", inputs, width)
            inputs = width
            if shape.attends and step == 0:
                attention(f"{name}.attn.{block}", width)
        if step < levels - 1:
            conv(f"{name}.upsample.conv", width, width, 3)
    norm("decoder.norm_out", widths[0])
    conv("decoder.conv_out", widths[0], 3, 3)
    found["quantize.embedding.weight"] = (shape.codes, shape.dim)
    conv("quant_conv", shape.channels, shape.dim, 1)
    conv("post_quant_conv", shape.dim, shape.channels, 1)
    return found


class Reference:
    """The published forward pass, straight from the published names."""

    def __init__(self, weights, shape):
        self.weights, self.shape = weights, shape

    def conv(self, name, x, **fields):
        return F.conv2d(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], **fields)

    def norm(self, name, x):
        groups = x.reshape(x.shape[0], 32, -1)
        mean, variance = groups.mean(-1, keepdim=True), groups.var(-1, unbiased=False, keepdim=True)
        x = ((groups - mean) / (variance + 1e-6).sqrt()).reshape(x.shape)
        return x * self.weights[f"{name}.weight"][:, None, None] + self.weights[f"{name}.bias"][:, None, None]

    def active(self, name, x):
        x = self.norm(name, x)
        return x * torch.sigmoid(x)

    def residual(self, name, x):
        hidden = self.conv(f"{name}.conv1", self.active(f"{name}.norm1", x), padding=1)
        hidden = self.conv(f"{name}.conv2", self.active(f"{name}.norm2", hidden), padding=1)
        shortcut = f"{name}.nin_shortcut"
        return hidden + (self.conv(shortcut, x) if f"{shortcut}.weight" in self.weights else x)

    def attention(self, name, x):
        if f"{name}.q.weight" not in self.weights:
            return x
        normed = self.norm(f"{name}.norm", x)
        q, k, v = (self.conv(f"{name}.{part}", normed).flatten(2) for part in "qkv")  # (b, c, places)
        mixed = torch.zeros_like(v)
        for place in range(q.shape[2]):
            scores = (q[:, :, place, None] * k).sum(1) / q.shape[1] ** 0.5
            mixed[:, :, place] = (v * scores.softmax(1)[:, None]).sum(2)
        return x + self.conv(f"{name}.proj_out", mixed.reshape(x.shape))

    def middle(self, side, x):
        first, attention, second = (f"{side}.{name}" for name in self.shape.style.middle)
        return self.residual(second, self.attention(attention, self.residual(first, x)))

    def latents(self, images):
        """Images in [0, 1] to what is quantised."""
        shape, levels = self.shape, len(self.shape.multiples)
        x = self.conv("encoder.conv_in", images * 2 - 1, padding=1)
        for level in range(levels):
            name = shape.style.down.format(level)
            for block in range(shape.blocks):
                x = self.residual(f"{name}.{shape.style.residual}.{block}", x)
                x = self.attention(f"{name}.attn.{block}", x)
            if level < levels - 1:
                x = self.conv(f"{name}.downsample.conv", F.pad(x, (0, 1, 0, 1)), stride=2)
        x = self.middle("encoder", x)
        return self.conv("quant_conv", self.conv("encoder.conv_out", self.active("encoder.norm_out", x), padding=1))

    def pixels(self, codes):
        """Codes (b, c, h, w) to images in [0, 1], not clamped."""
        shape, levels = self.shape, len(self.shape.multiples)
        x = self.conv("decoder.conv_in", self.conv("post_quant_conv", codes), padding=1)
        x = self.middle("decoder", x)
        for step in range(levels):
            name = shape.style.up_level(step, levels)
            for block in range(shape.blocks + 1):
                x = self.residual(f"{name}.{shape.style.residual}.{block}", x)
                x = self.attention(f"{name}.attn.{block}", x)
            if step < levels - 1:
                x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
                x = self.conv(f"{name}.upsample.conv", x, padding=1)
        return (self.conv("decoder.conv_out", self.active("decoder.norm_out", x), padding=1) + 1) / 2


def weights_of(shape, seed=0):
    """Random weights of a published checkpoint; gains near 1."""
    random = np.random.default_rng(seed)
    result = {}
    for name, size in shapes_of(shape).items():
        scale = 1.0 / np.sqrt(np.prod(size[1:])) if len(size) > 1 else 0.1
        values = random.standard_normal(size) * scale + (1.0 if ".norm" in name and name.endswith("weight") else 0.0)
        result[name] = torch.from_numpy(values).float()
    result["quantize.embedding.weight"] *= 2.0
    return result


SMALL = {
    "vq-f8-n256": Shape(style=LDM, width=32, multiples=(1, 2, 2, 4), channels=4, dim=4, codes=29),
    "vq-f4-noattn": Shape(
        style=LDM, width=32, multiples=(1, 2, 3), attends=False, middle_attends=False, channels=3, dim=3, codes=31
    ),
    "vq-f4": Shape(style=LDM, width=32, multiples=(1, 2, 4), attends=False, channels=3, dim=5, codes=31),
    "vq_ds8": Shape(style=LLAMAGEN, width=32, multiples=(1, 2, 2, 4), channels=16, dim=8, codes=37),
    "vq_ds16": Shape(style=LLAMAGEN, width=32, multiples=(1, 1, 2, 2, 4), channels=16, dim=8, codes=37),
}
TINY = {
    "ldm": Shape(style=LDM, width=32, multiples=(1, 2), blocks=1, channels=4, dim=4, codes=29),
    "llamagen": Shape(style=LLAMAGEN, width=32, multiples=(1, 2), blocks=1, channels=4, dim=8, codes=37),
}
FULL = {
    "vq-f8-n256": Shape(style=LDM, width=128, multiples=(1, 2, 2, 4), channels=4, dim=4, codes=256),
    "vq-f16": Shape(style=LDM, width=128, multiples=(1, 1, 2, 2, 4), channels=8, dim=8, codes=16384),
    "vq_ds8": Shape(style=LLAMAGEN, width=128, multiples=(1, 2, 2, 4), channels=256, dim=8, codes=16384),
    "vq_ds16": Shape(style=LLAMAGEN, width=128, multiples=(1, 1, 2, 2, 4), channels=256, dim=8, codes=16384),
}
IMAGE = (32, 48)


def tokenizer_of(shape, weights, image_size=IMAGE):
    if shape.style is LDM:
        return VQTokenizer(from_ldm(weights, "x"), image_size).eval().requires_grad_(False)
    return VQTokenizer(from_llamagen(weights, "x"), image_size, lookup="cosine").eval().requires_grad_(False)


@pytest.fixture(params=SMALL, scope="module")
def small(request):
    """(shape, published weights, reference, tokenizer) of a small model."""
    shape = SMALL[request.param]
    weights = weights_of(shape)
    return shape, weights, Reference(weights, shape), tokenizer_of(shape, weights)


def codes_of(shape, weights):
    """What the published decoder gets for each id."""
    codes = weights["quantize.embedding.weight"]
    return codes if shape.style is LDM else codes / codes.norm(dim=1, keepdim=True)


def test_latents_are_those_of_the_published_forward(small):
    shape, _, reference, tokenizer = small
    images = torch.rand(2, 3, *IMAGE)
    expected = reference.latents(images)
    if shape.style is LLAMAGEN:
        expected = expected / expected.norm(dim=1, keepdim=True)
    assert expected.std() > 0.1
    assert published.largest_difference(tokenizer.latents(images), expected) < 1e-4


def test_ids_are_the_nearest_codes_of_the_published_quantiser(small):
    shape, weights, reference, tokenizer = small
    images = torch.rand(2, 3, *IMAGE)
    latents, codes = reference.latents(images), codes_of(shape, weights)
    if shape.style is LLAMAGEN:
        latents = latents / latents.norm(dim=1, keepdim=True)
    distances = (latents[:, None] - codes[None, :, :, None, None]).square().sum(2)
    ids = tokenizer.encode(images)
    assert ids.shape[1:] == tokenizer.grid
    assert len(ids.unique()) > 2
    assert torch.equal(ids, distances.argmin(1))


def test_pixels_are_those_of_the_published_decoder(small):
    shape, weights, reference, tokenizer = small
    ids = tiny.random_ids(2, shape.codes, tokenizer.grid)
    expected = reference.pixels(codes_of(shape, weights)[ids].permute(0, 3, 1, 2))
    assert (expected - 0.5).std() > 0.1
    assert published.largest_difference(tokenizer.decode(ids), expected.clamp(0, 1)) < 1e-4


@pytest.mark.parametrize(
    ("name", "parameters"), [("vq-f8-n256", None), ("vq-f16", None), ("vq_ds8", 70), ("vq_ds16", 72)]
)
def test_full_size_checkpoints_convert(name, parameters):
    shape = FULL[name]
    weights = {name: torch.empty(size, device="meta") for name, size in shapes_of(shape).items()}
    with torch.device("meta"):
        tokenizer = tokenizer_of(shape, weights, (256, 256))
    side = 256 // 2 ** (len(shape.multiples) - 1)
    assert (tokenizer.grid, tokenizer.codebook_size) == ((side, side), shape.codes)
    count = sum(parameter.numel() for parameter in tokenizer.parameters())
    assert count == sum(tensor.numel() for tensor in weights.values())
    assert parameters in (None, round(count / 1e6))  # millions, as LlamaGen's table says


@pytest.mark.parametrize("name", TINY)
def test_what_only_training_needs_is_skipped_by_name(name):
    shape = TINY[name]
    weights = weights_of(shape)
    extra = ["loss.discriminator.main.0.weight", "loss.logvar", "model_ema.decay", "model_ema.encoderconv_inweight"]
    for unused in extra if shape.style is LDM else ["quantize.codebook_used"]:
        weights[unused] = torch.zeros(3)
    tokenizer_of(shape, weights)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            lambda weights: weights.update({"encoder.extra.weight": torch.zeros(1)}),
            "has an unknown encoder.extra.weight",
        ),
        (lambda weights: weights.pop("decoder.norm_out.bias"), "lacks decoder.conv_norm_out.bias"),
        (lambda weights: weights.pop("quant_conv.weight"), "has no quant_conv.weight"),
        (lambda weights: weights.pop("decoder.conv_out.weight"), "lacks decoder.conv_out.weight"),
        (lambda weights: weights.update({"quant_conv.bias": torch.zeros(9)}), "quant_conv.bias has the shape (9,)"),
        (lambda weights: weights.update({"encoder.conv_norm_out.bias": torch.zeros(9)}), "under two names"),
        (lambda weights: weights.clear(), "has no"),
    ],
)
def test_another_model_is_refused_in_one_line(name, change, line):
    weights = weights_of(TINY[name])
    change(weights)
    with pytest.raises(UserError) as refused:
        tokenizer_of(TINY[name], weights)
    assert tiny.one_line(str(refused.value)).startswith("x")
    assert line in str(refused.value)


def test_one_projects_weights_are_not_anothers():
    with pytest.raises(UserError, match=r"no levels decoder\.up\.0"):
        from_ldm(weights_of(TINY["llamagen"]), "x")
    with pytest.raises(UserError, match=r"has no encoder\.down_blocks"):
        from_llamagen(weights_of(TINY["ldm"]), "x")


# VQModels of diffusers


def vq_model(seed=0, **fields):
    from diffusers.models.autoencoders.vq_model import VQModel

    torch.manual_seed(seed)
    shape = {
        "block_out_channels": (32, 64), "down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        "up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D"), "latent_channels": 4, "num_vq_embeddings": 23,
    }  # fmt: skip
    model = VQModel(**{**shape, **fields}).eval().requires_grad_(False)
    model.quantize.embedding.weight.copy_(torch.randn(model.quantize.embedding.weight.shape))
    return model


@pytest.mark.parametrize(
    "fields", [{}, {"norm_type": "spatial"}, {"lookup_from_codebook": True}, {"mid_block_add_attention": False}]
)
def test_any_vq_model_encodes_and_decodes_as_diffusers_does(fields):
    model = vq_model(**fields)
    tokenizer = VQTokenizer(model, (16, 24)).eval()
    images = torch.rand(2, 3, 16, 24)
    latents = model.encode(images * 2 - 1).latents
    _, _, (_, _, ids) = model.quantize(latents)
    assert torch.equal(tokenizer.encode(images).flatten(), ids.flatten())
    expected = (model.decode(latents).sample + 1) / 2
    assert published.largest_difference(tokenizer.decode(tokenizer.encode(images)), expected.clamp(0, 1)) < 1e-5


def test_a_spatial_decoder_is_told_the_codes():
    tokenizer = VQTokenizer(vq_model(norm_type="spatial"), (16, 24)).eval()
    model, codes = tokenizer.model, torch.randn(1, 4, 8, 12)
    hidden = model.post_quant_conv(codes)
    assert not torch.allclose(model.decoder(hidden, codes), model.decoder(hidden, torch.zeros_like(codes)), atol=1e-3)
    assert torch.equal(tokenizer.pixels(codes), (model.decoder(hidden, codes) + 1) / 2)


@pytest.mark.parametrize(("fields", "size"), [({}, (15, 24)), ({}, (0, 24)), ({"in_channels": 4}, (16, 24))])
def test_models_that_do_not_fit_images_are_refused(fields, size):
    with pytest.raises(UserError, match="this VQModel takes"):
        VQTokenizer(vq_model(**fields), size)


def test_the_look_up_is_part_of_the_tokenizer(tmp_path):
    model = vq_model()
    euclidean, cosine = (VQTokenizer(model, (16, 24), lookup=lookup).eval() for lookup in ("euclidean", "cosine"))
    assert euclidean.fingerprint != cosine.fingerprint
    assert cosine.codebook.norm(dim=1).tolist() == pytest.approx([1.0] * 23)
    cosine.save(tmp_path / "cosine")
    again, images = load_tokenizer(tmp_path / "cosine"), torch.rand(2, 3, 16, 24)
    assert again.lookup == "cosine"
    assert again.fingerprint == cosine.fingerprint
    assert torch.equal(again.encode(images), cosine.encode(images))


# The command


def run_import(*flags, capsys):
    """Run the stage in this process; returns (exit code, last line of its output or its error)."""
    argv, sys.argv = sys.argv, ["import_tokenizer", *map(str, flags)]
    try:
        stage.cli()
    except SystemExit as stopped:
        code = stopped.code
    finally:
        sys.argv = argv
    out = capsys.readouterr()
    return code, out.err if code else out.out


def checkpoint_of(kind, folder):
    """Write a small checkpoint as it is published; returns (path, tokenizer as it should become)."""
    if kind == "vit_vqgan":
        torch.manual_seed(0)
        tokenizer = ViTVQGAN(SQUARE).eval().requires_grad_(False)
        torch.save(module_of(as_published(tokenizer)), folder / "tokenizer.ckpt")
        return folder / "tokenizer.ckpt", tokenizer
    if kind == "diffusers":
        model = vq_model(norm_type="spatial")
        model.save_pretrained(folder / "hub" / "movq")
        return folder / "hub", VQTokenizer(model, (32, 32))
    weights = weights_of(TINY[kind])
    torch.save({"state_dict" if kind == "ldm" else "model": weights, "epoch": 3}, folder / "model.ckpt")
    return folder / "model.ckpt", tokenizer_of(TINY[kind], weights, (32, 32))


SIZES = {"vit_vqgan": ((5, 5), (20, 20), 11), "diffusers": ((16, 16), (32, 32), 23), "ldm": ((16, 16), (32, 32), 29),
         "llamagen": ((16, 16), (32, 32), 37)}  # fmt: skip


@pytest.mark.parametrize("kind", SIZES)
def test_every_kind_is_imported_by_the_command(kind, tmp_path, images, capsys):
    checkpoint, expected = checkpoint_of(kind, tmp_path)
    output, (grid, size, codes) = tmp_path / "tokenizers" / "one", SIZES[kind]
    flags = ["--kind", kind, "--checkpoint", checkpoint, "--output_dir", output, "--images", images, "--images_used", 5]
    flags += ["--subfolder", "movq"] if kind == "diffusers" else []
    flags += ["--image_size", 32] if kind != "vit_vqgan" else []
    code, text = run_import(*flags, capsys=capsys)
    assert code == 0, text
    tokenizer = load_tokenizer(output)
    assert (tokenizer.grid, tokenizer.image_size, tokenizer.codebook_size) == (grid, size, codes)
    assert tokenizer.fingerprint == expected.fingerprint
    for words in (
        f"{grid[0]} x {grid[1]} tokens",
        f"K = {codes}, {grid[0] * grid[1]} bytes",
        tokenizer.fingerprint,
        " dB",
    ):
        assert words in text
    batch = torch.rand(2, 3, *size)
    assert torch.equal(tokenizer.encode(batch), expected.encode(batch))
    assert not any(str(tmp_path) in file.read_text() for file in output.glob("*.json"))
    with Image.open(output / "reconstructions.png") as picture:
        assert picture.size == (5 * (size[1] + 2) - 2, 2 * (size[0] + 2) - 2)


def test_an_imported_tokenizer_tokenises(tmp_path, images, capsys):
    from seitpp.tokenizers.tokenize import TokenizeConfig
    from seitpp.tokenizers.tokenize import main as tokenize
    from seitpp.tokens.store import TokenStore

    checkpoint, _ = checkpoint_of("ldm", tmp_path)
    output = tmp_path / "tokenizer"
    flags = ["--kind", "ldm", "--checkpoint", checkpoint, "--output_dir", output, "--image_size", 32]
    assert run_import(*flags, capsys=capsys)[0] == 0
    tokenize(TokenizeConfig(images=str(images), tokenizer=str(output), output_dir=str(tmp_path / "store")))
    store = TokenStore(tmp_path / "store")
    assert store.manifest["tokenizer"]["fingerprint"] == load_tokenizer(output).fingerprint


def test_importing_again_changes_nothing_and_another_is_refused(tmp_path, capsys):
    output = tmp_path / "tokenizer"
    for kind in ("ldm", "llamagen"):
        (tmp_path / kind).mkdir()
        checkpoint_of(kind, tmp_path / kind)
    flags = {kind: ["--kind", kind, "--checkpoint", tmp_path / kind / "model.ckpt", "--output_dir", output,
                    "--image_size", 32] for kind in ("ldm", "llamagen")}  # fmt: skip
    assert run_import(*flags["ldm"], capsys=capsys)[0] == 0
    before = {path.name: path.stat().st_mtime_ns for path in output.iterdir()}
    assert run_import(*flags["ldm"], capsys=capsys)[0] == 0
    assert {path.name: path.stat().st_mtime_ns for path in output.iterdir()} == before
    code, line = run_import(*flags["llamagen"], capsys=capsys)
    assert code == 1
    assert "holds another tokenizer" in tiny.one_line(line)
    assert run_import(*flags["llamagen"], "--resume", "none", capsys=capsys)[0] == 0
    assert load_tokenizer(output).lookup == "cosine"


def test_a_folder_of_something_else_is_left_alone(tmp_path, capsys):
    checkpoint, _ = checkpoint_of("ldm", tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for output, message in ((tmp_path, "holds --checkpoint"), (tmp_path / "mine", "mine holds notes.txt and is not")):
        code, line = run_import("--kind", "ldm", "--checkpoint", checkpoint, "--output_dir", output, capsys=capsys)
        assert code == 1
        assert message in tiny.one_line(line)
    assert checkpoint.is_file()
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


def test_safetensors_files_are_read_too(tmp_path, capsys):
    save_file(weights_of(TINY["ldm"]), tmp_path / "vq.safetensors")
    output = tmp_path / "tokenizer"
    flags = ["--kind", "ldm", "--checkpoint", tmp_path / "vq.safetensors", "--output_dir", output, "--image_size", 32]
    assert run_import(*flags, capsys=capsys)[0] == 0
    assert load_tokenizer(output).grid == (16, 16)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--kind", "ldm", "--checkpoint", "nothing.ckpt"], "nothing.ckpt is no file"),
        (["--kind", "ldm", "--checkpoint", "text.safetensors"], "text.safetensors is damaged"),
        (["--kind", "ldm", "--checkpoint", "text.ckpt"], "text.ckpt is no file of torch.save"),
        (["--kind", "ldm", "--checkpoint", "text.ckpt", "--subfolder", "x"], "subfolder = 'x' is for --kind diffusers"),
        (["--kind", "ldm", "--checkpoint", "text.ckpt", "--codebook", "x"], "codebook = 'x' is for --kind vit_vqgan"),
        (["--kind", "ldm", "--checkpoint", "text.ckpt", "--image_size", "0"], "image_size = 0 must be at least 1"),
        (["--kind", "diffusers", "--checkpoint", "empty"], "empty can't be loaded as a VQModel"),
        (["--kind", "diffusers", "--checkpoint", "somebody/nothing", "--subfolder", "movq"], "is there a network?"),
    ],
)
def test_what_can_not_be_read_is_one_line(tmp_path, monkeypatch, capsys, flags, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "empty").mkdir()
    for name in ("text.safetensors", "text.ckpt"):
        (tmp_path / name).write_text("Not found")
    code, line = run_import(*flags, "--output_dir", "out", capsys=capsys)
    assert code == 1
    assert words in tiny.one_line(line)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_old_names_of_attention_and_pickled_weights_are_read(tmp_path, capsys, suffix):
    model, folder = vq_model(), tmp_path / "model"
    model.save_pretrained(folder)
    weights = {}
    for name, tensor in model.state_dict().items():
        for new, old in (
            (".to_q.", ".query."),
            (".to_k.", ".key."),
            (".to_v.", ".value."),
            (".to_out.0.", ".proj_attn."),
        ):
            name = name.replace(new, old)
        weights[name] = tensor
    assert weights.keys() != model.state_dict().keys()
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    if suffix == ".bin":
        torch.save(weights, folder / "diffusion_pytorch_model.bin")
    else:
        save_file(weights, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    flags = ["--kind", "diffusers", "--checkpoint", folder, "--output_dir", tmp_path / "out", "--image_size", 32]
    code, text = run_import(*flags, capsys=capsys)
    assert code == 0, text
    assert load_tokenizer(tmp_path / "out").fingerprint == VQTokenizer(model, (32, 32)).fingerprint


def test_a_diffusers_folder_with_other_weights_is_refused(tmp_path, capsys):
    vq_model().save_pretrained(tmp_path / "model")
    config = (tmp_path / "model" / "config.json").read_text()
    vq_model(mid_block_add_attention=False).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(config)
    code, line = run_import(
        "--kind", "diffusers", "--checkpoint", tmp_path / "model", "--output_dir", tmp_path / "out", capsys=capsys
    )
    assert code == 1
    assert "is no VQModel of its config.json" in tiny.one_line(line)


def test_a_hostile_checkpoint_runs_nothing(tmp_path, capsys):
    marker = tmp_path / "marker"
    torch.save({"state_dict": {"a": Touch(marker)}}, tmp_path / "model.ckpt")
    code, line = run_import(
        "--kind", "ldm", "--checkpoint", tmp_path / "model.ckpt", "--output_dir", tmp_path / "out", capsys=capsys
    )
    assert code == 1
    assert "check_call to be called: refused" in tiny.one_line(line)
    assert not marker.exists()


class Touch:
    def __init__(self, path):
        self.path = Path(path)

    def __reduce__(self):
        return subprocess.check_call, (["touch", str(self.path)],)
