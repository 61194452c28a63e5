"""The open encoder: its stems, its positions on other grids, its features on the way, and the weights of before."""

import copy
import itertools
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed

import tiny
from seitpp import mtm
from seitpp.mtm.encoder import EncoderConfig, TokenEncoder, pool
from seitpp.mtm.formats.hub import HubMaskedTokenModel
from seitpp.mtm.formats.timm_vit import timm_config, timm_weights, token_table
from seitpp.mtm.masking import Masks
from seitpp.mtm.patches import interpolate_positions, patchify, unpatchify
from seitpp.mtm.stems import PatchStem, PixelStem, StemAdapter
from seitpp.tokenizers.positions import sincos_positions

CONFIG = EncoderConfig(width=24, depth=4, heads=3, token_dropout=0.0, embedding_std=0.5)
VIEW = (4, 6)  # 2 x 3 patches of 2 x 2 tokens
FROZEN = Path(__file__).parent / "frozen_weights"  # written by seitpp before the encoder had a stem


def make_encoder(*, kind="patches", config=CONFIG, view=VIEW, seed=0, **fields):
    torch.manual_seed(seed)
    stem = PatchStem(config, codebook_size=tiny.CODES, embedding_dim=5)
    if kind == "adapter":
        stem = StemAdapter(config, embedding_dim=5)
    return TokenEncoder(config, stem, view=view, **fields).eval()


def inputs_of(kind, view=VIEW, samples=3):
    if kind == "patches":
        return tiny.random_ids(samples, tiny.CODES, view)
    return torch.from_numpy(np.random.default_rng(0).standard_normal((samples, 5, *view))).float()


# Patches


