"""A classifier for those who have timm, the Hub, onnxruntime or torch, and not this suite."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

import tiny
from seitpp.finetune import export
from seitpp.finetune.classifier import Classifier, read_classifier, save_classifier
from seitpp.finetune.formats import checked
from seitpp.finetune.formats.codebook import codebook_of
from seitpp.finetune.formats.hub import HubClassifier
from seitpp.finetune.formats.network import FromIds, FromImages, drop_unused_weights
from seitpp.finetune.formats.program import signature
from seitpp.finetune.load import load, load_classifier
from seitpp.finetune.published import from_published
from seitpp.mtm.encoder import EncoderConfig
from seitpp.mtm.formats.published import read_heads
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import read_json
from seitpp.runtime.results import Result, write_results
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.codebook import embed

ENCODER = EncoderConfig(width=24, depth=1, heads=3, patch_size=2, embedding_std=0.5)
VIEW = (4, 4)  # of a grid of 4 x 6
NAMES = ["ant", "bee", "cow"]


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder):
    return load_tokenizer(tokenizer_folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tokenizer):
    """Runs of two seeds each, by stem; all of their parameters are random, also those that begin at zero or one."""
    folder = tmp_path_factory.mktemp("runs")
    for number, stem in enumerate(("patches", "adapter")):
        torch.manual_seed(number)
        classifier = Classifier(
            ENCODER, view=VIEW, codebook_size=tiny.CODES if stem == "patches" else None, embedding_dim=5, classes=3,
            stem=stem,
            pooling="mean" if stem == "patches" else "cls",
        )  # fmt: skip
        for parameter in classifier.parameters():
            torch.nn.init.normal_(parameter, mean=0.1, std=0.5)
        for seed in (0, 1):
            save_classifier(
                folder / stem / f"seed-{seed}" / "weights", classifier, tokenizer=tokenizer.fingerprint,
                class_names=NAMES,
            )  # fmt: skip
        write_results(folder / stem, [measured(seed, metric) for seed in (0, 1) for metric in ("accuracy", "top5")])
    return folder


def measured(seed, metric, value=0.5, **fields):
    fields = {"dataset": "insects", "init": "mtm", "protocol": "finetune", **fields}
    return Result(
        metric=metric, value=value + 0.25 * seed, seed=seed, train_images=36, test_images=15, run="runs/a", **fields
    )


@pytest.fixture
def exported(runs, tmp_path, tokenizer_folder, capsys):
    """Export a run of some stem as some kind: (the file or folder, what was said)."""

    def write(stem, kind, **fields):
        if stem == "adapter" and kind in ("timm", "onnx", "program") and "tokenizer" not in fields:
            fields = {"codebook": str(tokenizer_folder), **fields}
        config = export.ExportModelConfig(
            weights=str(runs / stem), kind=kind, out=str(tmp_path / f"{stem}-{kind}"), **fields
        )
        export.main(config)
        return Path(config.out), tiny.one_line(capsys.readouterr().out)

    return write


@pytest.fixture
def ids():
    return tiny.random_ids(3, tiny.CODES, VIEW)


@torch.no_grad()
def logits_of(runs, stem, ids, tokenizer):
    """What a run's classifier makes of ids of its view."""
    classifier = load_classifier(runs / stem)
    return classifier(ids if stem == "patches" else embed(ids, tokenizer.codebook))


def difference(one, other):
    return float(np.abs(np.asarray(one) - np.asarray(other.detach())).max())


# timm


@pytest.mark.parametrize("stem", ["patches", "adapter"])
@torch.no_grad()
def test_the_timm_model_loads_strictly_and_has_the_features_and_logits(stem, runs, exported, ids, tokenizer):
    folder, _ = exported(stem, "timm")
    config, classifier = read_json(folder / "config.json"), load_classifier(runs / stem)
    vit = timm.create_model(config["architecture"], num_classes=3, **config["model_args"]).eval()
    vit.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    picture = load_file(folder / "tokens.safetensors")["table"][ids].permute(0, 3, 1, 2)
    if stem == "adapter":
        picture = torch.nn.functional.unfold(picture, 4, padding=1, stride=2).unflatten(2, (2, 2))
    features = vit.forward_head(vit.forward_features(picture), pre_logits=True)
    inputs = ids if stem == "patches" else embed(ids, tokenizer.codebook)
    assert difference(features, classifier.features(inputs)) < 1e-5
    assert difference(vit(picture), classifier(inputs)) < 1e-5
    assert config["label_names"] == NAMES


