"""ViT-VQGAN: equal to the published model, loaded from whatever it was published in."""

import argparse

import numpy as np
import pytest
import torch
from torch import nn

import published
import tiny
from seitpp.runtime.errors import UserError
from seitpp.runtime.foreign.state_dict import read_state_dict
from seitpp.tokenizers.networks.foreign_vit import from_published
from seitpp.tokenizers.networks.vit_vqgan import TransformerConfig, ViTVQGAN, ViTVQGANConfig
from seitpp.tokenizers.tokenizer import load_tokenizer
from vit_checkpoint import SQUARE, TINY, as_published, module_of


@pytest.fixture
def tokenizer():
    torch.manual_seed(0)
    return ViTVQGAN(TINY).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def recorded():
    return published.recording("vit_vqgan")


@pytest.fixture(scope="module")
def weights():
    return published.published_weights("vit_vqgan")


@pytest.fixture(scope="module")
def loaded(weights, recorded):
    side = recorded["image"].shape[-1]
    return from_published(weights, "the recording", image_size=side).eval().requires_grad_(False)


# The published model


def test_parity_of_the_latents(loaded, recorded):
    latents = loaded.latents(recorded["image"]).flatten(2).mT
    assert published.largest_difference(latents, recorded["pre_quant"]) < 1e-4


def test_parity_of_the_codes(loaded, recorded):
    assert torch.equal(loaded.encode(recorded["image"]).flatten(1), recorded["codes"].long())


def test_parity_of_the_reconstruction(loaded, recorded):
    ids = recorded["codes"].long().unflatten(1, loaded.grid)
    embeddings = loaded.codebook[ids].permute(0, 3, 1, 2)
    assert published.largest_difference(loaded.pixels(embeddings), recorded["reconstruction"]) < 1e-4
    assert published.largest_difference(loaded.decode(ids), recorded["reconstruction"].clamp(0, 1)) < 1e-4


def test_the_published_shape_is_found_in_the_tensors(loaded, weights, recorded):
    sides = {
        side: TransformerConfig(
            width=weights[f"{side}.transformer.norm.weight"].numel(),
            depth=published.block_count(weights, f"{side}.transformer.layers."),
            heads=weights[f"{side}.transformer.layers.0.0.fn.to_out.weight"].shape[1] // 64,
            mlp=weights[f"{side}.transformer.layers.0.1.fn.net.0.bias"].numel(),
        )
        for side in ("encoder", "decoder")
    }
    codes, dim = weights["quantizer.embedding.weight"].shape
    patch = weights["encoder.to_patch_embedding.0.weight"].shape[-1]
    assert loaded.config == ViTVQGANConfig(
        image_size=tuple(recorded["image"].shape[2:]), patch_size=patch, codebook_size=codes, codebook_dim=dim, **sides
    )


def linear(inputs, outputs):
    return inputs * outputs + outputs


def transformer(width, depth, heads, mlp):
    attention = 3 * 64 * heads * width + linear(64 * heads, width)
    return depth * (attention + linear(width, mlp) + linear(mlp, width) + 4 * width) + 2 * width


@pytest.mark.parametrize(
    ("encoder", "decoder", "expected"),
    [((512, 8, 8, 2048), (512, 8, 8, 2048), 50_908_195), ((512, 8, 8, 2048), (1280, 32, 16, 5120), None)],
)
def test_the_full_size_has_the_right_number_of_parameters(encoder, decoder, expected):
    with torch.device("meta"):
        shapes = [TransformerConfig(width=w, depth=d, heads=h, mlp=m) for w, d, h, m in (encoder, decoder)]
        tokenizer = ViTVQGAN(ViTVQGANConfig(encoder=shapes[0], decoder=shapes[1]))
    patches = linear(3 * 8 * 8, encoder[0]) + decoder[0] * 3 * 8 * 8 + 3
    codes = 8192 * 32 + linear(encoder[0], 32) + linear(32, decoder[0])
    count = sum(parameter.numel() for parameter in tokenizer.parameters())
    assert count == patches + codes + transformer(*encoder) + transformer(*decoder)
    assert expected in (None, count)
    assert (tokenizer.grid, tokenizer.codebook_size) == ((32, 32), 8192)


# The protocol


def test_ids_have_the_grid_and_images_the_size(tokenizer):
    ids = tokenizer.encode(torch.rand(2, 3, 12, 20))
    assert (ids.shape, ids.dtype) == ((2, 3, 5), torch.int64)
    decoded = tokenizer.decode(ids)
    assert decoded.shape == (2, 3, 12, 20)
    assert 0 <= float(decoded.min()) <= float(decoded.max()) <= 1


def test_an_id_is_the_code_of_the_nearest_direction(tokenizer):
    images = torch.rand(2, 3, 12, 20)
    latents, codes, ids = tokenizer.latents(images).numpy(), tokenizer.codes.numpy(), tokenizer.encode(images)
    for sample, row, column in np.ndindex(2, 3, 5):
        cosines = [code @ latents[sample, :, row, column] / np.linalg.norm(code) for code in codes]
        assert cosines[ids[sample, row, column]] == pytest.approx(max(cosines), abs=1e-5)


def test_the_length_of_a_code_means_nothing(tokenizer):
    images = torch.rand(1, 3, 12, 20)
    ids = tokenizer.encode(images)
    decoded = tokenizer.decode(ids)
    assert tokenizer.codebook.norm(dim=1).tolist() == pytest.approx([1.0] * 11)
    tokenizer.codes.mul_(torch.linspace(0.1, 9.0, 11)[:, None])
    assert torch.equal(tokenizer.encode(images), ids)
    assert tokenizer.decode(ids).numpy() == pytest.approx(decoded.numpy(), abs=1e-5)


