"""Open-MAGVIT2: a recording of the published code is met, full published checkpoints find their place, ids are signs.

parity/smaller_tokenizers.md says how the recording was made.
"""

import json
import sys

import pytest
import torch
from safetensors import safe_open

import published
import tiny
from seitpp.runtime.errors import UserError
from seitpp.tokenizers import import_tokenizer as stage
from seitpp.tokenizers.networks.lookup_free import LookupFreeConfig, LookupFreeTokenizer
from seitpp.tokenizers.networks.open_magvit2 import from_open_magvit2
from seitpp.tokenizers.tokenizer import load_tokenizer

BITS = 17


@pytest.fixture(scope="module")
def record():
    """The tensors of the recording, and the published weights that it was made with."""
    with safe_open(published.FOLDER / "open_magvit2.safetensors", "pt") as file:
        about = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    seed, shapes = int(about["seed"]), json.loads(about["shapes"])
    return {**tensors, "weights": {key: published.formula_weight(key, shape, seed) for key, shape in shapes.items()}}


def tokenizer_of(weights, image_size=16):
    return from_open_magvit2(dict(weights), "x", image_size=image_size).eval().requires_grad_(False)


def test_latents_ids_and_pixels_are_those_of_the_published_code(record):
    tokenizer = tokenizer_of(record["weights"])
    assert published.largest_difference(tokenizer.latents(record["image"]), record["latents"]) < 1e-5
    assert record["latents"].abs().min() > 1e-6  # no sign is a matter of rounding
    assert len(record["codes"].unique()) > 100
    assert torch.equal(tokenizer.encode(record["image"]), record["codes"])
    expected = record["reconstruction"].clamp(0, 1)
    assert expected.std() > 0.1
    assert published.largest_difference(tokenizer.decode(record["codes"]), expected) < 1e-4
    assert (tokenizer.grid, tokenizer.codebook_size, tokenizer.lookup) == ((8, 8), 2**BITS, "signs")


FULL = {
    "open_magvit2_256_L": (256, 18, 115.13),
    "open_magvit2_128_L": (128, 18, 112.02),
    "open_magvit2_pretrain_16384": (256, 14, 115.09),
}


@pytest.mark.parametrize("name", FULL)
def test_full_size_checkpoints_convert(name):
    size, bits, millions = FULL[name]
    shapes = json.loads((published.FOLDER / "smaller_tokenizers.json").read_text())[name]
    with torch.device("meta"):
        tokenizer = tokenizer_of({key: torch.empty(shape) for key, shape in shapes.items()}, size)
    assert (tokenizer.grid, tokenizer.codebook_size) == ((16, 16), 2**bits)
    count = sum(parameter.numel() for parameter in tokenizer.parameters())
    assert count == sum(torch.Size(shape).numel() for shape in shapes.values())
    assert count / 1e6 == pytest.approx(millions, abs=0.01)


def test_the_averages_of_a_checkpoint_are_taken_for_its_weights(record):
    averages = {f"model_ema.{name.replace('.', '')}": tensor for name, tensor in record["weights"].items()}
    own = {name: torch.zeros_like(tensor) for name, tensor in record["weights"].items()}
    extra = {"model_ema.decay": torch.ones(()), "model_ema.num_updates": torch.ones(()), "loss.logvar": torch.ones(1)}
    tokenizer = tokenizer_of({**own, **averages, **extra})
    assert tokenizer.fingerprint == tokenizer_of(record["weights"]).fingerprint


@pytest.mark.parametrize(
    "change",
    [
        lambda weights: weights.clear(),
        lambda weights: weights.update({"encoder.extra.weight": torch.zeros(1)}),
        lambda weights: weights.pop("decoder.norm_out.bias"),
        lambda weights: weights.pop("decoder.adaptive.0.gamma.weight"),
        lambda weights: weights.pop("decoder.adaptive.1.gamma.weight"),
        lambda weights: weights.pop("encoder.down.0.block.0.conv1.weight"),
        lambda weights: weights.update({"decoder.conv_in.weight": torch.zeros(3)}),
        lambda weights: weights.update({"encoder.conv_in.weight": torch.zeros(32, 3, 3, 3, 3)}),  # of a video
        lambda weights: weights.update({"encoder.conv_out.weight": torch.zeros(25, 64, 1, 1)}),
    ],
)
def test_another_model_is_refused_in_one_line(record, change):
    weights = dict(record["weights"])
    change(weights)
    with pytest.raises(UserError) as refused:
        tokenizer_of(weights)
    assert tiny.one_line(str(refused.value)).startswith("x")


@pytest.mark.parametrize("size", [15, 1, 2, -16])
def test_images_that_make_no_grid_are_refused(record, size):
    with pytest.raises(UserError, match="image_size = "):
        tokenizer_of(record["weights"], size)


def test_the_command_imports_it_and_it_keeps_its_ids(record, tmp_path, capsys, monkeypatch):
    torch.save({"state_dict": record["weights"]}, tmp_path / "model.ckpt")
    flags = ["--kind", "open_magvit2", "--checkpoint", tmp_path / "model.ckpt", "--output_dir", tmp_path / "tokenizer"]
    monkeypatch.setattr(sys, "argv", ["import_tokenizer", *map(str, flags), "--image_size", "16", "--resize", "pad"])
    with pytest.raises(SystemExit) as stopped:
        stage.cli()
    out = capsys.readouterr()
    assert not stopped.value.code, out.err
    assert "8 x 8 tokens of 16 x 16 pixels, K = 131072, 136 bytes an image" in out.out
    tokenizer = load_tokenizer(tmp_path / "tokenizer")
    assert torch.equal(tokenizer.encode(record["image"]), record["codes"])
    assert tokenizer.preprocessing["lookup"] == "signs"
    cropping = tokenizer_of(record["weights"])
    assert tokenizer.fingerprint != cropping.fingerprint
    cropping.resize = "pad"
    assert tokenizer.fingerprint == cropping.fingerprint


def test_an_id_is_the_sum_of_the_places_of_its_positive_entries():
    tokenizer = LookupFreeTokenizer(LookupFreeConfig(image_size=(4, 2), widths=(32, 32), blocks=1, bits=5)).eval()
    images = torch.rand(3, 3, 4, 2)
    with torch.no_grad():
        latents, ids = tokenizer.latents(images), tokenizer.encode(images)
    expected = [sum(2**bit for bit in range(5) if latents[b, bit, y, 0] > 0) for b in range(3) for y in range(2)]
    assert ids.flatten().tolist() == expected
    assert torch.equal(tokenizer.codebook[ids].permute(0, 3, 1, 2), torch.where(latents > 0, 1.0, -1.0))