@pytest.mark.parametrize("stem", ["patches", "adapter"])
@torch.no_grad()
def test_the_lines_of_the_timm_card_run_as_they_stand(stem, runs, exported, ids, tokenizer, monkeypatch):
    monkeypatch.chdir(exported(stem, "timm")[0])
    (code,) = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert "seitpp" not in code
    names = {"ids": ids}
    exec(code, names)
    assert difference(names["logits"], logits_of(runs, stem, ids, tokenizer)) < 1e-5


# Hub


@pytest.mark.parametrize("stem", ["patches", "adapter"])
@torch.no_grad()
def test_a_classifier_comes_back_from_the_hubs_layout_as_it_was(stem, runs, exported, tmp_path):
    folder, _ = exported(stem, "hub")
    assert {path.name for path in folder.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    weights = runs / stem / "seed-0" / "weights"
    model, ours = HubClassifier.from_pretrained(folder).eval(), read_classifier(weights)
    assert (model.tokenizer, model.class_names, model.described) == (ours.tokenizer, NAMES, ours.described)
    state = model.state_dict()
    assert state.keys() == ours.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in ours.state_dict().items())
    assert read_json(folder / "config.json") == read_json(weights / "config.json")
    assert load(folder).class_names == NAMES  # it is a weights/ folder as well
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    inputs = torch.zeros(2, *VIEW, dtype=torch.int64) if stem == "patches" else torch.zeros(2, 5, *VIEW)
    names = {"place": folder, "ids" if stem == "patches" else "embeddings": inputs}
    exec(code, names)
    assert torch.equal(names["logits"], ours(inputs))


@pytest.mark.parametrize("kind", ["hub", "timm"])
def test_the_card_carries_the_numbers_of_the_models_own_seed_and_of_the_runs_that_are_named(exported, kind, tmp_path):
    shifts = [
        measured(seed, "accuracy", value=0.25, shift="fog", severity=3, init="") for seed in (0, 1)
    ]  # fmt: skip
    write_results(tmp_path / "robustness", shifts)
    folder, said = exported("patches", kind, results=(str(tmp_path / "robustness"),))
    assert said.endswith("; 4 measured numbers on its card")
    card = ModelCard.load(folder / "README.md")
    table = [line for line in card.text.split("\n") if line.startswith("| ")]
    assert table == [
        "| data | protocol | metric | value | seeds | training images | test images |",
        "| insects test | finetune (mtm) | accuracy | 0.5000 | 1 | 36 | 15 |",
        "| insects test | finetune (mtm) | top5 | 0.5000 | 1 | 36 | 15 |",
        "| insects test, fog 3 | finetune | accuracy | 0.3750 ± 0.1768 | 2 | 36 | 15 |",
    ]
    numbers = [(each.dataset_name, each.metric_type, each.metric_value) for each in card.data.eval_results]
    assert numbers == [("insects", "accuracy", 0.5), ("insects", "top5", 0.5), ("insects", "accuracy", 0.375)]
    assert card.text.count("```python") == 1


# Programs


def run_onnx(file, name, inputs):
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {name: inputs.numpy()})


def test_onnx_from_ids_on_equals_torch_at_any_batch_size(runs, exported, tokenizer):
    file, said = exported("patches", "onnx")
    assert re.search(r"ids \(batch, 4, 4\) to logits \(batch, 3\), onnxruntime equal to torch within \d", said)
    for batch in (1, 5):
        ids = tiny.random_ids(batch, tiny.CODES, VIEW, seed=batch)
        (logits,) = run_onnx(file, "ids", ids)
        assert difference(logits, logits_of(runs, "patches", ids, tokenizer)) < 1e-5


