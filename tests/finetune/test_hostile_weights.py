"""A stranger's weights are only data: one line where a file is damaged, and no memory for what it merely says."""

import json
import tracemalloc

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from seitpp import load, load_tokenizer
from seitpp.finetune.classifier import Classifier, save_classifier
from seitpp.mtm.encoder import EncoderConfig
from seitpp.runtime.errors import UserError
from seitpp.tokenizers.networks.reduced import ReducedTokenizer
from seitpp.tokenizers.networks.vit_vqgan import TransformerConfig, ViTVQGAN, ViTVQGANConfig


@pytest.fixture
def runs(tmp_path):
    """A run of each kind of model, by its name."""
    tiny.make_mtm(tmp_path / "mtm")
    tiny.make_token_adapt(tmp_path / "tokenadapt")
    config = EncoderConfig(width=24, depth=1, heads=3)
    classifier = Classifier(config, view=(4, 6), codebook_size=37, embedding_dim=5, classes=2)
    save_classifier(tmp_path / "classifier" / "weights", classifier, tokenizer="a" * 64, class_names=["x", "y"])
    return tmp_path


def change(file, path, value):
    content = json.loads(file.read_text())
    *names, last = path.split(".")
    place = content
    for name in names:
        place = place[name]
    if value is KeyError:
        del place[last]
    else:
        place[last] = value
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "field", "value", "says"),
    [
        ("mtm", "view", [4, "6"], r"config\.json: view\[1\] is '6'"),
        ("mtm", "grid", KeyError, r"config\.json: it lacks 'grid'"),
        ("mtm", "codebook_size", -37, r"config\.json: codebook_size is -37"),
        ("mtm", "tokenizer", 7, r"config\.json: tokenizer is 7, expected the fingerprint"),
        ("mtm", "view", [3, 6], r"weights is of a model that can't be built"),
        ("mtm", "model.encoder.width", 24.5, r"config\.json is no ModelConfig.*width"),
        ("mtm", "model.encoder.patch_size", 0, r"config\.json is no ModelConfig.*patch_size = 0 must be at least 1"),
        ("mtm", "model.decoder", None, r"config\.json is no ModelConfig"),
        ("tokenadapt", "embedding_dim", [5], r"config\.json: embedding_dim is \[5\]"),
        ("tokenadapt", "tokenadapt.mixer", "magic", r"config\.json is no TokenAdaptConfig.*mixer"),
        ("classifier", "classes", 3, r"config\.json: class_names has 2 names for 3 classes"),
        ("classifier", "class_names", "xy", r"config\.json: class_names is 'xy', expected a list"),
        ("classifier", "pooling", "max", r"config\.json: pooling is 'max', expected 'mean' or 'cls'"),
        ("classifier", "origin", {"label_fraction": 2}, r"config\.json: origin\.label_fraction is 2"),
        ("classifier", "encoder.heads", 5, r"config\.json is no EncoderConfig.*multiple of 4 and of heads = 5"),
    ],
)  # fmt: skip
def test_a_wrong_field_of_a_models_config_is_one_line_with_file_and_field(runs, name, field, value, says):
    change(runs / name / "weights" / "config.json", field, value)
    with pytest.raises(UserError, match=says) as raised:
        load(runs / name)
    tiny.one_line(str(raised.value))


@pytest.mark.parametrize(
    ("field", "value"), [("model.encoder.width", 65536), ("codebook_size", 65536), ("view", [1024, 1024])]
)
def test_sizes_that_the_weights_do_not_have_take_no_memory(runs, field, value):
    if field == "model.encoder.width":
        change(runs / "mtm" / "weights" / "config.json", "model.encoder.heads", 4)
    change(runs / "mtm" / "weights" / "config.json", field, value)
    tracemalloc.start()
    with pytest.raises(UserError, match=r"mtm/weights is not of the model that it says \(size mismatch for"):
        load(runs / "mtm")
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


@pytest.mark.parametrize("harm", ["cut", "header", "lost", "renamed", "shape", "integers"])
@pytest.mark.parametrize("name", ["mtm", "tokenadapt", "classifier"])
def test_damaged_weights_are_one_line_with_their_file(runs, name, harm):
    file = runs / name / "weights" / "model.safetensors"
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:-5])
    elif harm == "header":
        file.write_bytes(file.read_bytes().replace(b'"F32"', b'"F99"', 1))
    else:
        tensors = load_file(file)
        first = next(iter(tensors))
        tensor = tensors.pop(first)
        more = {"renamed": {f"{first}x": tensor}, "shape": {first: tensor[None]}, "integers": {first: tensor.int()}}
        save_file({**tensors, **more.get(harm, {})}, file)
    with pytest.raises(UserError, match=rf"{name}/weights.*(is damaged|is not of the model that it says)") as raised:
        load(runs / name)
    tiny.one_line(str(raised.value))


def test_building_twice_draws_no_other_numbers(runs):
    torch.manual_seed(3)
    load(runs / "mtm")
    after = torch.rand(3)
    torch.manual_seed(3)
    from seitpp.mtm.model import MaskedTokenModel, ModelConfig, describe_model
    from seitpp.runtime.config import from_dict

    described = describe_model(runs / "mtm")
    sizes = {name: described[name] for name in ("view", "codebook_size", "embedding_dim")}
    MaskedTokenModel(from_dict(ModelConfig, described["model"], "it"), **sizes)
    assert torch.equal(torch.rand(3), after)


@pytest.fixture
def tokenizer(tmp_path):
    side = TransformerConfig(width=4, depth=1, heads=1, mlp=4)
    sizes = {"image_size": (8, 8), "patch_size": 4, "codebook_size": 8, "codebook_dim": 4}
    vit = ViTVQGAN(ViTVQGANConfig(encoder=side, decoder=side, **sizes))
    vit.save(tmp_path / "vit")
    ReducedTokenizer(vit, [1, 4], torch.tensor([0, 0, 0, 1, 1, 0, 1, 1])).save(tmp_path / "reduced")
    return tmp_path


@pytest.mark.parametrize(
    ("file", "field", "value", "says"),
    [
        ("vit/tokenizer.json", "kind", [], r"tokenizer\.json: kind is \[\]"),
        ("vit/tokenizer.json", "config", 3, r"tokenizer\.json: config is 3, expected an object"),
        ("vit/tokenizer.json", "config.patch_size", 0, "patch_size = 0 must be at least 1"),
        (
            "vit/tokenizer.json",
            "config.image_size",
            [8, 10**9],
            "image_size = .*must be a multiple|at most 1,024 tokens",
        ),
        ("vit/tokenizer.json", "config.encoder.depth", 10**9, r"depth = 1000000000 must be at most 1000"),
        ("reduced/reduced.json", "codes", [1, "4"], r"reduced\.json: codes\[1\] is '4'"),
        ("reduced/reduced.json", "map", [0, 0, 0, 1, 1, -5, 1, 1], r"reduced\.json: map\[5\] is -5"),
        ("reduced/reduced.json", "map", [0, 0, 0, 1, 1, 2, 1, 1], r"reduced\.json doesn't fit the tokenizer"),
    ],
)
def test_a_wrong_field_of_a_tokenizer_is_one_line_with_file_and_field(tokenizer, file, field, value, says):
    change(tokenizer / file, field, value)
    with pytest.raises(UserError, match=says) as raised:
        load_tokenizer((tokenizer / file).parent)
    tiny.one_line(str(raised.value))