@pytest.mark.parametrize("side", [1, 2, 3])
def test_patches_are_cut_row_by_row_and_put_together_again(side):
    maps = torch.arange(2 * 6 * 12).reshape(2, 6, 12)
    patches = patchify(maps, side)
    columns = 12 // side
    assert patches.shape == (2, 6 * 12 // side**2, side**2)
    for sample, patch, token in np.ndindex(*patches.shape):
        row, column = side * (patch // columns) + token // side, side * (patch % columns) + token % side
        assert patches[sample, patch, token] == maps[sample, row, column]
    assert torch.equal(unpatchify(patches, (6 // side, columns), side), maps)


def test_an_encoder_cuts_and_joins_maps_of_its_view():
    encoder, maps = make_encoder(), torch.arange(48).reshape(2, 4, 6)
    assert (encoder.view, encoder.patch_grid, encoder.patch_size) == (VIEW, (2, 3), 2)
    assert encoder.patchify(maps)[0, 1].tolist() == [2, 3, 8, 9]
    assert torch.equal(encoder.unpatchify(encoder.patchify(maps)), maps)


# Stems


@torch.no_grad()
def test_a_stem_adapter_is_a_4_x_4_convolution_of_stride_2_with_a_border_of_zeros():
    stem, maps = make_encoder(kind="adapter").stem.double(), inputs_of("adapter").double()
    weight, bias = stem.patches.weight.numpy(), stem.patches.bias.numpy()
    padded = np.pad(maps.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    patches = stem(maps)
    assert patches.shape == (3, 6, 24)
    for sample, patch in np.ndindex(3, 6):
        row, column = 2 * (patch // 3), 2 * (patch % 3)
        seen = padded[sample, :, row : row + 4, column : column + 4]
        assert patches[sample, patch].numpy() == pytest.approx(bias + (weight * seen).sum(axis=(1, 2, 3)), abs=1e-9)


def test_a_stem_adapter_takes_embeddings_alone():
    with pytest.raises(ValueError, match=r"embeddings \(b, c, h, w\), got int64 of shape \(3, 4, 6\)"):
        make_encoder(kind="adapter")(inputs_of("patches"))


def test_a_stem_adapter_of_another_patch_size_is_refused():
    with pytest.raises(ValueError, match="patch_size = 4 must be 2"):
        StemAdapter(EncoderConfig(patch_size=4), embedding_dim=5)


@pytest.mark.parametrize("kind", ["patches", "adapter"])
def test_every_parameter_of_an_encoder_gets_a_gradient(kind):
    encoder = make_encoder(kind=kind, learned_positions=True)
    encoder.pooled(inputs_of(kind)).square().sum().backward()
    assert [name for name, each in encoder.named_parameters() if each.grad is None or not each.grad.any()] == []


@pytest.mark.parametrize("kind", ["patches", "adapter"])
def test_the_convolution_of_a_stem_begins_as_the_linear_map_of_a_patch_would(kind):
    config = EncoderConfig(width=96, depth=1, heads=3, patch_size=2)
    weight = make_encoder(kind=kind, config=config).stem.patches.weight.detach()
    bound = np.sqrt(6 / (96 + weight[0].numel()))  # Xavier uniform
    assert 0.95 * bound < float(weight.abs().max()) <= bound


# Views


def test_a_view_that_does_not_divide_into_patches_is_refused():
    with pytest.raises(ValueError, match=r"\(4, 5\).*patches of 2"):
        make_encoder(view=(4, 5))


def test_an_input_that_is_not_of_the_views_size_is_refused_though_it_has_as_many_patches():
    with pytest.raises(ValueError, match=r"sees \(4, 6\) tokens, got \(6, 4\)"):
        make_encoder()(inputs_of("patches", (6, 4)))


@pytest.mark.parametrize(
    ("before", "now"), [((3, 4), (5, 2)), ((2, 2), (6, 7)), ((6, 5), (2, 3)), ((14, 14), (16, 16))]
)
def test_learned_tables_are_interpolated_as_timm_does(before, now):
    table = torch.from_numpy(np.random.default_rng(0).standard_normal((before[0] * before[1], 8))).float()
    expected = resample_abs_pos_embed(table[None], list(now), list(before), num_prefix_tokens=0)[0]
    assert interpolate_positions(table, before, now).numpy() == pytest.approx(expected.numpy(), abs=1e-6)


def test_a_table_of_the_same_grid_stays_as_it_is_and_one_of_as_many_patches_does_not():
    table = torch.from_numpy(np.random.default_rng(0).standard_normal((36, 8))).float()
    assert torch.equal(interpolate_positions(table, (4, 9), (4, 9)), table)
    assert not torch.equal(interpolate_positions(table, (4, 9), (6, 6)), table)


def test_a_table_of_another_grid_is_refused():
    with pytest.raises(ValueError, match="2 x 3 patches has 6 rows, got 7"):
        interpolate_positions(torch.zeros(7, 8), (2, 3), (4, 4))


@torch.no_grad()
@pytest.mark.parametrize("learned", [False, True])
def test_an_encoder_is_set_to_another_view_and_is_the_same_where_the_view_is(learned):
    encoder, ids = make_encoder(learned_positions=learned), inputs_of("patches")
    before, table = encoder(ids), encoder.pos_embed
    encoder.set_view(VIEW)
    assert torch.equal(encoder(ids), before)
    encoder.set_view((8, 10))
    assert (encoder.view, encoder.patch_grid, encoder.position_view) == ((8, 10), (4, 5), VIEW)
    assert encoder(inputs_of("patches", (8, 10))).shape == (3, 1 + 20, 24)
    assert isinstance(encoder.pos_embed, torch.nn.Parameter) == learned
    if learned:
        assert torch.equal(encoder.pos_embed, interpolate_positions(table, (2, 3), (4, 5)))
    else:
        assert torch.equal(encoder.pos_embed, sincos_positions(24, (4, 5), spanning=(2, 3)))
        encoder.set_view(VIEW)
        assert torch.equal(encoder(ids), before)


@torch.no_grad()
def test_an_encoder_that_is_made_for_another_view_is_the_one_that_is_set_to_it():
    ids, old = inputs_of("patches", (8, 10)), make_encoder()
    new = make_encoder(view=(8, 10), position_view=VIEW, seed=1)
    new.load_state_dict(old.state_dict())
    old.set_view((8, 10))
    assert torch.equal(new(ids), old(ids))
    assert not torch.equal(new(ids), make_encoder(view=(8, 10))(ids))  # which counts places in steps of one


def test_setting_a_view_keeps_type_and_frozenness():
    encoder = make_encoder(learned_positions=True).double().requires_grad_(False)
    encoder.set_view((6, 6))
    assert (encoder.pos_embed.dtype, encoder.pos_embed.requires_grad) == (torch.float64, False)
    encoder = make_encoder().double()
    encoder.set_view((6, 6))
    assert encoder.pos_embed.dtype == torch.float64
    assert "pos_embed" not in encoder.state_dict()


def test_a_view_that_is_refused_changes_nothing():
    encoder = make_encoder()
    with pytest.raises(ValueError, match=r"\(4, 5\)"):
        encoder.set_view((4, 5))
    assert (encoder.view, encoder.patch_grid, len(encoder.pos_embed)) == (VIEW, (2, 3), 6)


def test_fixed_tables_of_a_finer_grid_are_near_the_interpolated_ones_inside():
    """MAE interpolates its fixed table: to evaluate it between is the same but for the error of interpolation."""
    exact = sincos_positions(32, (20, 20), spanning=(14, 14)).reshape(20, 20, 32)[3:-3, 3:-3]
    bicubic = interpolate_positions(sincos_positions(32, (14, 14)), (14, 14), (20, 20)).reshape(20, 20, 32)[3:-3, 3:-3]
    in_steps_of_one = sincos_positions(32, (20, 20)).reshape(20, 20, 32)[3:-3, 3:-3]
    assert float((exact - bicubic).abs().max()) < 0.1
    assert float((exact - in_steps_of_one).abs().max()) > 1.0


# Pooling and norm


@torch.no_grad()
def test_pooling_is_over_patches_or_of_the_cls_token_after_the_norm():
    encoder, ids = make_encoder(), inputs_of("patches")
    normed = encoder.norm(encoder(ids))
    assert encoder.pooled(ids).numpy() == pytest.approx(normed[:, 1:].numpy().mean(axis=1), abs=1e-6)
    assert torch.equal(encoder.pooled(ids, "cls"), normed[:, 0])


def test_another_pooling_is_refused():
    with pytest.raises(ValueError, match="mean or cls, got 'max'"):
        pool(torch.zeros(1, 2, 3), "max")


def test_an_encoder_without_a_final_norm_has_no_such_weights():
    bare, whole = make_encoder(final_norm=False), make_encoder()
    assert set(whole.state_dict()) - set(bare.state_dict()) == {"norm.weight", "norm.bias"}
    assert torch.equal(bare.norm(torch.ones(2, 24)), torch.ones(2, 24))


# Features on the way


def intermediates_slowly(encoder, ids, wanted, norm):
    """(final features, [(patches, cls)]): one block after the other."""
    x = torch.cat([encoder.cls_token.expand(len(ids), -1, -1), encoder.embed(ids) + encoder.pos_embed], dim=1)
    taken = []
    for index, block in enumerate(encoder.blocks):
        x = block(x)
        if index in wanted:
            taken.append(encoder.norm(x) if norm else x)
    return encoder.norm(x), [(each[:, 1:], each[:, :1]) for each in taken]


OPTIONS = list(itertools.product([None, 1, 3, [0, 2], (-1, 1)], [False, True], ["NCHW", "NLC"]))


@torch.no_grad()
@pytest.mark.parametrize(("indices", "norm", "output_fmt"), OPTIONS)
def test_intermediates_are_those_of_the_loop_over_blocks(indices, norm, output_fmt):
    encoder, ids = make_encoder(), inputs_of("patches")
    wanted = {None: {0, 1, 2, 3}, 1: {3}, 3: {1, 2, 3}}[indices] if not isinstance(indices, list | tuple) else None
    wanted = wanted or {index % 4 for index in indices}
    final, expected = intermediates_slowly(encoder, ids, wanted, norm)
    found_final, found = encoder.forward_intermediates(
        ids, indices, return_prefix_tokens=True, norm=norm, output_fmt=output_fmt
    )
    assert torch.equal(found_final, final)
    assert len(found) == len(expected) == len(wanted)
    for (patches, cls), (wanted_patches, wanted_cls) in zip(found, expected, strict=True):
        if output_fmt == "NCHW":
            assert patches.shape == (3, 24, 2, 3)
            patches = torch.stack([patches[:, :, patch // 3, patch % 3] for patch in range(6)], dim=1)
        assert torch.equal(patches, wanted_patches)
        assert torch.equal(cls, wanted_cls)


@torch.no_grad()
def test_intermediates_alone_stop_after_the_last_that_is_asked_for():
    encoder, ids = make_encoder(), inputs_of("patches")
    whole = encoder.forward_intermediates(ids, [0, 2], intermediates_only=True)
    encoder.blocks[3].register_forward_hook(lambda *_: pytest.fail("the last block ran"))
    stopped = encoder.forward_intermediates(ids, [0, 2], stop_early=True, intermediates_only=True)
    assert len(whole) == len(stopped) == 2
    assert all(torch.equal(one, other) for one, other in zip(whole, stopped, strict=True))


@torch.no_grad()
@pytest.mark.parametrize(("indices", "norm", "output_fmt"), OPTIONS)
@pytest.mark.parametrize("stop_early", [False, True])
def test_intermediates_are_those_of_timms_vit(indices, norm, output_fmt, stop_early):
    encoder, ids = make_encoder(), inputs_of("patches")
    config = timm_config(encoder, encoder.stem.embeddings.embedding_dim)
    vit = timm.create_model(config["architecture"], num_classes=0, **config["model_args"]).eval()
    vit.load_state_dict(timm_weights(encoder))
    pixels = token_table(encoder)[ids].permute(0, 3, 1, 2)
    options = {"indices": indices, "norm": norm, "output_fmt": output_fmt, "stop_early": stop_early}
    final, expected = vit.forward_intermediates(pixels, **options)
    found_final, found = encoder.forward_intermediates(ids, **options)
    for one, other in zip([found_final, *found], [final, *expected], strict=True):
        assert one.shape == other.shape
        assert float((one - other).abs().max()) < 1e-5


@torch.no_grad()
def test_intermediates_of_a_stem_adapter_are_maps_too():
    (last,) = make_encoder(kind="adapter").forward_intermediates(inputs_of("adapter"), 1, intermediates_only=True)
    assert last.shape == (3, 24, 2, 3)


@pytest.mark.parametrize("indices", [0, 5, -1, [4], [-5], []])
def test_blocks_that_are_not_there_are_refused(indices):
    with pytest.raises(ValueError, match="of 4 blocks"):
        make_encoder().forward_intermediates(inputs_of("patches"), indices)


def test_another_output_format_is_refused():
    with pytest.raises(ValueError, match="NCHW or NLC, got 'NHWC'"):
        make_encoder().forward_intermediates(inputs_of("patches"), output_fmt="NHWC")


# Weights of before


@pytest.fixture(scope="module")
def expected():
    return load_file(FROZEN / "expected.safetensors")


@torch.no_grad()
@pytest.mark.parametrize("load", [mtm.load, lambda folder: HubMaskedTokenModel.from_pretrained(folder).eval()])
def test_weights_that_were_written_before_there_were_stems_compute_what_they_did(expected, load):
    names = load_file(FROZEN / "mtm" / "model.safetensors").keys()
    assert {"encoder.embeddings.weight", "encoder.embedding_norm.bias", "encoder.patches.weight"} <= names
    model = load(FROZEN / "mtm")
    masked, dropped = expected["masked"], expected["dropped"]
    masks = Masks(masked, dropped, int(masked[0].sum()), int(dropped[0].sum()))
    latent = model.encode(expected["ids"], masks)
    logits = model.logits(model.decode(latent, masks))
    for name, tensor in {"latent": latent, "logits": logits, "pooled": model.encoder.pooled(expected["ids"])}.items():
        assert tensor.numpy() == pytest.approx(expected[name].numpy(), abs=1e-5), name


def test_loading_weights_of_before_does_not_change_the_callers_dict(expected):
    state = {
        name.removeprefix("encoder."): tensor
        for name, tensor in load_file(FROZEN / "mtm" / "model.safetensors").items()
        if name.startswith("encoder.")
    }
    names = list(state)
    encoder = copy.deepcopy(mtm.load(FROZEN / "mtm").encoder)  # as averaging copies it
    encoder.load_state_dict(state)
    assert list(state) == names
    with torch.no_grad():
        assert encoder.pooled(expected["ids"]).numpy() == pytest.approx(expected["pooled"].numpy(), abs=1e-5)


def test_a_pixel_stem_is_a_convolution_of_whole_patches_written_out_as_a_loop():
    config = EncoderConfig(width=8, depth=1, heads=2, patch_size=4)
    stem = PixelStem(config).double()
    stem.initialise_patches()
    pixels = torch.from_numpy(np.random.default_rng(0).random((2, 3, 8, 12)))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    weight, bias = stem.patches.weight.detach().numpy(), stem.patches.bias.detach().numpy()
    expected = np.zeros((2, 6, 8))
    for sample, row, column, width in np.ndindex(2, 2, 3, 8):
        total = bias[width]
        for channel, down, right in np.ndindex(3, 4, 4):
            value = pixels[sample, channel, 4 * row + down, 4 * column + right].item()
            total += weight[width, channel, down, right] * (value - mean[channel]) / std[channel]
        expected[sample, 3 * row + column, width] = total
    np.testing.assert_allclose(stem(pixels).detach().numpy(), expected, atol=1e-6)


def test_an_encoder_of_pixels_has_the_patches_and_positions_of_the_one_of_tokens():
    shape = {"width": 8, "depth": 1, "heads": 2}
    tokens_config = EncoderConfig(**shape, patch_size=2)
    tokens = TokenEncoder(
        tokens_config, PatchStem(tokens_config, codebook_size=tiny.CODES, embedding_dim=5), view=tiny.GRID
    )
    config = EncoderConfig(**shape, patch_size=8)
    pixels = TokenEncoder(config, PixelStem(config), view=(16, 24))
    assert pixels.patch_grid == tokens.patch_grid == (2, 3)
    assert torch.equal(pixels.pos_embed, tokens.pos_embed)
    assert pixels(torch.rand(2, 3, 16, 24)).shape == (2, 7, 8)
