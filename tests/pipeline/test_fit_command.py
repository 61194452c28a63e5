"""`seitpp fit`: from a folder of images to a bundle, by one command; and what it refuses."""

import pytest
from here import RunnerHere
from test_split import noisy_images

import seitpp
import tiny
from seitpp.pipeline import sizes
from seitpp.pipeline.fit import FitConfig, fit_images
from seitpp.pipeline.given import open_given, sample_of
from seitpp.runtime.errors import UserError

SHORT = {
    "train-tokenizer": {"steps": 4, "warmup_steps": 1, "model.widths": [32], "model.codebook_size": 32},
    "train-tokenadapt": {"steps": 2, "warmup_steps": 1, "model.width": 64},
    "pretrain": {"steps": 3, "warmup_steps": 1, "model.encoder.depth": 1},
    "finetune": {"steps": 3, "warmup_steps": 1, "seeds": 1, "encoder.depth": 1},
}


@pytest.fixture
def here(monkeypatch):
    """Steps run in this process, and are short."""
    monkeypatch.setattr("seitpp.pipeline.fit.StepRunner", RunnerHere)
    monkeypatch.setattr("seitpp.pipeline.trial.StepRunner", RunnerHere)
    monkeypatch.setattr(sizes, "QUICK", SHORT)


def fit(photos, folder, **fields):
    fit_images(FitConfig(images=(str(photos),), output_dir=str(folder), quick=True, **fields))
    return folder


def everything_below(folder):
    return {path.relative_to(folder).as_posix(): path.lstat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.slow
def test_a_folder_of_images_becomes_a_model_in_use_and_the_same_command_goes_on(tmp_path, here, capsys):
    photos = noisy_images(tmp_path / "my photos", {"drei ecken": 20, "äpfel": 20, "one": 1})
    before = everything_below(photos)
    folder = fit(photos, tmp_path / "run")
    assert everything_below(photos) == before
    said = capsys.readouterr().out
    assert f"the report: {folder / 'report.html'}" in said
    assert f"next: seitpp predict cat.jpg --classifier {folder}" in said
    assert "<title>" in (folder / "report.html").read_text()[:2000]
    bundle = seitpp.load(folder)
    assert set(bundle.predict(str(photos / "one" / "00.png"))[0]) <= {"drei ecken", "äpfel", "one"}
    commands = (folder / "commands.jsonl").read_text()
    fit(photos, folder)
    assert (folder / "commands.jsonl").read_text() == commands  # nothing was run again
    noisy_images(photos, {"new": 3})
    with pytest.raises(UserError, match="holds a fit of other images"):
        fit(photos, folder)


@pytest.mark.slow
def test_images_without_classes_become_features_and_a_bundle_that_embeds(tmp_path, here, capsys):
    photos = noisy_images(tmp_path / "photos", {"2024": 15, "2025": 15})
    folder = fit(photos, tmp_path / "run", unlabelled=True)
    assert (folder / "reconstructed.png").is_file()
    assert (folder / "features-test.parquet").is_file()
    assert not (folder / "finetune").exists()
    assert tuple(seitpp.load(folder).embed(str(photos / "2024" / "00.png")).shape) == (1, 128)
    assert "next: seitpp predict" not in capsys.readouterr().out


def test_a_trial_holds_out_images_of_classes_that_others_are_left_of(tmp_path):
    photos = noisy_images(tmp_path / "photos", {"ant": 12, "bee": 9, "one": 1})
    sample = sample_of(open_given(photos, labels=None, unlabelled=False).train, 100)
    assert len(set(sample)) == 22
    assert "one/00.png" in sample[:3]
    assert {place.split("/")[0] for place in sample[-4:]} == {"ant", "bee"}


@pytest.mark.slow
def test_a_dry_run_measures_every_step_and_writes_nothing(tmp_path, here, capsys, monkeypatch):
    monkeypatch.setattr("seitpp.pipeline.trial.TRIAL", {"steps": 2, "warmup_steps": 1, "save_every": 1, "log_every": 1})
    photos = noisy_images(tmp_path / "photos", {"ant": 30, "bee": 30})
    noisy_images(photos, {"one": 1})
    fit(photos, tmp_path / "run", dry_run=True, unlabelled=True)
    assert not (tmp_path / "run").exists()
    lines = capsys.readouterr().out.splitlines()
    table = lines[next(place for place, line in enumerate(lines) if line.startswith("step")) + 1 :]
    names = ["Split", "Tokenizer", "Tokens of the training images", "TokenAdapt", "MTM pre-training", "Report", "all"]
    for name in names:
        row = next(line for line in table if line.startswith(name))
        assert row.split()[-1] == "MB" or row.split()[-1] == "GB"
    assert any(line.startswith("measured here on 61 of the images and 2 steps") for line in table)
    assert lines[-1].startswith("nothing was written to")


def test_train_and_val_are_the_split_and_what_lies_beside_them_is_named(tmp_path):
    photos = tmp_path / "photos"
    noisy_images(photos / "train", {"ant": 3, "bee": 2})
    noisy_images(photos / "Val", {"ant": 1})
    noisy_images(photos / "extra", {"cow": 1})
    given = open_given(photos, labels=None, unlabelled=False)
    assert (len(given.train.keys), len(given.test.keys), given.beside) == (5, 1, ["extra"])
    with pytest.raises(UserError, match="split already"):
        open_given(photos, labels="birds.csv", unlabelled=False)
    noisy_images(photos / "Val", {"cow": 1})
    with pytest.raises(UserError, match=r"has a class .cow. that .*train lacks"):
        open_given(photos, labels=None, unlabelled=False)


@pytest.mark.parametrize(
    ("counts", "message"),
    [({"ant": 3, "bee": 3}, "a fit needs 16 and one"), (None, "is not a folder of images")],
)
def test_too_few_images_or_none_are_refused_before_anything_is_written(tmp_path, counts, message):
    photos = tmp_path / "photos"
    if counts:
        noisy_images(photos, counts)
    with pytest.raises(UserError, match=message) as refused:
        fit(photos, tmp_path / "run")
    tiny.one_line(str(refused.value))
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    photos = noisy_images(tmp_path / "photos", {"ant": 30})
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds thesis\.txt"):
        fit(photos, tmp_path / "run")
    with pytest.raises(UserError, match="choose another --output_dir"):
        fit(photos, photos / "run")
