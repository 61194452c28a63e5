"""Probes and fine-tunings show results of the weights that there are, and go on where these lie elsewhere now."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import tiny
from seitpp.finetune import probe, train
from seitpp.mtm.augmentation.augment import AugmentConfig
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import read_json, write_json
from seitpp.runtime.results import read_results


@pytest.fixture
def project(stores, tmp_path, monkeypatch):
    """A folder with stores and pre-trained weights, in which one works."""
    folder = tmp_path / "project"
    shutil.copytree(stores, folder / "stores")
    tiny.make_mtm(folder / "mtm")
    monkeypatch.chdir(folder)
    return folder


def probing(**fields):
    fields = {"store": "stores/train", "eval_store": "stores/test", "weights": "mtm", "output_dir": "probe", **fields}
    return probe.ProbeConfig(inverse_regularisation=(0.1,), mixed_precision="no", protocols=("linear",), **fields)


def finetuning(**fields):
    fields = {"store": "stores/train", "eval_store": "stores/test", "weights": "mtm", "output_dir": "tuned", **fields}
    return train.FinetuneConfig(
        steps=1, batch_size=6, mixed_precision="no", **{"augment": AugmentConfig(crop=False), **fields}
    )


def pretrain_anew(folder):
    """Other weights, as another pre-training at the same path leaves them."""
    shutil.rmtree(folder)
    tiny.make_mtm(folder)
    described = read_json(folder / "weights" / "config.json")
    write_json(folder / "weights" / "config.json", {**described, "augmentation": "tokenadapt"})


def test_a_probe_of_weights_that_were_made_anew_is_another_run(project):
    probe.probe(probing())
    probe.probe(probing())  # the same again: nothing to do
    pretrain_anew(project / "mtm")
    with pytest.raises(
        UserError, match=r"probe holds another run \(weights: 'mtm' is another since, .* there, .* now\)"
    ):
        probe.probe(probing())
    probe.probe(probing(resume="none"))
    assert set(read_results(["probe"]).augmentation) == {"tokenadapt"}


@pytest.mark.parametrize("where", ["dots", "absolute", "elsewhere", "moved", "link"])
def test_a_probe_is_the_same_wherever_its_inputs_are_named_from(project, tmp_path, monkeypatch, capsys, where):
    probe.probe(probing())
    capsys.readouterr()
    base = {"dots": "./../project", "absolute": project, "elsewhere": "project", "moved": ".", "link": "../link"}[where]
    if where == "elsewhere":
        monkeypatch.chdir(tmp_path)
    elif where == "moved":
        monkeypatch.chdir(project.rename(tmp_path / "moved"))
    elif where == "link":
        (tmp_path / "link").symlink_to(project)
    places = {"store": "stores/train", "eval_store": "stores/test/", "weights": "mtm/weights", "output_dir": "probe"}
    probe.probe(probing(**{name: f"{base}/{place}" for name, place in places.items()}))
    assert "finished before, nothing to do" in capsys.readouterr().out


def test_images_that_no_feature_reads_may_be_named_otherwise(project):
    probe.probe(probing(images="photos", eval_images="gone"))
    probe.probe(probing(images="elsewhere/photos"))


def test_images_whose_pixels_are_probed_belong_to_the_run(project):
    tiny.make_images(project / "photos", {"ant": 3, "bee": 3})
    names = [f"ant/{row:03d}.png" for row in range(3)] + [f"bee/{row:03d}.png" for row in range(3)]
    tiny.make_store(project / "own", tiny.striped_ids([0, 0, 0, 1, 1, 1], tiny.GRID), labels=[0, 0, 0, 1, 1, 1],
                    classes=("ant", "bee"), keys=names)  # fmt: skip
    config = probing(
        store="own", eval_store="own", features=("pixels",), weights=None, images="photos", eval_images="photos"
    )
    probe.probe(config)
    probe.probe(replace(config, images="./photos", eval_images=str(project / "photos")))
    tiny.make_images(project / "more", {"ant": 1}, seed=5)
    shutil.copy(project / "more" / "ant" / "000.png", project / "photos" / "ant" / "100.png")
    with pytest.raises(UserError, match=r"\(eval_images: .* there, .* now; images: .* there, .* now\)"):
        probe.probe(config)


def test_a_fine_tuning_of_weights_that_were_made_anew_is_another_run(project):
    train.finetune(finetuning())
    train.finetune(finetuning(weights=str(project / "mtm" / "weights"), store="./stores/train"))  # nothing to do
    pretrain_anew(project / "mtm")
    with pytest.raises(
        UserError, match=r"tuned holds another run \(weights: 'mtm' is another since, .* there, .* now\)"
    ):
        train.finetune(finetuning())


def test_a_stopped_seed_of_a_fine_tuning_does_not_go_on_from_other_weights(project):
    """The run of all seeds was not finished, but its first seed was."""
    train.finetune(finetuning())
    Path("tuned/summary.json").unlink()
    Path("tuned/env.json").unlink()  # whatever the outer run knows
    pretrain_anew(project / "mtm")
    with pytest.raises(UserError, match=r"seed-0 holds another run \(weights: "):
        train.finetune(finetuning())


def test_token_adapt_and_synonyms_belong_to_a_run(project):
    """The augmentation's files, of pre-training as of fine-tuning."""
    tiny.make_token_adapt(project / "ta")
    config = finetuning(augment=AugmentConfig(token_adapt="ta"))
    train.finetune(config)
    train.finetune(replace(config, augment=AugmentConfig(token_adapt="./ta/weights")))
    described = read_json(project / "ta" / "weights" / "config.json")
    write_json(project / "ta" / "weights" / "config.json", {**described, "made": "anew"})
    with pytest.raises(UserError, match=r"augment\.token_adapt: "):
        train.finetune(config)
