"""All the way on 2^17 codes: images, store, pre-training, classifier, probe, reconstruction."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny
from seitpp.downstream.straight_through import AttackedPath
from seitpp.finetune import probe
from seitpp.finetune import train as finetune
from seitpp.finetune.classifier import read_classifier
from seitpp.finetune.load import model_folder
from seitpp.finetune.probing.features import bag_of_tokens
from seitpp.mtm import reconstruct
from seitpp.mtm.augmentation.augment import AugmentConfig
from seitpp.mtm.augmentation.eda import EdaConfig
from seitpp.mtm.pretrain import pretrain
from seitpp.runtime.files import read_json
from seitpp.tokenizers.networks.lookup_free import LookupFreeConfig, LookupFreeTokenizer
from seitpp.tokenizers.tokenize import TokenizeConfig
from seitpp.tokenizers.tokenize import main as tokenize
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.store import open_store
from tiny_pretraining import make_config

CODES = 2**17


@pytest.fixture(scope="module")
def world(tmp_path_factory, images, test_images):
    """Stores `train` and `test` of 4 x 6 tokens of 17 bits, and their tokenizer."""
    folder = tmp_path_factory.mktemp("many")
    torch.manual_seed(0)
    config = LookupFreeConfig(image_size=tiny.IMAGE_SIZE, widths=(32, 32, 32), blocks=1, bits=17)
    LookupFreeTokenizer(config).save(folder / "tokenizer")
    for name, source in (("train", images), ("test", test_images)):
        tokenize(TokenizeConfig(images=str(source), tokenizer=str(folder / "tokenizer"), output_dir=str(folder / name)))
    return folder


@pytest.fixture(scope="module")
def pretrained(world):
    """A run of two steps with ColorAdapt, crops and synonyms."""
    augment = AugmentConfig(color_adapt=0.5, eda=EdaConfig(synonyms=0.5, swap=0.5))
    config = make_config(world, world / "mtm", eval_store=str(world / "test"), augment=augment, steps=2, save_every=2)
    pretrain(config)
    return world / "mtm"


def test_rows_are_packed_and_the_codebook_takes_no_place(world):
    store = open_store(world / "train")
    store.verify()
    assert (store.codebook_size, store.row_bytes, store.manifest["coding"]) == (CODES, 24 + 9 * 3, "planes")
    assert store.size.codebook < 100
    assert len(store.ids(range(len(store))).unique()) > 100
    tokenizer = load_tokenizer(world / "tokenizer")
    assert tokenizer.decode(store.ids([0, 1])).std() > 0


def test_pretraining_is_measured_in_nats_of_both_numbers(pretrained):
    found = read_json(pretrained / "summary.json")
    assert 10 < found["eval_cross_entropy"] < 25
    assert 5 < found["unigram_baseline"] < math.log(32) + math.log(4096) < found["position_baseline"]  # of 30 images
    assert (pretrained / "weights" / "model.safetensors").stat().st_size < 1_000_000


def test_a_classifier_is_fine_tuned_and_attacked(world, pretrained):
    finetune.finetune(
        finetune.FinetuneConfig(
            store=str(world / "train"), eval_store=str(world / "test"), weights=str(pretrained), batch_size=8, steps=2,
            mixed_precision="no", output_dir=str(world / "classifier"),
        )
    )  # fmt: skip
    classifier, tokenizer = read_classifier(model_folder(world / "classifier")), load_tokenizer(world / "tokenizer")
    path = AttackedPath(tokenizer, classifier, temperature=0.15, neighbours=3)
    assert path.width == pytest.approx(0.6)
    images = torch.rand(2, 3, *tiny.IMAGE_SIZE, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(path.logits(images), classifier(tokenizer.encode(images)), atol=1e-4)
    assert path.gradient(torch.tensor([0, 1]))(images).abs().sum() > 0


def test_features_are_probed_and_bags_are_of_numbers(world, pretrained):
    config = probe.ProbeConfig(
        store=str(world / "train"), eval_store=str(world / "test"), weights=str(pretrained), protocols=("knn",),
        mixed_precision="no", output_dir=str(world / "probe"),
    )  # fmt: skip
    probe.probe(config)
    assert Path(world, "probe", "results.csv").is_file()
    bags = bag_of_tokens(open_store(world / "train"))
    assert bags.shape == (32 + 4096,)
    assert bags.make([0, 1]).square().sum(dim=1).tolist() == pytest.approx([48, 48])


def test_hidden_patches_are_filled_in_steps(world, pretrained, capsys):
    config = reconstruct.ReconstructConfig(
        store=str(world / "test"), weights=str(pretrained), tokenizer=str(world / "tokenizer"),
        out=str(world / "picture.png"), images=2, measured=4, steps=2, temperature=1.0,
    )  # fmt: skip
    reconstruct.main(config)
    reconstruct.main(replace(config, temperature=0.0))
    assert capsys.readouterr().out.count("of 64 hidden ids in 4 images one pass restores") == 2