def test_onnx_from_images_on_equals_tokenizer_codebook_and_classifier(runs, exported, tokenizer, tokenizer_folder):
    file, said = exported("adapter", "onnx", tokenizer=str(tokenizer_folder))
    assert "images (batch, 3, 16, 24) to ids (batch, 4, 6) and logits (batch, 3)" in said
    for batch in (1, 4):
        images = torch.rand(batch, 3, *tiny.IMAGE_SIZE)
        ids, logits = run_onnx(file, "images", images)
        assert (ids == tokenizer.encode(images).numpy()).all()
        expected = logits_of(runs, "adapter", torch.from_numpy(ids)[:, :, 1:5], tokenizer)
        assert difference(logits, expected) < 1e-5
    proto = onnx.load(file)
    assert {each.type.tensor_type.shape.dim[0].dim_param for each in (*proto.graph.input, *proto.graph.output)} == {
        "batch"
    }
    described = json.loads({entry.key: entry.value for entry in proto.metadata_props}["seitpp"])
    assert described["class_names"] == NAMES
    assert described["preprocessing"]["image_size"] == [16, 24]
    assert not [each.name for each in proto.graph.initializer if "decoder" in each.name]


@torch.no_grad()
def test_a_program_equals_torch_at_any_batch_size_and_has_no_weights_of_the_decoder(
    runs, exported, tokenizer, tokenizer_folder
):
    file, _ = exported("patches", "program", tokenizer=str(tokenizer_folder))
    extra = {"seitpp.json": ""}
    with file.open("rb") as source:
        program = torch.export.load(source, extra_files=extra)
    assert json.loads(extra["seitpp.json"])["outputs"] == ["ids", "logits"]
    assert not [name for name in program.state_dict if "decoder" in name]
    images = torch.rand(7, 3, *tiny.IMAGE_SIZE)
    ids, logits = program.module()(images)
    assert torch.equal(ids, tokenizer.encode(images))
    assert difference(logits, logits_of(runs, "patches", ids[:, :, 1:5], tokenizer)) < 1e-5


@torch.no_grad()
def test_of_a_pre_trained_model_the_encoder_is_exported_and_gives_features(tmp_path):
    model = load(tiny.make_mtm(tmp_path / "mtm", view=VIEW))
    network, ids = FromIds(model), tiny.random_ids(3, tiny.CODES, VIEW)
    assert torch.equal(network(ids), model.encoder.pooled(ids))
    assert signature(network) == "ids (batch, 4, 4) to features (batch, 24)"
    assert {name.split(".")[0] for name in network.state_dict()} == {"network"}
    assert not [name for name in network.state_dict() if "decoder" in name]


def test_a_program_that_computes_something_else_is_an_error_that_names_the_difference(runs):
    network = FromIds(load_classifier(runs / "patches"))

    def off(ids):
        return [network(ids) + torch.tensor([0.0, 0.25, 0.0])]

    with pytest.raises(UserError, match=r"^the ONNX graph differs from torch by up to 0.25 \(outputs up to "):
        checked.check_program(off, network, "the ONNX graph")
    with pytest.raises(UserError, match="by up to nan"):
        checked.check_program(lambda ids: [network(ids) * float("nan")], network, "it")


def test_other_ids_are_rounding_only_where_they_are_few(runs, tokenizer):
    network = FromImages(tokenizer, FromIds(load_classifier(runs / "patches")))

    def run(others):
        def of_images(images):
            ids = network(images)[0]
            ids[:, 0, :others] = (ids[:, 0, :others] + 1) % tiny.CODES
            return ids, network.of_ids(ids)

        return of_images

    assert checked.check_program(run(0), network, "it") == 0
    with pytest.raises(UserError, match=r"it gives 4\.2% of the tokens another id"):  # one of 24
        checked.check_program(run(1), network, "it")


