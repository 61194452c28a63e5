"""IBQ, MaskBit and VQGAN+: recordings of the published code are met, and full published checkpoints find their place.

parity/smaller_tokenizers.md says how the recordings were made.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open

import published
import tiny
from seitpp.runtime.errors import UserError
from seitpp.tokenizers import import_tokenizer as stage
from seitpp.tokenizers.networks.ibq_vq import from_ibq
from seitpp.tokenizers.networks.maskbit_vq import from_maskbit
from seitpp.tokenizers.networks.vq import VQTokenizer
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.codebook import sign_codes

FOLDER = Path(__file__).parent.parent / "parity"
KINDS = {"ibq": "ibq", "maskbit": "maskbit", "vqgan_plus": "maskbit"}
CODES = {"ibq": 37, "maskbit": 32, "vqgan_plus": 29}


@dataclass(frozen=True)
class Recorded:
    """A recording and the published weights that it was made with."""

    kind: str
    weights: dict
    image: torch.Tensor
    latents: torch.Tensor
    codes: torch.Tensor
    reconstruction: torch.Tensor

    def tokenizer(self):
        return tokenizer_of(self.kind, self.weights, self.image.shape[2:])


def recorded(name):
    with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
        about = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    seed = int(about["seed"])
    weights = {key: published.formula_weight(key, shape, seed) for key, shape in json.loads(about["shapes"]).items()}
    return Recorded(KINDS[name], weights, **tensors)


def tokenizer_of(kind, weights, image_size):
    model = from_ibq(dict(weights), "x") if kind == "ibq" else from_maskbit(dict(weights), "x")
    black = -1 if kind == "ibq" else 0
    return VQTokenizer(model, tuple(image_size), black=black).eval().requires_grad_(False)


@pytest.mark.parametrize("name", KINDS)
def test_latents_ids_and_pixels_are_those_of_the_published_code(name):
    record = recorded(name)
    tokenizer = record.tokenizer()
    latents = tokenizer.latents(record.image)
    channels = record.latents.shape[1]
    assert published.largest_difference(latents[:, :channels], record.latents) < 1e-5
    assert not latents[:, channels:].any()
    assert len(record.codes.unique()) > 10
    assert torch.equal(tokenizer.encode(record.image), record.codes)
    expected = record.reconstruction.clamp(0, 1)
    assert expected.std() > 0.1
    assert published.largest_difference(tokenizer.decode(record.codes), expected) < 1e-4
    assert (tokenizer.grid, tokenizer.codebook_size) == (tuple(record.codes.shape[1:]), CODES[name])


def test_the_code_of_ibq_is_the_one_of_the_largest_product_and_not_the_nearest():
    record = recorded("ibq")
    codes = record.weights["quantize.embedding.weight"]
    nearest = (record.latents[:, None] - codes[None, :, :, None, None]).square().sum(2).argmin(1)
    assert (nearest != record.codes).float().mean() > 0.2
    lengths = record.tokenizer().codebook.norm(dim=1)
    assert published.largest_difference(lengths, lengths[:1].expand(len(lengths))) < 1e-6


def test_the_averages_of_a_checkpoint_are_taken_for_its_weights():
    record = recorded("ibq")
    averages = {f"model_ema.{name.replace('.', '')}": tensor for name, tensor in record.weights.items()}
    own = {name: torch.zeros_like(tensor) for name, tensor in record.weights.items()}
    extra = {"model_ema.decay": torch.ones(()), "model_ema.num_updates": torch.ones(()), "loss.logvar": torch.ones(1)}
    tokenizer = tokenizer_of("ibq", {**own, **averages, **extra}, record.image.shape[2:])
    assert tokenizer.fingerprint == record.tokenizer().fingerprint
    averages.pop("model_ema.decoderconv_outbias")
    with pytest.raises(UserError, match=r"none of decoder\.conv_out\.bias"):
        tokenizer_of("ibq", {**own, **averages}, record.image.shape[2:])


def test_sign_codes_are_the_bits_of_the_ids_lowest_first():
    assert sign_codes(2).tolist() == [[-1, -1], [1, -1], [-1, 1], [1, 1]]


def test_codes_of_another_order_are_refused():
    weights = recorded("maskbit").weights
    weights["quantize.codebook"] = sign_codes(5)
    weights["quantize.bits_to_indices"] = 2 ** torch.arange(5)
    from_maskbit(weights, "x")
    with pytest.raises(UserError, match=r"quantize\.codebook are not all vectors"):
        from_maskbit({**weights, "quantize.codebook": sign_codes(5).flip(0)}, "x")


FULL = {
    "ibq_16384": ("ibq", 16384, 257),
    "maskbit_12bit": ("maskbit", 4096, 12),
    "vqgan_plus_12bit": ("maskbit", 4096, 64),
}


@pytest.mark.parametrize("name", FULL)
def test_full_size_checkpoints_convert(name):
    kind, codes, dim = FULL[name]
    shapes = json.loads((FOLDER / "smaller_tokenizers.json").read_text())[name]
    with torch.device("meta"):
        tokenizer = tokenizer_of(kind, {key: torch.empty(shape) for key, shape in shapes.items()}, (256, 256))
    assert (tokenizer.grid, tokenizer.codebook_size) == ((16, 16), codes)
    assert tuple(tokenizer.codebook.shape) == (codes, dim)


@pytest.mark.parametrize("codes", [1, 2**24 + 1])
def test_more_codes_than_a_store_holds_are_refused(codes):
    weights = recorded("ibq").weights
    weights["quantize.embedding.weight"] = torch.empty(codes, 8, device="meta")
    with pytest.raises(UserError, match=f"x has {codes} codes"):
        from_ibq(weights, "x")


def test_twenty_five_bits_are_refused():
    weights = recorded("maskbit").weights
    weights["encoder.conv_out.weight"] = torch.zeros(25, 64, 1, 1)
    with pytest.raises(UserError, match="x has 33554432 codes"):
        from_maskbit(weights, "x")


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    "change",
    [
        lambda weights: weights.clear(),
        lambda weights: weights.update({"encoder.extra.weight": torch.zeros(1)}),
        lambda weights: weights.pop("decoder.norm_out.bias"),
        lambda weights: weights.pop("decoder.conv_out.weight"),
        lambda weights: weights.update({"decoder.conv_in.weight": torch.zeros(3)}),
    ],
)
def test_another_model_is_refused_in_one_line(name, change):
    record = recorded(name)
    change(record.weights)
    with pytest.raises(UserError) as refused:
        record.tokenizer()
    assert tiny.one_line(str(refused.value)).startswith("x")


def test_one_projects_weights_are_not_anothers():
    with pytest.raises(UserError):
        from_maskbit(recorded("ibq").weights, "x")
    with pytest.raises(UserError, match="no IBQ tokenizer"):
        from_ibq(recorded("maskbit").weights, "x")


@pytest.mark.parametrize("name", KINDS)
def test_the_command_imports_it_and_it_keeps_its_ids(name, tmp_path, capsys, monkeypatch):
    record, output = recorded(name), tmp_path / "tokenizer"
    checkpoint = tmp_path / ("model.ckpt" if name == "ibq" else "model.bin")
    torch.save({"state_dict": record.weights} if name == "ibq" else record.weights, checkpoint)
    flags = ["--kind", KINDS[name], "--checkpoint", checkpoint, "--output_dir", output, "--image_size", 16]
    monkeypatch.setattr(sys, "argv", ["import_tokenizer", *map(str, flags)])
    with pytest.raises(SystemExit) as stopped:
        stage.cli()
    out = capsys.readouterr()
    assert not stopped.value.code, out.err
    assert f"8 x 8 tokens of 16 x 16 pixels, K = {CODES[name]}" in out.out
    tokenizer = load_tokenizer(output)
    images = F.interpolate(record.image, (16, 16))
    assert torch.equal(tokenizer.encode(images), record.tokenizer().encode(images))
    assert torch.equal(tokenizer.encode(record.image), record.codes)
    assert published.largest_difference(tokenizer.decode(record.codes), record.reconstruction.clamp(0, 1)) < 1e-4


def test_the_range_of_pixels_is_part_of_the_tokenizer():
    model = from_maskbit(recorded("maskbit").weights, "x")
    assert VQTokenizer(model, (16, 16), black=0).fingerprint != VQTokenizer(model, (16, 16)).fingerprint
    assert VQTokenizer(model, (16, 16), black=0).preprocessing["range"] == [0, 1]
