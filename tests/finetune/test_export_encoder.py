"""A model to keep: loaded in one line, and written for those who have timm or the Hub and not this suite."""

import ast
import json
import re
import socket
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

import tiny
from seitpp import mtm
from seitpp.finetune import export
from seitpp.mtm.formats.hub import HubMaskedTokenModel
from seitpp.mtm.model import load_model, save_model
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import read_json

VIEW = (4, 2)  # of a stored grid of 4 x 6
TIMM = [int(part) for part in timm.__version__.split(".")[:3]]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A pre-trained model all of whose parameters are random, also those that begin at zero or one."""
    folder = tiny.make_mtm(tmp_path_factory.mktemp("mtm"), view=VIEW)
    model, _ = load_model(folder)
    torch.manual_seed(5)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=0.1, std=0.5)
    save_model(folder / "weights", model, tokenizer="a" * 64, grid=tiny.GRID)
    return folder


@pytest.fixture
def exported(run, tmp_path):
    def write(kind):
        export.main(export.ExportModelConfig(weights=str(run), kind=kind, out=str(tmp_path / kind)))
        return tmp_path / kind

    return write


@pytest.fixture
def ids():
    return tiny.random_ids(3, tiny.CODES, VIEW)


def code_of(card):
    """The Python lines of a model card."""
    (code,) = re.findall(r"```python\n(.*?)```", card.read_text(encoding="utf-8"), flags=re.DOTALL)
    return code


# One line


def test_a_model_is_loaded_in_one_line_from_a_run_its_weights_and_a_hub_folder(run, exported, ids):
    expected = load_model(run)[0].encoder.pooled(ids)
    for place in (run, str(run / "weights"), exported("hub")):
        model = mtm.load(place)
        assert not model.training
        assert torch.equal(model.encoder.pooled(ids), expected)


# timm


@torch.no_grad()
def test_the_timm_model_has_the_features_of_every_patch(run, exported, ids):
    folder, encoder = exported("timm"), mtm.load(run).encoder
    config = read_json(folder / "config.json")
    vit = timm.create_model(config["architecture"], num_classes=0, **config["model_args"]).eval()
    vit.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    pixels = load_file(folder / "tokens.safetensors")["table"][ids].permute(0, 3, 1, 2)
    expected = encoder.norm(encoder(ids))
    assert expected.shape == (3, 3, 24)  # cls and 2 x 1 patches
    assert float((vit.forward_features(pixels) - expected).abs().max()) < 1e-5
    assert float((vit(pixels) - encoder.pooled(ids)).abs().max()) < 1e-5


@torch.no_grad()
def test_the_lines_of_the_timm_card_run_as_they_stand(run, exported, ids, monkeypatch):
    monkeypatch.chdir(exported("timm"))
    names = {"ids": ids}
    exec(code_of(Path("README.md")), names)
    assert float((names["features"] - mtm.load(run).encoder.pooled(ids)).abs().max()) < 1e-5


def test_the_lines_of_the_timm_card_need_nothing_of_this_suite(exported):
    tree = ast.parse(code_of(exported("timm") / "README.md"))
    modules = [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
    modules += [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert modules == ["json", "pathlib", "timm", "safetensors.torch"]
    assert len([node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom)]) == 5


@pytest.mark.skipif(TIMM < [1, 0, 16], reason="timm loads folders since 1.0.16")
@torch.no_grad()
def test_timm_loads_the_folder_as_one_of_its_own_and_gives_it_a_new_head(run, exported, ids):
    folder = exported("timm")
    vit = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=7).eval()
    pixels = load_file(folder / "tokens.safetensors")["table"][ids].permute(0, 3, 1, 2)
    encoder = mtm.load(run).encoder
    assert float((vit.forward_features(pixels) - encoder.norm(encoder(ids))).abs().max()) < 1e-5
    assert vit(pixels).shape == (3, 7)


def test_the_card_says_what_the_ids_are(exported):
    text = " ".join((exported("timm") / "README.md").read_text(encoding="utf-8").split())
    assert "It reads 4 x 2 token ids in [0, 37), the centre of the 4 x 6 that the tokenizer aaaaaaaaaaaa makes" in text
    assert "24 features" in text
    assert "a vector of 5 channels for each id" in text


# Hub


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.usefixtures("no_network")
def test_a_model_comes_back_from_the_hubs_layout_as_it_was(run, exported, ids, tmp_path):
    folder = exported("hub")
    assert {path.name for path in folder.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    model = HubMaskedTokenModel.from_pretrained(folder).eval()
    assert (model.tokenizer, model.stored_grid, model.encoder.view) == ("a" * 64, tiny.GRID, VIEW)
    ours = mtm.load(run)
    assert model.described == ours.described
    weights = model.state_dict()
    assert weights.keys() == ours.state_dict().keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in ours.state_dict().items())
    model.save_pretrained(tmp_path / "again")
    assert read_json(tmp_path / "again" / "config.json") == read_json(folder / "config.json")


@pytest.mark.usefixtures("no_network")
def test_the_lines_of_the_hubs_card_run_as_they_stand(run, exported, ids):
    folder = exported("hub")
    names = {"ids": ids, "place": folder}
    exec(code_of(folder / "README.md"), names)
    assert torch.equal(names["features"], mtm.load(run).encoder.pooled(ids))


@pytest.mark.usefixtures("no_network")
def test_the_hub_reads_a_runs_own_weights(run, ids):
    model = HubMaskedTokenModel.from_pretrained(run / "weights").eval()
    assert torch.equal(model.encoder.pooled(ids), mtm.load(run).encoder.pooled(ids))


def test_the_hubs_card_begins_with_its_metadata_and_says_what_the_model_reads(exported):
    text = (exported("hub") / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\n")
    assert "library_name: seitpp" in text.split("---")[1]
    assert "4 x 2 of 4 x 6 tokens, K = 37, a ViT of 2 blocks of width 24, tokenizer aaaaaaaaaaaa" in text


# Refusals


def test_what_is_there_already_is_not_written_over(run, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        export.main(export.ExportModelConfig(weights=str(run), kind="timm", out=str(tmp_path / "there")))


@pytest.mark.parametrize("kind", ["timm", "hub"])
def test_another_kind_of_model_is_refused(tmp_path, kind):
    adapt = tiny.make_token_adapt(tmp_path / "adapt")
    with pytest.raises(UserError, match="adapt is no masked token model"):
        export.main(export.ExportModelConfig(weights=str(adapt), kind=kind, out=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_a_model_in_the_place_of_a_token_adapt_is_refused(run, tmp_path):
    config = export.ExportModelConfig(
        weights=str(run), kind="published", token_adapt=str(run), out=str(tmp_path / "out")
    )
    message = f"^{run} is no TokenAdapt: give a run of seitpp train-tokenadapt or import-model$"
    with pytest.raises(UserError, match=message):
        export.main(config)
    assert not (tmp_path / "out").exists()


def test_a_token_adapt_beside_a_timm_model_is_refused():
    with pytest.raises(UserError, match="token_adapt = 'runs/ta' is for --kind published"):
        export.ExportModelConfig(weights="run", kind="timm", out="out", token_adapt="runs/ta")


def test_an_export_that_fails_leaves_nothing(run, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("seitpp.mtm.formats.timm_vit.token_table", fail)
    with pytest.raises(OSError, match="No space"):
        export.main(export.ExportModelConfig(weights=str(run), kind="timm", out=str(tmp_path / "out")))
    assert list(tmp_path.iterdir()) == []


def test_the_configuration_of_the_timm_model_is_json_that_timm_reads(exported):
    config = json.loads((exported("timm") / "config.json").read_text())
    assert config["pretrained_cfg"]["input_size"] == [5, 4, 2]
    assert config["model_args"]["img_size"] == [4, 2]
    assert config["num_features"] == 24
