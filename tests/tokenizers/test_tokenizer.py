"""Tokenizers: pixels to ids and back, on disk and in training."""

import importlib
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import read_json, write_json
from seitpp.runtime.run_folder import read_metrics
from seitpp.runtime.weights import fingerprint_of
from seitpp.tokenizers import train as stage
from seitpp.tokenizers.ema_codebook import EMACodebook, patch_weights
from seitpp.tokenizers.kmeans import kmeans, weighted_choice
from seitpp.tokenizers.networks.vq import VQConfig, VQTokenizer
from seitpp.tokenizers.reconstruction import mean_psnr, measure_reconstruction
from seitpp.tokenizers.sources.images import open_image_folder, read_all, split_rows
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.training.random_streams import Draws

SHAPE = VQConfig(
    image_size=tiny.IMAGE_SIZE, space_to_depth=4, widths=(32,), attention=False, codebook_size=11, codebook_dim=5
)


@pytest.fixture
def tokenizer(tokenizer_folder):
    return load_tokenizer(tokenizer_folder)


@pytest.fixture(scope="module")
def pixels(images):
    return read_all(open_image_folder(images), range(7), tiny.IMAGE_SIZE)


# Pixels and ids


def test_ids_have_the_grid_and_images_the_size_of_the_tokenizer(tokenizer, pixels):
    ids = tokenizer.encode(pixels)
    assert ids.shape == (7, *tiny.GRID)
    assert ids.dtype == torch.int64
    assert 0 <= int(ids.min()) <= int(ids.max()) < tiny.CODES
    decoded = tokenizer.decode(ids)
    assert decoded.shape == pixels.shape
    assert 0 <= float(decoded.min()) <= float(decoded.max()) <= 1
    assert (tokenizer.grid, tokenizer.image_size, tokenizer.codebook_size) == (tiny.GRID, tiny.IMAGE_SIZE, tiny.CODES)


def test_an_id_is_the_nearest_code_of_its_latent(tokenizer, pixels):
    latents, codebook = tokenizer.latents(pixels).numpy(), tokenizer.codebook.numpy()
    ids = tokenizer.encode(pixels)
    for sample, row, column in np.ndindex(7, *tiny.GRID):
        distances = np.linalg.norm(codebook - latents[sample, :, row, column], axis=1)
        assert distances[ids[sample, row, column]] == pytest.approx(distances.min(), abs=1e-5)


def test_an_image_is_tokenised_the_same_alone_and_among_others(tokenizer, pixels):
    assert torch.equal(torch.cat([tokenizer.encode(pixels[i : i + 1]) for i in range(7)]), tokenizer.encode(pixels))


@pytest.mark.parametrize(
    ("widths", "space_to_depth", "grid"), [((32,), 4, (8, 12)), ((32, 64), 4, (4, 6)), ((32, 32, 32), 2, (4, 6))]
)
def test_the_grid_is_the_image_divided_by_folding_and_halvings(widths, space_to_depth, grid):
    config = VQConfig(
        image_size=(32, 48), widths=widths, space_to_depth=space_to_depth, codebook_size=5, codebook_dim=3
    )
    tokenizer = VQTokenizer.untrained(config).eval()
    assert tokenizer.grid == grid
    with torch.no_grad():
        ids = tokenizer.encode(torch.rand(2, 3, 32, 48))
        assert ids.shape == (2, *grid)
        assert tokenizer.decode(ids).shape == (2, 3, 32, 48)


@pytest.mark.parametrize(
    "wrong", [{"image_size": (60, 64)}, {"codebook_size": 1}, {"codebook_size": 2**24 + 1}, {"widths": (48,)}]
)
def test_impossible_shapes_are_refused(wrong):
    with pytest.raises(UserError, match=f"VQConfig: {next(iter(wrong))} = "):
        VQConfig(**wrong)


