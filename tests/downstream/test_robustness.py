"""Robustness: corrupted images and other domains, tokenised on the way."""

import numpy as np
import pandas as pd
import pytest
import torch

import tiny
from seitpp.downstream import robustness as stage
from seitpp.finetune import train as finetune
from seitpp.mtm.augmentation.augment import AugmentConfig
from seitpp.mtm.encoder import EncoderConfig
from seitpp.runtime.errors import UserError
from seitpp.tokenizers import tokenize
from seitpp.tokenizers.sources.images import open_image_folder, read_all
from seitpp.tokenizers.tokenizer import load_tokenizer

SIZE = (32, 48)  # the least that ImageNet-C's corruptions take is 32


@pytest.fixture(scope="module")
def pictures():
    """Three images that are smooth, each of its own grey."""
    ramp = torch.linspace(0.2, 0.8, 48).expand(3, 32, 48)
    return torch.stack([ramp, ramp.flip(2), ramp * 0.5]).clone()


# Corruptions


@pytest.mark.parametrize("name", ["gaussian_noise", "contrast", "fog"])
def test_a_corruption_keeps_shape_range_and_its_input(pictures, name):
    before = pictures.clone()
    corrupted = stage.corrupt(pictures, name, 3, seed=0)
    assert corrupted.shape == pictures.shape
    assert corrupted.dtype == torch.float32
    assert 0 <= float(corrupted.min()) <= float(corrupted.max()) <= 1
    assert not torch.equal(corrupted, pictures)
    assert torch.equal(pictures, before)


def test_a_corruption_is_the_same_again_and_another_for_another_seed(pictures):
    once = stage.corrupt(pictures, "gaussian_noise", 3, seed=0)
    np.random.rand(5)  # what others draw must not matter
    assert torch.equal(stage.corrupt(pictures, "gaussian_noise", 3, seed=0), once)
    assert not torch.equal(stage.corrupt(pictures, "gaussian_noise", 3, seed=1), once)


def test_each_image_has_noise_of_its_own(pictures):
    same = pictures[:1].repeat(3, 1, 1, 1)
    corrupted = stage.corrupt(same, "gaussian_noise", 3, seed=0)
    assert not torch.equal(corrupted[0], corrupted[1])
    assert not torch.equal(corrupted[1], corrupted[2])


def test_noise_grows_with_the_severity(pictures):
    errors = [
        float((stage.corrupt(pictures, "gaussian_noise", level, seed=0) - pictures).std()) for level in range(1, 6)
    ]
    assert errors == sorted(errors)
    assert errors[0] == pytest.approx(0.08, abs=0.01)  # ImageNet-C's deviation at severity 1
    assert errors[-1] > 2.5 * errors[0]


def test_corrupting_leaves_numpys_own_randomness_alone(pictures):
    np.random.seed(5)
    expected = np.random.rand()
    np.random.seed(5)
    stage.corrupt(pictures, "gaussian_noise", 1, seed=0)
    assert np.random.rand() == expected


def test_an_unknown_corruption_names_those_there_are(pictures):
    with pytest.raises(UserError, match=r"no corruption 'gausian_noise'; there are: .*gaussian_noise") as refused:
        stage.corrupt(pictures, "gausian_noise", 1, seed=0)
    tiny.one_line(str(refused.value))


