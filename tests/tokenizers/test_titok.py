"""TiTok: recordings of the published code are met, full published checkpoints find their place, and rows are small.

parity/smaller_tokenizers.md says how the recordings were made.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import published
import tiny
from seitpp.runtime.errors import UserError
from seitpp.tokenizers import import_tokenizer as stage
from seitpp.tokenizers.networks.foreign_titok import from_titok
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.codec import packed_bytes

FOLDER = Path(__file__).parent.parent / "parity"
NAMES = ("titok", "titok_later")


@dataclass(frozen=True)
class Recorded:
    """A recording and the published weights that it was made with."""

    weights: dict
    image: torch.Tensor
    latents: torch.Tensor
    codes: torch.Tensor
    reconstruction: torch.Tensor

    def tokenizer(self):
        return from_titok(dict(self.weights), "x").eval().requires_grad_(False)


def recorded(name):
    with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
        about = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    seed, gains = int(about["seed"]), json.loads(about["gains"])
    weights = {
        key: published.formula_weight(key, shape, seed) * gains.get(key, 1)
        for key, shape in json.loads(about["shapes"]).items()
    }
    return Recorded(weights, **tensors)


@pytest.mark.parametrize("name", NAMES)
def test_latents_ids_and_pixels_are_those_of_the_published_code(name):
    record = recorded(name)
    tokenizer = record.tokenizer()
    assert published.largest_difference(tokenizer.latents(record.image), record.latents) < 1e-5
    assert len({tuple(row.flatten().tolist()) for row in record.codes}) > 2
    assert torch.equal(tokenizer.encode(record.image), record.codes)
    expected = record.reconstruction.clamp(0, 1)
    assert expected.std() > 0.1
    assert published.largest_difference(tokenizer.decode(record.codes), expected) < 1e-4


@pytest.mark.parametrize(("name", "lookup"), [("titok", "cosine"), ("titok_later", "euclidean")])
def test_its_grid_is_a_row_and_says_that_it_has_no_geometry(name, lookup):
    tokenizer = recorded(name).tokenizer()
    assert (tokenizer.grid, tokenizer.image_size, tokenizer.lookup) == ((1, 6), (16, 16), lookup)
    assert tokenizer.geometry == "none"
    lengths = tokenizer.codebook.norm(dim=1)
    assert torch.allclose(lengths, torch.ones(())) == (lookup == "cosine")


FULL = {  # tokens, K, dimension of a code, bytes of a row, millions of parameters
    "titok_l32": (32, 4096, 12, 48, 641), "titok_b64": (64, 4096, 12, 96, 205), "titok_s128": (128, 4096, 12, 192, 84),
    "titok_bl64_vq8k": (64, 8192, 64, 104, 390), "titok_bl128_vq8k": (128, 8192, 64, 208, 390),
    "titok_sl256_vq8k": (256, 8192, 64, 416, 330),
}  # fmt: skip


def full_shapes(name):
    """Every tensor of a published checkpoint: name to shape."""
    described = json.loads((FOLDER / "titok.json").read_text())[name]
    shapes = {}
    for key, shape in described["shapes"].items():
        depth = described["depths"][key.split(".")[0]] if ".transformer.0." in key else 1
        shapes |= {key.replace(".transformer.0.", f".transformer.{block}."): shape for block in range(depth)}
    return shapes


@pytest.mark.parametrize("name", FULL)
def test_full_size_checkpoints_convert_and_their_rows_have_few_bytes(name):
    tokens, codes, dim, size, millions = FULL[name]
    with torch.device("meta"):
        weights = {key: torch.empty(shape) for key, shape in full_shapes(name).items()}
        tokenizer = from_titok(weights, "x")
    assert (tokenizer.grid, tokenizer.image_size, tokenizer.codebook_size) == ((1, tokens), (256, 256), codes)
    assert tuple(tokenizer.codebook.shape) == (codes, dim)
    assert packed_bytes(tokens, codes) == size
    assert round(sum(tensor.numel() for tensor in weights.values()) / 1e6) == millions


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda weights: weights.clear(), "x has no latent_tokens"),
        (lambda weights: weights.update({"encoder.extra.weight": torch.zeros(1)}), "unknown encoder.extra.weight"),
        (lambda weights: weights.pop("decoder.ln_post.bias"), "lacks decoder.norm.bias"),
        (lambda weights: weights.pop("decoder.ln_pre.bias"), "lacks decoder.norm_before.bias"),
        (lambda weights: weights.pop("quantize.embedding.weight"), "x is a TiTok VAE"),
        (lambda weights: weights.update({"decoder.mask_token": torch.zeros(7)}), "is no TiTok"),
        (lambda weights: weights.update({"encoder.positional_embedding": torch.zeros(6)}), "is no TiTok"),
        (lambda weights: weights.update({"decoder.text_guidance_proj.weight": torch.zeros(1)}), "is a TA-TiTok"),
        (lambda weights: weights.update({"encoder.conv_out.bias": torch.zeros(9)}), "pre_quant.bias has the shape"),
        (lambda weights: weights.update({"quantize.embedding.weight": torch.zeros(1, 5)}), "x has 1 codes"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", NAMES)
def test_another_model_is_refused_in_one_line(name, change, line):
    record = recorded(name)
    change(record.weights)
    with pytest.raises(UserError) as refused:
        record.tokenizer()
    assert tiny.one_line(str(refused.value)).startswith("x")
    assert line in str(refused.value)


def test_a_first_stage_that_decodes_to_codes_of_another_tokenizer_is_refused():
    weights = {name: each for name, each in recorded("titok").weights.items() if not name.startswith("pixel_")}
    with pytest.raises(UserError, match="after its first stage of training"):
        from_titok(weights, "x")


def run_import(capsys, monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["import_tokenizer", "--kind", "titok", *map(str, flags)])
    with pytest.raises(SystemExit) as stopped:
        stage.cli()
    out = capsys.readouterr()
    return stopped.value.code, out.out, out.err


@pytest.mark.parametrize("name", NAMES)
def test_the_command_imports_it_and_it_keeps_its_ids(name, tmp_path, capsys, monkeypatch):
    record, output = recorded(name), tmp_path / "tokenizer"
    torch.save(record.weights, tmp_path / "model.bin")
    code, out, err = run_import(capsys, monkeypatch, "--checkpoint", tmp_path / "model.bin", "--output_dir", output)
    assert not code, err
    codes = len(record.weights["quantize.embedding.weight"])
    assert f"1 x 6 tokens of 16 x 16 pixels, K = {codes}, 6 bytes an image" in out
    tokenizer = load_tokenizer(output)
    assert tokenizer.fingerprint == record.tokenizer().fingerprint
    assert torch.equal(tokenizer.encode(record.image), record.codes)
    assert published.largest_difference(tokenizer.decode(record.codes), record.reconstruction.clamp(0, 1)) < 1e-4


def test_images_of_another_size_than_it_is_made_for_are_refused(tmp_path, capsys, monkeypatch):
    torch.save(recorded("titok").weights, tmp_path / "model.bin")
    flags = ["--checkpoint", tmp_path / "model.bin", "--output_dir", tmp_path / "out", "--image_size", 32]
    code, _, err = run_import(capsys, monkeypatch, *flags)
    assert code == 1
    assert "made for images of 16 pixels, not 32" in tiny.one_line(err)
    assert not (tmp_path / "out").exists()