def test_standardised_codes_have_mean_0_and_deviation_1_and_mean_the_same(pixels):
    torch.manual_seed(0)
    tokenizer = VQTokenizer.untrained(SHAPE).eval().requires_grad_(False)
    tokenizer.codebook.copy_(tokenizer.latents(pixels).permute(0, 2, 3, 1).reshape(-1, 5)[:11] * 1.1 + 0.01)
    ids = tokenizer.encode(pixels)
    decoded = tokenizer.decode(ids)
    tokenizer.standardise()
    assert len(ids.unique()) > 3
    assert tokenizer.codebook.mean(dim=0).numpy() == pytest.approx(np.zeros(5), abs=1e-5)
    assert float(tokenizer.codebook.std()) == pytest.approx(1.0, abs=1e-5)
    assert float((tokenizer.encode(pixels) == ids).float().mean()) > 0.99  # ties may fall the other way
    assert tokenizer.decode(ids).numpy() == pytest.approx(decoded.numpy(), abs=1e-4)


# On disk


def test_a_saved_tokenizer_gives_the_same_ids_and_images(tokenizer, tokenizer_folder, tmp_path, pixels):
    tokenizer.save(tmp_path / "copy")
    again = load_tokenizer(tmp_path / "copy")
    assert torch.equal(again.encode(pixels), tokenizer.encode(pixels))
    assert torch.equal(again.decode(again.encode(pixels)), tokenizer.decode(tokenizer.encode(pixels)))
    assert again.fingerprint == tokenizer.fingerprint
    assert (again.image_size, again.space_to_depth, again.lookup) == (tiny.IMAGE_SIZE, 4, "euclidean")
    described = {name: value for name, value in again.model.config.items() if name[0] != "_"}
    assert described == {name: value for name, value in tokenizer.model.config.items() if name[0] != "_"}


def test_a_loaded_tokenizer_is_frozen_and_in_evaluation_mode(tokenizer):
    assert not tokenizer.training
    assert not any(parameter.requires_grad for parameter in tokenizer.parameters())


def test_diffusers_opens_a_saved_tokenizer(tokenizer, tokenizer_folder):
    from diffusers.models.autoencoders.vq_model import VQModel

    model = VQModel.from_pretrained(tokenizer_folder / "weights", use_safetensors=True)
    assert torch.equal(model.quantize.embedding.weight, tokenizer.codebook)


def test_the_fingerprint_changes_with_any_weight(tokenizer):
    before = tokenizer.fingerprint
    assert len(before) == 64
    for parameter in list(tokenizer.parameters())[::9]:
        value = parameter.flatten()[0].item()
        parameter.flatten()[0] += 1e-3
        assert tokenizer.fingerprint != before
        parameter.flatten()[0] = value
    assert tokenizer.fingerprint == before


def test_the_fingerprint_changes_with_names_shapes_and_preprocessing():
    weights = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(1)}
    prints = {
        fingerprint_of(weights, {"size": 1}),
        fingerprint_of(weights, {"size": 2}),
        fingerprint_of({"a": weights["a"].reshape(3, 2), "b": weights["b"]}, {"size": 1}),
        fingerprint_of({"c": weights["a"], "b": weights["b"]}, {"size": 1}),
        fingerprint_of({"a": weights["a"].int(), "b": weights["b"]}, {"size": 1}),
    }
    assert len(prints) == 5
    assert fingerprint_of(dict(reversed(weights.items())), {"size": 1}) in prints


def test_a_folder_that_is_no_tokenizer_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a tokenizer"):
        load_tokenizer(tmp_path)
    write_json(tmp_path / "tokenizer.json", {"kind": "wavelet"})
    with pytest.raises(UserError, match=r"tokenizer\.json: kind is 'wavelet', expected 'vq' or"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("tokenizer.json", "[]", "tokenizer.json: the content is []"),
        ("tokenizer.json", "{", "tokenizer.json can't be read as JSON"),
        ("tokenizer.json", '{"kind": "vq"}', "tokenizer.json: it lacks 'config'"),
        ("tokenizer.json", '{"kind": ["vq"]}', "tokenizer.json: kind is ['vq'], expected 'vq'"),
        ("config.json", "{", "config.json can't be read as JSON"),
        ("config.json", '{"layers_per_block": 1e9}', "config.json: layers_per_block is 1000000000.0, expected"),
        ("config.json", None, "config.json is missing"),
        ("diffusion_pytorch_model.safetensors", "x", "diffusion_pytorch_model.safetensors is damaged"),
        ("diffusion_pytorch_model.safetensors", None, "diffusion_pytorch_model.safetensors is missing"),
    ],
)
def test_a_damaged_folder_is_one_line(tokenizer, tmp_path, name, content, line):
    tokenizer.save(tmp_path / "copy")
    (tmp_path / "copy" / name).unlink()
    if content is not None:
        (tmp_path / "copy" / name).write_text(content)
    with pytest.raises(UserError) as refused:
        load_tokenizer(tmp_path / "copy")
    assert line in tiny.one_line(str(refused.value))


