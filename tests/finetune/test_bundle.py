"""A bundle: tokenizer and model in one folder, in use without anything else."""

import json
import shutil

import pytest
import torch

import seitpp
import tiny
from seitpp.finetune import export, predict_command
from seitpp.finetune.bundle import Bundle, is_bundle
from seitpp.finetune.classifier import Classifier, save_classifier
from seitpp.finetune.export import ExportModelConfig
from seitpp.finetune.predict_command import PredictConfig
from seitpp.mtm.encoder import EncoderConfig
from seitpp.runtime.command import run_command
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import read_json, write_json

NAMES = ["ant", "bee", "cow"]


@pytest.fixture(scope="module")
def world(tmp_path_factory, tokenizer_folder):
    """A run of a classifier, one of a pre-training, images, and the bundle of the classifier."""
    folder = tmp_path_factory.mktemp("bundled")
    torch.manual_seed(3)
    fingerprint = seitpp.load_tokenizer(tokenizer_folder).fingerprint
    shape = EncoderConfig(width=24, depth=1, heads=3, embedding_std=0.5)
    classifier = Classifier(shape, view=tiny.GRID, codebook_size=tiny.CODES, embedding_dim=5, classes=3)
    classifier.head.weight.data *= 20
    save_classifier(folder / "run" / "seed-0" / "weights", classifier, tokenizer=fingerprint, class_names=NAMES)
    tiny.make_mtm(folder / "mtm", fingerprint=fingerprint)
    tiny.make_images(folder / "photos", {"a": 3, "b": 2})
    bundle(folder / "run", tokenizer_folder, folder / "mine" / "bundle")
    return folder


def bundle(weights, tokenizer, out):
    out.parent.mkdir(exist_ok=True)
    export.main(ExportModelConfig(weights=str(weights), kind="bundle", tokenizer=str(tokenizer), out=str(out)))
    return out


def files_in(world):
    return [str(path) for path in sorted((world / "photos").glob("*/*.png"))]


def test_it_predicts_what_run_and_tokenizer_predict(world, tokenizer_folder):
    mine = seitpp.load(world / "mine" / "bundle")
    expected = seitpp.predict(str(world / "run"), files_in(world), tokenizer=str(tokenizer_folder))
    found = mine.predict(files_in(world))
    assert isinstance(mine, Bundle)
    assert mine.class_names == NAMES
    assert found.names == expected.names
    assert len({tuple(names) for names in found.names}) > 1
    torch.testing.assert_close(found.probabilities, expected.probabilities)


def test_it_embeds_images_as_the_encoder_embeds_their_tokens(world, tokenizer_folder):
    mine = seitpp.load(world / "mine" / "bundle")
    ids = seitpp.tokenize_images(files_in(world), str(tokenizer_folder))
    torch.testing.assert_close(mine.embed(files_in(world)), seitpp.embed(str(world / "run"), ids))


def test_one_path_is_one_image_and_a_folder_all_of_its_images(world):
    mine = seitpp.load(world / "mine" / "bundle")
    assert mine.embed(files_in(world)[0]).shape == (1, 24)
    assert mine.embed(str(world / "photos")).shape == (5, 24)


def test_a_folder_that_holds_a_bundle_is_loaded_as_it(world):
    assert isinstance(seitpp.load(world / "mine"), Bundle)


def test_a_moved_bundle_needs_nothing_but_itself(world, tmp_path):
    shutil.copytree(world / "mine" / "bundle", tmp_path / "elsewhere")
    assert seitpp.load(tmp_path / "elsewhere").predict(files_in(world)[0])[0].keys() == set(NAMES)


def test_of_a_pretraining_it_gives_features_and_refuses_classes(world, tokenizer_folder, tmp_path):
    mine = seitpp.load(bundle(world / "mtm", tokenizer_folder, tmp_path / "features"))
    assert mine.embed(files_in(world)).shape == (5, 24)
    assert mine.class_names == []
    with pytest.raises(UserError, match="no classifier"):
        mine.predict(files_in(world))


def test_encoder_and_classifier_of_a_bundle_are_found(world):
    place = world / "mine" / "bundle"
    assert seitpp.load_classifier(place).class_names == NAMES
    assert seitpp.load_encoder(place).width == 24


def test_the_command_needs_no_tokenizer_with_a_bundle(world, capsys):
    words = [*files_in(world)[:2], "--classifier", str(world / "mine"), "--format", "jsonl", "--mixed_precision", "no"]
    with pytest.raises(SystemExit) as ended:
        run_command(predict_command.main, PredictConfig, recipes="predict", argv=words)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert ended.value.code == 0
    expected = seitpp.load(world / "mine").predict(files_in(world)[:2])
    assert [line["predictions"][0]["class"] for line in lines] == [names[0] for names in expected.names]


def test_the_command_says_that_a_run_alone_has_no_tokenizer(world, capsys):
    words = [*files_in(world)[:1], "--classifier", str(world / "run")]
    with pytest.raises(SystemExit) as ended:
        run_command(predict_command.main, PredictConfig, recipes="predict", argv=words)
    assert ended.value.code == 1
    said = tiny.one_line(capsys.readouterr().err)
    assert "give --tokenizer RUN, or make a bundle" in said


def test_the_card_says_how_to_use_it_on_an_image(world):
    card = (world / "mine" / "bundle" / "README.md").read_text()
    assert "seitpp predict cat.jpg --classifier PLACE" in card
    assert "4 x 6 tokens" in card


def test_another_tokenizer_is_refused_and_nothing_is_left(world, tmp_path):
    other = tiny.make_tokenizer(tmp_path / "other", seed=9)
    with pytest.raises(UserError, match="belongs to") as raised:
        bundle(world / "run", other, tmp_path / "wrong")
    tiny.one_line(str(raised.value))
    assert not (tmp_path / "wrong").exists()


def test_a_tokenizer_that_was_exchanged_in_a_bundle_is_noticed(world, tmp_path):
    place = shutil.copytree(world / "mine" / "bundle", tmp_path / "bundle")
    shutil.rmtree(place / "tokenizer")
    shutil.copytree(tiny.make_tokenizer(tmp_path / "other", seed=9) / "weights", place / "tokenizer")
    with pytest.raises(UserError, match="belongs to another tokenizer"):
        seitpp.load(place)


@pytest.mark.parametrize(
    ("content", "said"),
    [({"format": "other"}, "bundle.json"), ({"format": "seitpp-bundle", "version": 2, "kind": "mtm"}, "update it")],
)
def test_what_bundle_json_says_is_checked(world, tmp_path, content, said):
    place = shutil.copytree(world / "mine" / "bundle", tmp_path / "bundle")
    write_json(place / "bundle.json", content)
    with pytest.raises(UserError, match=said) as raised:
        seitpp.load(place)
    tiny.one_line(str(raised.value))


def test_a_repository_of_the_hub_is_found_in_its_cache(world, tmp_path, monkeypatch):
    repository, commit = tmp_path / "models--owner--birds", "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(world / "mine" / "bundle", repository / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert is_bundle("hf://owner/birds")
    assert seitpp.load("hf://owner/birds").class_names == NAMES
    with pytest.raises(UserError, match="hf://owner/fish can't be fetched") as raised:
        seitpp.load("hf://owner/fish")
    tiny.one_line(str(raised.value))


def test_it_says_what_it_is(world):
    about = read_json(world / "mine" / "bundle" / "bundle.json")
    assert (about["format"], about["version"], about["kind"]) == ("seitpp-bundle", 1, "classifier")
