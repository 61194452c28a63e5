"""TokenAdapt: f and g, what is measured of them, and their training."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import published
import tiny
from seitpp.runtime.errors import UserError
from seitpp.runtime.run_folder import read_metrics
from seitpp.tokenadapt import train as stage
from seitpp.tokenadapt.geometry import IDENTITY, GeometryConfig, sample_geometry, warp
from seitpp.tokenadapt.measure import METHODS, agreement_table, transformed_ids
from seitpp.tokenadapt.model import TokenAdapt, TokenAdaptConfig, adapt_ids, load_token_adapt
from seitpp.tokenadapt.published import from_published, to_published
from seitpp.tokenizers.sources.images import ImageBatches, open_image_folder, read_all, split_rows
from seitpp.tokenizers.sources.tolerant_reader import TolerantReader
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.codebook import embed
from seitpp.training.random_streams import Draws


def make_model(grid=(2, 3), view=(4, 5), **fields):
    torch.manual_seed(0)
    config = TokenAdaptConfig(width=64, **fields)
    return TokenAdapt(config, grid=grid, view=view, codebook_size=37, embedding_dim=5).eval()


@pytest.fixture(scope="module")
def published_model():
    weights = published.published_weights("tokenadapt")
    return from_published(weights, "the recording", grid=(32, 32), view=(28, 28))


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder):
    return load_tokenizer(tokenizer_folder)


@pytest.fixture(scope="module")
def pixels(images):
    return read_all(open_image_folder(images), range(12), tiny.IMAGE_SIZE)


# f and g


def test_of_very_many_codes_g_tells_the_two_numbers_of_an_id():
    torch.manual_seed(0)
    sizes = {"grid": (2, 3), "view": (4, 5), "codebook_size": 2**17, "embedding_dim": 5}
    model = TokenAdapt(TokenAdaptConfig(width=64), **sizes).eval()
    features = torch.randn(2, 5, 8, 10)
    logits = model.g(features)
    assert logits.shape == (2, 32 + 4096, 4, 5)
    ids = adapt_ids(model, torch.randn(2, 5, 2, 3), lambda _: features)
    assert torch.equal(ids, logits[:, :32].argmax(1) + 32 * logits[:, 32:].argmax(1))
    with pytest.raises(UserError, match="this TokenAdapt splits its ids"):
        to_published(model)


@pytest.mark.parametrize("mixer", ["attention", "convolution"])
def test_f_doubles_the_grid_and_g_halves_the_view(mixer):
    model = make_model(mixer=mixer)
    assert model.map_size == (8, 10)
    features = model.f(torch.randn(2, 5, 2, 3))
    assert features.shape == (2, 5, 4, 6)
    assert model.g(torch.randn(2, 5, 8, 10)).shape == (2, 37, 4, 5)


def test_the_map_between_f_and_g_may_be_finer_with_fewer_channels():
    model = make_model(map_scale=3, map_channels=2)
    assert model.map_size == (12, 15)
    assert model.f(torch.randn(2, 5, 2, 3)).shape == (2, 2, 6, 9)
    assert model.g(torch.randn(2, 2, 12, 15)).shape == (2, 37, 4, 5)


def test_the_transform_stands_between_f_and_g():
    model, embeddings = make_model(), torch.randn(2, 5, 2, 3)
    geometry = sample_geometry(GeometryConfig(), Draws(0, 0, torch.arange(2)), 1.5)
    logits = model(embeddings, partial(warp, geometry=geometry, size=(8, 10)))
    expected = model.g(warp(model.f(embeddings), geometry, (8, 10)))
    assert torch.equal(logits, expected)
    ids = adapt_ids(model, embeddings, partial(warp, geometry=geometry, size=(8, 10)))
    assert ids.tolist() == expected.detach().numpy().argmax(1).tolist()


@torch.no_grad()
@pytest.mark.parametrize(("mixer", "reach"), [("attention", 13), ("convolution", 4)])
def test_attention_sees_the_whole_grid_and_two_convolutions_four_tokens_to_each_side(mixer, reach):
    model = make_model(grid=(1, 14), view=(1, 14), mixer=mixer, depth=2)
    embeddings = torch.randn(1, 5, 1, 14)
    changed = embeddings.clone()
    changed[..., 0] += 1.0
    difference = (model.f(changed) - model.f(embeddings)).abs().amax(dim=(0, 1, 2))
    touched = (difference.reshape(14, 2).amax(1) > 1e-6).nonzero()[:, 0]
    assert touched.tolist() == list(range(reach + 1))


@torch.no_grad()
def test_convolutions_know_a_place_by_the_borders_alone():
    short, long = (make_model(grid=(2, width), mixer="convolution") for width in (6, 9))
    embeddings = torch.randn(1, 5, 2, 9)
    inner = short.f(embeddings[..., :6])[..., :8]  # four tokens, two from the border that only the short one has
    assert torch.allclose(inner, long.f(embeddings)[..., :8], atol=1e-6)


@torch.no_grad()
def test_parity_of_f(published_model):
    recorded = published.recording("tokenadapt")
    converted = published_model.f(recorded["embedding"])
    assert published.largest_difference(converted[:, ::4], recorded["converted_every_4th_channel"]) < 1e-4


@torch.no_grad()
def test_parity_of_g(published_model):
    recorded = published.recording("tokenadapt")
    logits = published_model.g(recorded["augmented"]).flatten(2).transpose(1, 2)
    assert published.largest_difference(logits[:, ::16], recorded["code_logits_every_16th"]) < 1e-4
    best = logits.topk(2).values
    close = best[..., 0] - best[..., 1] < 1e-4
    assert (close | (logits.argmax(2) == recorded["codes"])).all()


@pytest.mark.parametrize("wrong", [{"width": 100}, {"width": 0}, {"depth": 0}, {"map_scale": 0}, {"map_channels": 0}])
def test_impossible_shapes_are_refused(wrong):
    with pytest.raises(UserError, match=f"TokenAdaptConfig: {next(iter(wrong))}"):
        TokenAdaptConfig(**wrong)


# Measures


@torch.no_grad()
def test_naive_ids_of_flipped_images_are_flipped_ids(tokenizer, pixels):
    mirror = torch.eye(3).repeat(12, 1, 1)
    mirror[:, 0, 0] = -1.0
    model = make_model(tiny.GRID, tiny.GRID)
    ids = transformed_ids("naive id", model, tokenizer, pixels, mirror)
    assert torch.equal(ids, tokenizer.encode(pixels).flip(2))
    embedded = transformed_ids("naive embedding", model, tokenizer, pixels, mirror)
    assert torch.equal(embedded, tokenizer.encode(pixels).flip(2))
    by_pixels = transformed_ids("decode, warp, encode", model, tokenizer, pixels, mirror)
    assert torch.equal(by_pixels, tokenizer.encode(tokenizer.decode(tokenizer.encode(pixels)).flip(3)))


@torch.no_grad()
def test_token_adapt_of_flipped_images_flips_the_map_between_f_and_g(tokenizer, pixels):
    model = make_model(tiny.GRID, tiny.GRID)
    mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0])).expand(12, 3, 3)
    features = model.f(embed(tokenizer.encode(pixels), tokenizer.codebook))
    ids = transformed_ids("TokenAdapt", model, tokenizer, pixels, mirror)
    assert torch.equal(ids, model.g(features.flip(3)).argmax(1))
    assert not torch.equal(ids, model.g(features).argmax(1))


@torch.no_grad()
def test_the_table_of_agreement_counts_equal_ids(tokenizer, pixels):
    model = make_model(tiny.GRID, tiny.GRID)
    table = agreement_table(model, tokenizer, pixels, GeometryConfig(), seed=0).set_index(["geometry", "method"])
    ids, flipped = tokenizer.encode(pixels), tokenizer.encode(pixels.flip(3))
    row = table.loc["flip", "naive id"]
    assert row.agreement == pytest.approx(float((ids.flip(2) == flipped).double().mean()))
    background = np.bincount(ids.flatten().numpy()).argmax()
    foreground = (flipped != background).numpy()
    equal = (ids.flip(2) == flipped).numpy()
    assert row.agreement_foreground == pytest.approx(equal[foreground].mean())
    errors = (tokenizer.decode(ids.flip(2)) - pixels.flip(3)).square().flatten(1).mean(1).numpy()
    assert row.psnr == pytest.approx((-10 * np.log10(errors)).mean(), abs=1e-3)
    limit = (tokenizer.decode(flipped) - pixels.flip(3)).square().flatten(1).mean(1).numpy()
    assert table.loc["flip", "tokenizer"].psnr == pytest.approx((-10 * np.log10(limit)).mean(), abs=1e-3)


def test_the_identity_is_measured_as_the_identity_on_any_aspect(tokenizer, pixels):
    model = make_model(tiny.GRID, tiny.GRID)
    table = agreement_table(model, tokenizer, pixels, GeometryConfig(), seed=0).set_index(["geometry", "method"])
    assert table.loc[("identity", "naive id"), "agreement"] == 1.0
    assert table.loc[("identity", "naive embedding"), "agreement"] == 1.0


def test_the_table_has_every_geometry_and_method(tokenizer, pixels):
    table = agreement_table(make_model(tiny.GRID, tiny.GRID), tokenizer, pixels, GeometryConfig(), seed=0)
    assert set(table.method) == {*METHODS, "tokenizer"}
    assert set(table.geometry) == {"identity", "flip", "crop", "rotation", "shear", "all"}
    assert len(table) == 30
    assert table.agreement.between(0, 1).all()


EVERYTHING = GeometryConfig(
    flip=0.4, affine=0.9, rotation=40.0, shear=25.0, crop_scale=(0.3, 0.8), crop_ratio=(0.5, 2.0)
)
NOTHING = {
    "flip": 0.0, "affine": 0.0, "part": 1.0, "rotation": 0.0, "translation": 0.0, "shear": 0.0,
    "crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0),
}  # fmt: skip


@pytest.fixture(scope="module")
def table_of_everything(tokenizer, pixels):
    table = agreement_table(make_model(tiny.GRID, tiny.GRID), tokenizer, pixels, EVERYTHING, seed=3)
    return table.set_index(["geometry", "method"])


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("identity", GeometryConfig(**NOTHING)),
        ("flip", GeometryConfig(**{**NOTHING, "flip": 1.0})),
        ("crop", GeometryConfig(**{**NOTHING, "crop_scale": (0.3, 0.8), "crop_ratio": (0.5, 2.0)})),
        ("rotation", GeometryConfig(**{**NOTHING, "affine": 1.0, "rotation": 40.0})),
        ("shear", GeometryConfig(**{**NOTHING, "affine": 1.0, "shear": 25.0})),
        ("all", EVERYTHING),
    ],
)
def test_a_row_of_the_table_is_measured_under_the_geometry_it_names(
    table_of_everything, tokenizer, pixels, name, config
):
    geometry = sample_geometry(config, Draws(3, 0, torch.arange(12)), 24 / 16)
    model, ids = make_model(tiny.GRID, tiny.GRID), tokenizer.encode(pixels)
    wanted = tokenizer.encode(warp(pixels, geometry, tiny.IMAGE_SIZE))
    adapted = model.g(warp(model.f(embed(ids, tokenizer.codebook)), geometry, (8, 12))).argmax(1)
    naive = warp(ids[:, None].float(), geometry, tiny.GRID, mode="nearest")[:, 0]
    for method, found in (("TokenAdapt", adapted), ("naive id", naive)):
        agreement = float((found == wanted).double().mean())
        assert table_of_everything.loc[name, method].agreement == pytest.approx(agreement)


# Training


@pytest.fixture(scope="module")
def lopsided(tmp_path_factory):
    """Images that a flip changes."""
    counts = {"ant": 63, "bee": 59, "cow": 58}
    return tiny.make_images(tmp_path_factory.mktemp("images") / "lopsided", counts, seed=1, lopsided=True)


@pytest.fixture(scope="module")
def trained(lopsided, tokenizer_folder, tmp_path_factory):
    config = stage.TrainTokenAdaptConfig(
        images=str(lopsided), tokenizer=str(tokenizer_folder), output_dir=str(tmp_path_factory.mktemp("run") / "ta"),
        model=TokenAdaptConfig(width=64), geometry=replace(IDENTITY, flip=1.0), steps=120, batch_size=8, lr=3e-3,
        held_out=0.2, log_every=4, mixed_precision="no",
    )  # fmt: skip
    stage.main(config)
    return config


def test_training_brings_the_tokens_of_the_transformed_image(trained):
    first, *_, last = (line for line in read_metrics(trained.output_dir) if "agreement" in line)
    assert last["agreement"] > first["agreement"] + 0.05
    assert last["loss"] < first["loss"] - 0.2


def test_it_learns_to_flip_images_it_has_not_seen_better_than_naive_ids_are_flipped(trained):
    table = pd.read_csv(f"{trained.output_dir}/agreement.csv").set_index(["geometry", "method"])
    assert table.loc["flip", "TokenAdapt"].agreement > table.loc["flip", "naive id"].agreement + 0.04


def test_the_table_it_leaves_is_that_of_the_images_it_has_not_seen(trained, lopsided, tokenizer):
    images = open_image_folder(lopsided)
    _, rows = split_rows(180, 0.2, 0)
    model, _ = load_token_adapt(trained.output_dir)
    unseen = read_all(images, rows, tiny.IMAGE_SIZE)
    expected = agreement_table(model, tokenizer, unseen, trained.geometry, seed=0)
    pd.testing.assert_frame_equal(pd.read_csv(f"{trained.output_dir}/agreement.csv"), expected)


def surprise_slowly(model, tokenizer, image, geometry):
    """Mean -log probability of the ids of one transformed image; geometry None: it stays as it is."""
    features = model.f(embed(tokenizer.encode(image), tokenizer.codebook))
    if geometry is not None:
        image, features = warp(image, geometry, tiny.IMAGE_SIZE), warp(features, geometry, (8, 12))
    scores, wanted = model.g(features)[0].detach().double().numpy(), tokenizer.encode(image)[0].numpy()
    return np.mean(np.log(np.exp(scores).sum(axis=0)) - np.take_along_axis(scores, wanted[None], axis=0)[0])


def test_its_loss_is_that_of_the_ids_of_transformed_images_and_of_some_that_stay(
    lopsided, tokenizer_folder, tokenizer, tmp_path
):
    config = stage.TrainTokenAdaptConfig(
        images=str(lopsided), tokenizer=str(tokenizer_folder), output_dir=str(tmp_path), steps=2, batch_size=8,
        model=TokenAdaptConfig(width=64), geometry=GeometryConfig(affine=1.0), unchanged=0.4, held_out=0.2, seed=3,
        lr=1e-12, log_every=1, mixed_precision="no",
    )  # fmt: skip
    stage.main(config)
    rows, _ = split_rows(180, 0.2, 3)
    batches = ImageBatches(TolerantReader(open_image_folder(lopsided), tiny.IMAGE_SIZE), rows, 8, seed=3)
    torch.manual_seed(3)
    model = TokenAdapt(config.model, grid=tiny.GRID, view=tiny.GRID, codebook_size=tiny.CODES, embedding_dim=5)
    expected, stay = [], 0
    for step in range(2):
        pixels, positions = batches(step)
        draws = Draws(3, step, positions)
        stays = draws.uniform("unchanged", 1)[:, 0] < 0.4
        geometries = [
            None if still else geometry[None]
            for still, geometry in zip(stays, sample_geometry(config.geometry, draws, 24 / 16), strict=True)
        ]
        pairs = zip(pixels[:, None], geometries, strict=True)
        expected.append(np.mean([surprise_slowly(model, tokenizer, image, geometry) for image, geometry in pairs]))
        stay += int(stays.sum())
    assert 0 < stay < 16
    assert [line["loss"] for line in read_metrics(tmp_path) if "loss" in line] == pytest.approx(expected, abs=1e-5)


def test_training_leaves_weights_a_table_and_a_picture(trained, tokenizer):
    run = trained.output_dir
    model, fingerprint = load_token_adapt(run)
    assert fingerprint == tokenizer.fingerprint
    assert (model.grid, model.view) == (tiny.GRID, tiny.GRID)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert len(pd.read_csv(f"{run}/agreement.csv")) == 30
    with Image.open(Path(run) / "views.png") as picture:
        ((_, shown),) = tiny.shown_pictures(run, "views")
        np.testing.assert_array_equal(shown, np.asarray(picture.convert("RGB"))[:, : shown.shape[1]])


def test_views_may_be_smaller_than_the_grid(images, tokenizer_folder, tokenizer, tmp_path):
    """Their true tokens are the centre of those of an image that shows more; measured ways see it so, too."""
    config = stage.TrainTokenAdaptConfig(
        images=str(images), tokenizer=str(tokenizer_folder), output_dir=str(tmp_path), view=(2, 4), steps=60,
        model=TokenAdaptConfig(width=64), geometry=replace(IDENTITY, flip=1.0), batch_size=8, lr=3e-3, held_out=0.2,
        mixed_precision="no",
    )  # fmt: skip
    stage.main(config)
    model, _ = load_token_adapt(tmp_path)
    assert (model.grid, model.view) == (tiny.GRID, (2, 4))
    first, *_, last = (line for line in read_metrics(tmp_path) if "agreement" in line)
    assert last["agreement"] > first["agreement"] + 0.05
    pixels = read_all(open_image_folder(images), range(12), tiny.IMAGE_SIZE)
    table = agreement_table(model, tokenizer, pixels, GeometryConfig(), seed=0).set_index(["geometry", "method"])
    # Shown on a view of 2 x 4, an image is half as high and two thirds as wide at the centre of a grid of 4 x 6.
    small = torch.diag(torch.tensor([6 / 4, 4 / 2, 1.0])).expand(12, 3, 3)
    shown = warp(pixels, small, tiny.IMAGE_SIZE)
    whole = tokenizer.encode(shown)
    error = (tokenizer.decode(whole) - shown)[:, :, 4:12, 4:20].square().mean(dim=(1, 2, 3))
    assert table.loc["identity", "tokenizer"].psnr == pytest.approx(float(-10 * error.log10().mean()), abs=0.01)
    by_pixels = tokenizer.encode(warp(tokenizer.decode(tokenizer.encode(pixels)), small, tiny.IMAGE_SIZE))
    agreement = float((by_pixels == whole)[:, 1:3, 1:5].double().mean())
    assert table.loc["identity", "decode, warp, encode"].agreement == pytest.approx(agreement)


@pytest.mark.parametrize("view", [(5, 6), (4, 7), (0, 2)])
def test_a_view_that_does_not_fit_is_refused(images, tokenizer_folder, tmp_path, view):
    config = stage.TrainTokenAdaptConfig(
        images=str(images), tokenizer=str(tokenizer_folder), output_dir=str(tmp_path), view=view
    )
    with pytest.raises(UserError, match=r"a view of .* does not fit into the tokenizer's .*\(4, 6\): set --view"):
        stage.main(config)


def test_a_single_image_is_refused_before_training(tokenizer_folder, tmp_path):
    images = tiny.make_images(tmp_path / "images", {"ant": 1})
    config = stage.TrainTokenAdaptConfig(
        images=str(images), tokenizer=str(tokenizer_folder), output_dir=str(tmp_path / "run"), batch_size=1, steps=1
    )
    with pytest.raises(UserError, match="there is 1 image, too few to train on some and to hold some out"):
        stage.main(config)


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no weights"):
        load_token_adapt(tmp_path)


def test_a_training_does_not_go_on_with_another_held_out_part(images, tokenizer_folder, tmp_path):
    folder = shutil.copytree(images, tmp_path / "photos")
    config = stage.TrainTokenAdaptConfig(
        images=str(folder), tokenizer=str(tokenizer_folder), output_dir=str(tmp_path / "run"), steps=1, batch_size=8,
        model=TokenAdaptConfig(width=64), held_out=0.2, mixed_precision="no",
    )  # fmt: skip
    stage.main(config)
    stage.main(replace(config, images=f"{tmp_path}/./photos", tokenizer=f"{tokenizer_folder}/weights"))
    (folder / "ant" / "000.png").unlink()
    with pytest.raises(UserError, match=r"run holds another run \(images: '.*photos' .* there, .* now\)"):
        stage.main(config)