def test_a_mismatch_leaves_no_file(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(checked, "TOLERANCE", -1.0)
    config = export.ExportModelConfig(weights=str(runs / "patches"), kind="program", out=str(tmp_path / "it.pt2"))
    with pytest.raises(UserError, match="the program differs from torch"):
        export.main(config)
    assert list(tmp_path.iterdir()) == []


@torch.no_grad()
def test_weights_that_a_pass_does_not_read_are_dropped_and_nothing_else(runs, tokenizer_folder):
    network = FromImages(load_tokenizer(tokenizer_folder), FromIds(load_classifier(runs / "patches")))
    before, names = network(network.example(2)), dict(network.named_parameters())
    drop_unused_weights(network)
    gone = names.keys() - dict(network.named_parameters()).keys()
    assert gone
    parts = {"tokenizer.model.decoder", "tokenizer.model.post_quant_conv"}
    assert {".".join(name.split(".")[:3]) for name in gone} == parts
    assert torch.equal(network(network.example(2))[1], before[1])


# The release's file


@torch.no_grad()
def test_a_classifier_becomes_a_file_of_the_release(runs, exported, ids, tokenizer):
    file, _ = exported("patches", "published")
    content = torch.load(file, weights_only=True)
    assert read_heads(file) == {"heads": 3}
    again = from_published(content["model"], "it", **read_heads(file))
    assert difference(again(ids), logits_of(runs, "patches", ids, tokenizer)) < 1e-5


# Refusals


def test_a_stem_adapter_without_a_codebook_asks_for_one_and_refuses_that_of_another_tokenizer(
    runs, tmp_path, tokenizer_folder
):
    classifier = load_classifier(runs / "adapter")
    with pytest.raises(UserError, match=r"reads embeddings \(Stem-Adapter\): give --codebook"):
        codebook_of(classifier, None)
    store = tiny.make_store(tmp_path / "store", tiny.random_ids(3, tiny.CODES, tiny.GRID))
    with pytest.raises(UserError, match="store is of tokenizer aaaaaaaaaaaa, the classifier of "):
        codebook_of(classifier, str(store))
    classifier.tokenizer = ""
    assert codebook_of(classifier, str(store)).shape == (tiny.CODES, 5)
    other = tiny.make_store(tmp_path / "other", tiny.random_ids(3, tiny.CODES, tiny.GRID), dim=6)
    with pytest.raises(UserError, match="other has codes of 6 channels, the classifier reads 5"):
        codebook_of(classifier, str(other))
    assert codebook_of(load_classifier(runs / "patches"), None) is None


def test_a_codebook_among_the_weights_is_taken(runs):
    classifier = load_classifier(runs / "adapter")
    classifier.register_buffer("codebook", torch.ones(4, 5))
    assert torch.equal(codebook_of(classifier, None), torch.ones(4, 5))


def test_another_tokenizer_than_the_classifiers_is_refused(runs, tmp_path):
    other = tiny.make_tokenizer(tmp_path / "other", seed=4)
    config = export.ExportModelConfig(
        weights=str(runs / "patches"), kind="program", out=str(tmp_path / "it.pt2"), tokenizer=str(other)
    )
    with pytest.raises(UserError, match=r"other is tokenizer [0-9a-f]{12}, .*patches belongs to [0-9a-f]{12}"):
        export.main(config)


def test_onnx_without_its_extra_says_what_to_install(runs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    config = export.ExportModelConfig(weights=str(runs / "patches"), kind="onnx", out=str(tmp_path / "it.onnx"))
    with pytest.raises(UserError, match=r"^--kind onnx needs its extra: pip install 'seitpp\[onnx\]'$"):
        export.main(config)


def test_flags_of_other_kinds_are_refused(runs):
    config = export.ExportModelConfig(weights="runs/a", kind="published", out="out", token_adapt="runs/ta")
    for name, value, kinds in (
        ("tokenizer", "runs/t", "bundle and onnx and program"),
        ("codebook", "runs/t", "timm and onnx and program"),
        ("results", ("runs/p",), "bundle and timm and hub"),
    ):
        with pytest.raises(UserError, match=f"{name} = .* is for --kind {kinds}$"):
            replace(config, **{name: value})
    with pytest.raises(UserError, match="patches is a Classifier, no MTM model: leave --token_adapt out"):
        export.main(replace(config, weights=str(runs / "patches"), out=str(runs / "new")))