def test_a_folder_loads_without_a_network(tokenizer, tmp_path, monkeypatch):
    def no_network(*_):
        raise AssertionError("a folder needs no network")

    tokenizer.save(tmp_path / "copy")
    monkeypatch.setattr("socket.socket.connect", no_network)
    monkeypatch.setattr("socket.getaddrinfo", no_network)
    assert load_tokenizer(tmp_path / "copy").fingerprint == tokenizer.fingerprint


def test_folders_of_before_other_models_load_and_keep_their_fingerprint(tmp_path):
    tokenizer = VQTokenizer.untrained(SHAPE).requires_grad_(False)
    for tensor in tokenizer.state_dict().values():
        tensor.copy_((torch.arange(tensor.numel()) / 1024).reshape(tensor.shape))
    tokenizer.save(tmp_path / "old")
    write_json(tmp_path / "old" / "tokenizer.json", {"kind": "vq", "config": asdict(SHAPE)})
    recorded = "d4ea9a5c59a1ea1199b380dac3f97ad1d3d39707b1f4049be91b75e614765448"  # by the code of then
    assert load_tokenizer(tmp_path / "old").fingerprint == recorded


# Classes of the user's own

OWN = """
import torch
from torch import nn

class Own(nn.Module):
    name, image_size, grid, codebook_size, lookup = "own", (8, 12), (2, 3), 7, "euclidean"
    preprocessing = {"range": [0, 1]}

    def __init__(self):
        super().__init__()
        self.codebook = nn.Parameter(torch.linspace(0, 1, 7)[:, None])

    def encode(self, images):
        means = nn.functional.avg_pool2d(images.mean(1), 4)
        return (means * 6).round().long()

    def decode(self, ids):
        grey = self.codebook[ids, 0].repeat_interleave(4, 1).repeat_interleave(4, 2)
        return grey[:, None].expand(-1, 3, -1, -1)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A function that writes a module into the current directory and returns its class's import path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in sys.path if path not in ("", str(tmp_path))])

    def write(text=OWN):
        name = f"own_{tmp_path.name.replace('-', '_')}_{len(list(tmp_path.iterdir()))}"
        (tmp_path / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        return f"{name}:Own"

    return write


def test_a_class_of_the_users_own_is_a_tokenizer(own):
    tokenizer = load_tokenizer(own())
    grey = torch.full((2, 3, 8, 12), 0.5)
    assert tokenizer.encode(grey).tolist() == [[[3] * 3] * 2] * 2
    assert torch.equal(tokenizer.decode(tokenizer.encode(grey)), grey)
    assert not any(parameter.requires_grad for parameter in tokenizer.parameters())


def test_a_class_without_fingerprint_gets_one_of_its_weights_and_name(own):
    first, second = own(), own()
    other = own(OWN.replace("linspace(0, 1, 7)", "linspace(0, 0.9, 7)"))
    prints = {load_tokenizer(spec).fingerprint for spec in (first, second, other)}
    assert len(prints) == 3
    assert load_tokenizer(first).fingerprint in prints
    assert load_tokenizer(own(OWN + "    fingerprint = 'f' * 64\n")).fingerprint == "f" * 64


@pytest.mark.parametrize("attribute", ["name", "image_size", "grid", "codebook_size", "lookup"])
def test_a_class_that_lacks_an_attribute_is_told_which(own, attribute):
    first, last = f" {attribute},", f" {attribute} ="
    text = OWN.replace(first, first.replace(" ", " other_"), 1).replace(last, last.replace(" ", " other_", 1), 1)
    with pytest.raises(UserError, match=f"has no {attribute} "):
        load_tokenizer(own(text))


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("preprocessing = {", "prepared = {", "has no preprocessing"),
        ("self.codebook =", "self.codes =", "has no codebook"),
        ("def encode", "def code", "has no encode"),
        ("def decode", "def code", "has no decode"),
        ('"own", (8, 12)', "3, (8, 12)", "name is 3, expected a text"),
        ("(8, 12)", "8", "image_size is 8, expected (height, width)"),
        ("(2, 3)", "(2, 0)", "grid is (2, 0), expected (h, w)"),
        ("(2, 3)", "(3, 2)", "gave int64 (1, 2, 3), expected int64 ids (1, 3, 2)"),
        ("(2, 3), 7,", "(2, 3), 2**25,", "codebook_size is 33554432, expected a number from 2 to 16,777,216"),
        ("(2, 3), 7,", "(2, 3), 8,", "codebook has 7 rows, codebook_size is 8"),
        ('"euclidean"', '"nearest"', "lookup is 'nearest'"),
        ("    preprocessing =", "    geometry = 'helix'\n    preprocessing =", "geometry is 'helix', expected 'grid'"),
        ('{"range": [0, 1]}', '{"range": {1}}', "preprocessing is {'range': {1}}, expected a dict that JSON can hold"),
        ("[:, None])", ")", "codebook is float32 (7,), expected a (k, c) tensor"),
        ("* 6).round().long()", "* 6).round()", "gave float32 (1, 2, 3), expected int64 ids"),
        ("* 6)", "* 60)", "encode gave ids in [30, 30], codebook_size is 7"),
        ("expand(-1, 3, -1, -1)", "expand(-1, 2, -1, -1)", "decode of (1, 2, 3) ids gave float32 (1, 2, 8, 12)"),
        ("return grey[", "return 3 * grey[", "decode gave pixels in [1.5, 1.5], expected [0, 1]"),
        ("return grey[", "raise OSError('gone')\n        return grey[", "decode failed on one image (OSError: gone)"),
        ("means = ", "means = images.nothing + ", "encode failed on one image (AttributeError:"),
        ("def __init__(self):", "def __init__(self, width):", "can't be made without arguments (TypeError:"),
        ("class Own(nn.Module)", "class Own", "has no torch module class Own"),
        ("class Own(", "class Other(", "has no torch module class Own"),
        ("import torch\n", "import nothing_at_all\n", "can't be imported (ModuleNotFoundError: No module named"),
    ],
)  # fmt: skip
def test_a_class_that_is_no_tokenizer_is_told_why(own, old, new, line):
    assert old in OWN
    with pytest.raises(UserError) as refused:
        load_tokenizer(own(OWN.replace(old, new, 1)))
    assert line in tiny.one_line(str(refused.value))


def test_a_module_that_is_not_there_is_one_line():
    with pytest.raises(UserError, match=r"nothing_at_all:Own: nothing_at_all can't be imported"):
        load_tokenizer("nothing_at_all:Own")


# The codebook in training


def test_k_means_finds_the_centres_of_clusters():
    random = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0, 9.0], [9.0, 0.0, 0.0], [0.0, -9.0, 0.0], [5.0, 5.0, 5.0]])
    points = np.concatenate([centre + 0.1 * random.standard_normal((20, 3)) for centre in centres])
    found = kmeans(torch.from_numpy(points).float(), torch.ones(80), 4, seed=1).numpy()
    nearest = [np.abs(found - points[20 * i : 20 * i + 20].mean(0)).max(1).min() for i in range(4)]
    assert nearest == pytest.approx([0.0] * 4, abs=1e-4)


def test_k_means_weighs_its_points():
    points = torch.tensor([[0.0], [1.0], [1.0], [7.0]])
    assert kmeans(points, torch.tensor([2.0, 1.0, 1.0, 0.0]), 1, seed=0).item() == pytest.approx(0.5)


def test_k_means_of_fewer_points_than_centres_uses_them_all():
    found = kmeans(torch.tensor([[0.0, 1.0], [3.0, 4.0]]), torch.ones(2), 5, seed=0)
    assert found.shape == (5, 2)
    assert {tuple(centre) for centre in found.tolist()} == {(0.0, 1.0), (3.0, 4.0)}


def test_a_weighted_choice_inverts_the_distribution():
    weights = torch.tensor([1.0, 0.0, 3.0])
    uniform = torch.tensor([0.0, 0.24, 0.25, 0.26, 0.999])
    assert weighted_choice(weights, uniform).tolist() == [0, 0, 2, 2, 2]
    assert weighted_choice(torch.zeros(4), torch.tensor([0.1, 0.3, 0.6, 0.9])).tolist() == [0, 1, 2, 3]


def make_codebook(codes, **fields):
    tokenizer = VQTokenizer.untrained(SHAPE).requires_grad_(False)
    codebook = EMACodebook(tokenizer, **{"decay": 0.75, "dead_below": 0.0, **fields})
    tokenizer.codebook.copy_(torch.as_tensor(codes))
    codebook.sums.copy_(tokenizer.codebook)
    return tokenizer, codebook


def update(tokenizer, codebook, latents, ids, weights, step=0):
    draws = Draws(0, step, torch.zeros(1, dtype=torch.int64))
    codebook.update(tokenizer, latents, torch.tensor(ids), torch.tensor(weights), draws, make_accelerator("no"))


def test_codes_are_moving_averages_of_their_latents():
    random = np.random.default_rng(0)
    codes, latents = random.standard_normal((11, 5)), random.standard_normal((2, 3, 5))
    tokenizer, codebook = make_codebook(codes)
    sums, uses = codes.copy(), np.ones(11)
    for step in range(2):
        update(tokenizer, codebook, torch.from_numpy(latents[step]).float(), [4, 0, 4], [1.0, 2.0, 0.5], step)
        sums *= 0.75
        uses *= 0.75
        for latent, code, weight in zip(latents[step], [4, 0, 4], [1.0, 2.0, 0.5], strict=True):
            sums[code] += 0.25 * weight * latent
            uses[code] += 0.25 * weight
    assert tokenizer.codebook.numpy() == pytest.approx(sums / uses[:, None], abs=1e-5)


def test_a_code_that_nobody_uses_starts_again_at_a_latent_far_from_its_code():
    codes = np.zeros((11, 5))
    codes[:, 0] = np.arange(11)
    tokenizer, codebook = make_codebook(codes, decay=0.5, dead_below=0.4)
    latents = torch.tensor([[0.0, 0, 0, 0, 0], [1.0, 9, 9, 0, 0]])  # the first lies on its code, the second far from it
    for step in range(2):
        update(tokenizer, codebook, latents, [0, 1], [1.0, 1.0], step)
    revived = tokenizer.codebook[2:]
    assert revived.tolist() == [[1.0, 9.0, 9.0, 0.0, 0.0]] * 9
    assert tokenizer.codebook[0].tolist() == [0.0] * 5
    assert codebook.uses[2:].tolist() == [1.0] * 9


def test_patches_count_by_the_deviation_of_their_most_varied_channel():
    images = torch.zeros(1, 3, 4, 6)  # a grid of 1 x 2 patches of 4 x 3 pixels
    images[0, 1, ::2, 3:] = 1.0
    weights = patch_weights(images, (1, 2), 0.1)
    assert weights.tolist() == pytest.approx([0.1 / 0.55, 1.0 / 0.55])  # deviations 0 and 1/2, mean weight 1


# Training


def test_psnr_is_the_mean_over_images():
    images = torch.zeros(2, 3, 4, 5)
    references = torch.stack([torch.full((3, 4, 5), 0.1), torch.full((3, 4, 5), 0.01)])
    assert mean_psnr(images, references) == pytest.approx((20 + 40) / 2)


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    config = stage.TrainTokenizerConfig(
        images=str(images), output_dir=str(tmp_path_factory.mktemp("run") / "tokenizer"), model=SHAPE, steps=60,
        batch_size=8, lr=3e-3, held_out=0.2, log_every=5, mixed_precision="no",
    )  # fmt: skip
    stage.main(config)
    return config


@pytest.mark.parametrize("change", ["added", "removed"])
def test_a_training_does_not_go_on_with_another_held_out_part(images, tmp_path, change):
    """Its images are divided by a permutation of all of them: one more, and others are held out."""
    folder = shutil.copytree(images, tmp_path / "photos")
    config = stage.TrainTokenizerConfig(
        images=str(folder), output_dir=str(tmp_path / "run"), model=SHAPE, steps=1, batch_size=4, lr=3e-3, held_out=0.2,
        mixed_precision="no",
    )  # fmt: skip
    stage.main(config)
    for finished in (True, False):
        if change == "added":
            shutil.copy(folder / "ant" / "000.png", folder / "ant" / f"more {finished}.png")
        else:
            (folder / "ant" / f"00{int(finished)}.png").unlink()
        with pytest.raises(UserError, match=r"run holds another run \(images: '.*photos' is another since, .* now\)"):
            stage.main(config)
        (tmp_path / "run" / "summary.json").unlink(missing_ok=True)


def test_a_training_goes_on_where_its_images_were_moved(images, tmp_path, capsys):
    folder = shutil.copytree(images, tmp_path / "photos")
    config = stage.TrainTokenizerConfig(
        images=str(folder), output_dir=str(tmp_path / "run"), model=SHAPE, steps=1, batch_size=4, lr=3e-3, held_out=0.2,
        mixed_precision="no",
    )  # fmt: skip
    stage.main(config)
    stage.main(replace(config, images=str(folder.rename(tmp_path / "elsewhere"))))
    assert "finished before, nothing to do" in capsys.readouterr().out


def test_training_reconstructs_better_than_at_the_start(trained, images):
    folder = open_image_folder(images)
    held_out = read_all(folder, split_rows(len(folder), 0.2, 0)[1], tiny.IMAGE_SIZE)
    torch.manual_seed(0)
    start = measure_reconstruction(VQTokenizer.untrained(SHAPE).eval(), held_out)
    summary = read_json(Path(trained.output_dir) / "summary.json")
    assert summary["psnr"] > start["psnr"] + 3
    assert summary["held_out_images"] == 6
    again = measure_reconstruction(load_tokenizer(trained.output_dir), held_out)
    assert again["psnr"] == pytest.approx(summary["psnr"], abs=0.1)


def test_training_uses_several_codes_and_leaves_them_standardised(trained, images):
    tokenizer = load_tokenizer(trained.output_dir)
    assert tokenizer.codebook.mean(dim=0).numpy() == pytest.approx(np.zeros(5), abs=1e-4)
    assert float(tokenizer.codebook.std()) == pytest.approx(1.0, abs=1e-4)
    pixels = read_all(open_image_folder(images), range(30), tiny.IMAGE_SIZE)
    assert len(tokenizer.encode(pixels).unique()) >= 6


def test_the_first_steps_are_unquantised(trained):
    quantised = {line["step"]: "commitment" in line for line in read_metrics(trained.output_dir) if "loss" in line}
    assert next(step for step, started in quantised.items() if started) == 14  # a fifth of 60 steps is 12


def test_training_leaves_a_picture_and_the_fingerprint(trained):
    run = Path(trained.output_dir)
    assert read_json(run / "summary.json")["fingerprint"] == load_tokenizer(run).fingerprint
    with Image.open(run / "reconstructions.png") as picture:
        assert picture.size == (6 * (24 + 2) - 2, 2 * (16 + 2) - 2)
        (step, shown) = tiny.shown_pictures(run, "reconstructions")[-1]
        assert step == 60
        np.testing.assert_array_equal(shown, np.asarray(picture.convert("RGB")))  # of as many images as there are


def test_a_finished_training_is_not_run_again(trained, capsys):
    stage.main(trained)
    assert "finished before, nothing to do" in capsys.readouterr().out