def test_a_saved_tokenizer_is_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    images = torch.rand(2, 3, 12, 20)
    assert torch.equal(again.encode(images), tokenizer.encode(images))
    assert (again.config, again.fingerprint) == (tokenizer.config, tokenizer.fingerprint)
    assert again.preprocessing["range"] == [0, 1]


@pytest.mark.parametrize("wrong", [{"image_size": (12, 21)}, {"image_size": (0, 20)}, {"codebook_size": 1}])
def test_impossible_shapes_are_refused(wrong):
    with pytest.raises(UserError, match=f"ViTVQGANConfig: {next(iter(wrong))} = "):
        ViTVQGANConfig(**{"image_size": (12, 20), "patch_size": 4, **wrong})


# Published checkpoints


@pytest.fixture
def square():
    torch.manual_seed(1)
    return ViTVQGAN(SQUARE).eval().requires_grad_(False)


def assert_same_tokenizer(found, expected):
    images = torch.rand(1, 3, *expected.image_size)
    assert torch.equal(found.encode(images), expected.encode(images))
    ids = tiny.random_ids(1, expected.codebook_size, expected.grid)
    assert torch.equal(found.decode(ids), expected.decode(ids))
    assert found.fingerprint == expected.fingerprint


def test_every_published_weight_finds_its_place(square):
    assert_same_tokenizer(from_published(as_published(square), "x"), square)


@pytest.mark.parametrize(
    "wrap", [lambda w: w, lambda w: {"state_dict": w, "args": argparse.Namespace(a=1), "epoch": 3}]
)
def test_a_checkpoint_file_gives_the_tokenizer(square, tmp_path, wrap):
    torch.save(wrap(as_published(square)), tmp_path / "vit.ckpt")
    assert_same_tokenizer(from_published(read_state_dict(tmp_path / "vit.ckpt"), "x"), square)


def test_a_pickled_module_gives_the_tokenizer(square, tmp_path):
    module = module_of(as_published(square))
    module.scheduler = argparse.Namespace(start=1.0)
    torch.save(module, tmp_path / "tokenizer.ckpt")
    assert_same_tokenizer(from_published(read_state_dict(tmp_path / "tokenizer.ckpt"), "x"), square)


def test_an_encoder_alone_encodes_with_a_codebook_beside_it(square, tmp_path):
    module = module_of(as_published(square))
    torch.save(nn.Sequential(module.encoder, module.pre_quant), tmp_path / "tokenizer.ckpt")
    weights = read_state_dict(tmp_path / "tokenizer.ckpt")
    with pytest.raises(UserError, match="give one with --codebook"):
        from_published(weights, "x")
    kept = square.codes[[2, 5, 7]]
    tokenizer = from_published(weights, "x", codebook=kept).requires_grad_(False)
    images = torch.rand(2, 3, 20, 20)
    cosines = torch.einsum("bchw,kc->bkhw", square.latents(images), torch.nn.functional.normalize(kept, dim=1))
    assert torch.equal(tokenizer.encode(images), cosines.argmax(1))
    with pytest.raises(UserError, match="has no decoder"):
        tokenizer.decode(tokenizer.encode(images))
    tokenizer.save(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved").fingerprint == tokenizer.fingerprint


def test_fewer_codes_can_replace_the_checkpoints_own(square):
    tokenizer = from_published(as_published(square), "x", codebook=square.codes[:4])
    assert tokenizer.codebook_size == 4
    ids = tiny.random_ids(2, 4, square.grid)
    assert torch.equal(tokenizer.decode(ids), square.decode(ids))


def without(name):
    return lambda weights: weights.pop(name)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (without("pre_quant.bias"), "x lacks pre_quant.bias"),
        (without("encoder.to_patch_embedding.0.weight"), "x is no ViT-VQGAN ('to_patches.weight' is missing"),
        (without("decoder.transformer.layers.0.0.norm.weight"), "x is no ViT-VQGAN ('decoder.blocks.0.attention_norm"),
        (without("quantizer.embedding.weight"), "x has no codebook"),
        (without("post_quant.weight"), "x has an unknown"),
        (lambda weights: weights.update(extra=torch.zeros(2)), "x has an unknown extra"),
        (lambda weights: weights.update({"encoder.blocks.0.out.extra": torch.zeros(2)}), "x has an unknown encoder.bl"),
        (lambda weights: weights.update({"pre_quant.bias": torch.zeros(2)}), "x: pre_quant.bias has the shape (2,)"),
        (lambda weights: weights["encoder.en_pos_embedding"].neg_(), "x: the positions of its encoder are not sine"),
        (
            lambda weights: weights.update({"decoder.de_pos_embedding": torch.zeros(1, 24, 16)}),
            "x: the positions of its decoder are not sine",
        ),
    ],
)
def test_another_model_is_refused_in_one_line(square, change, line):
    weights = as_published(square)
    change(weights)
    with pytest.raises(UserError) as refused:
        from_published(weights, "x")
    assert tiny.one_line(str(refused.value)).startswith(line)


def test_another_image_size_than_the_positions_are_for_is_refused(square):
    with pytest.raises(UserError, match="made for images of 20 pixels, not 24"):
        from_published(as_published(square), "x", image_size=24)