# The stage


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Images, a tokenizer, stores and a fine-tuned run of two seeds."""
    folder = tmp_path_factory.mktemp("world")
    tiny.make_images(folder / "train", {"ant": 12, "bee": 12}, seed=1, size=SIZE)
    tiny.make_images(folder / "test", {"ant": 5, "bee": 6}, seed=2, size=SIZE)
    tiny.make_images(folder / "sketch", {"bee": 4}, seed=3, size=SIZE)
    tiny.make_tokenizer(folder / "tokenizer", image_size=SIZE)
    for name, like in (("train", None), ("test", str(folder / "train store"))):
        tokenize.main(
            tokenize.TokenizeConfig(
                images=str(folder / name), tokenizer=str(folder / "tokenizer"), like=like,
                output_dir=str(folder / f"{name} store"),
            )
        )  # fmt: skip
    finetune.main(
        finetune.FinetuneConfig(
            store=str(folder / "train store"), eval_store=str(folder / "test store"),
            output_dir=str(folder / "finetuned"),
            encoder=EncoderConfig(width=24, depth=1, heads=3, patch_size=2, embedding_std=0.5), steps=6, batch_size=8,
            blr=0.05, seeds=2, mixed_precision="no", augment=AugmentConfig(crop=False), method="ours",
        )
    )  # fmt: skip
    return folder


def make_config(world, output, **fields):
    fields = {
        "classifiers": (str(world / "finetuned"),), "tokenizer": str(world / "tokenizer"),
        "images": str(world / "test"),
        "corruptions": ("gaussian_noise", "contrast"), "severities": (1, 5), **fields,
    }  # fmt: skip
    return stage.RobustnessConfig(output_dir=str(output), **fields)


@pytest.fixture(scope="module")
def measured(world):
    config = make_config(world, world / "robustness", domains={"sketch": str(world / "sketch")})
    stage.main(config)
    return pd.read_csv(world / "robustness" / "results.csv")


def test_every_seed_is_measured_on_everything(measured):
    metrics = ["accuracy, clean", "accuracy, gaussian noise", "accuracy, contrast", "accuracy, sketch"]
    assert measured[["metric", "seed", "method"]].values.tolist() == [
        [metric, seed, "ours"] for metric in metrics for seed in (0, 1)
    ]
    assert measured.test_images.tolist() == [11] * 6 + [4] * 2
    assert measured.value.between(0, 1).all()


def test_clean_accuracy_is_that_of_fine_tuning(world, measured):
    finetuned = pd.read_csv(world / "finetuned" / "results.csv")
    expected = finetuned[finetuned.metric == "accuracy"].value.tolist()
    assert measured[measured.metric == "accuracy, clean"].value.tolist() == pytest.approx(expected)


def test_accuracy_under_a_corruption_is_the_mean_over_severities(world, measured):
    from seitpp.finetune.classifier import load_classifier

    classifier, _, names = load_classifier(world / "finetuned" / "seed-1")
    folder, tokenizer = open_image_folder(world / "test", names), load_tokenizer(world / "tokenizer")
    pixels = read_all(folder, range(11), SIZE)
    accuracies = []
    for severity in (1, 5):
        corrupted = stage.corrupt(pixels, "contrast", severity, seed=0)
        with torch.no_grad():
            answers = [int(classifier(tokenizer.encode(image[None])).argmax()) for image in corrupted]
        accuracies.append(np.mean(np.array(answers) == folder.labels))
    row = measured[(measured.metric == "accuracy, contrast") & (measured.seed == 1)]
    assert row.value.item() == pytest.approx(np.mean(accuracies))


def test_a_classifier_of_another_tokenizer_is_refused(world, tmp_path):
    other = tiny.make_tokenizer(tmp_path / "other", seed=9, image_size=SIZE)
    with pytest.raises(UserError, match="seed-0 was trained on tokens of another tokenizer"):
        stage.main(make_config(world, tmp_path / "run", tokenizer=str(other)))


def test_a_run_that_is_no_fine_tuning_is_refused(world, tmp_path):
    with pytest.raises(UserError, match=r"train store is not a run of seitpp finetune"):
        stage.main(make_config(world, tmp_path / "run", classifiers=(str(world / "train store"),)))


def test_a_domain_with_an_unknown_class_is_refused(world, tmp_path):
    tiny.make_images(tmp_path / "zoo", {"ant": 1, "yak": 1}, size=SIZE)
    with pytest.raises(UserError, match="'yak' that the classifier lacks"):
        stage.main(make_config(world, tmp_path / "run", domains={"zoo": str(tmp_path / "zoo")}))


def test_classifiers_of_other_classes_are_refused(world, tmp_path):
    from seitpp.finetune.classifier import load_classifier, save_classifier

    other = tmp_path / "other"
    classifier, fingerprint, _ = load_classifier(world / "finetuned" / "seed-0")
    save_classifier(other / "seed-0" / "weights", classifier, tokenizer=fingerprint, class_names=["bee", "ant"])
    (other / "config.yaml").write_text((world / "finetuned" / "config.yaml").read_text())
    with pytest.raises(UserError, match="class"):
        stage.main(make_config(world, tmp_path / "run", classifiers=(str(world / "finetuned"), str(other))))
