"""`seitpp doctor`, `seitpp recipes`, `seitpp --version`."""

import sys
from importlib import metadata

import pytest

from seitpp import cli, doctor
from seitpp.runtime import list_recipes
from seitpp.runtime.errors import UserError
from seitpp.runtime.recipes import recipes_folder


def test_the_version_is_the_installed_one(capsys):
    cli.main(["--version"])
    assert capsys.readouterr().out == f"seitpp {metadata.version('seitpp')}\n"


def test_the_doctor_says_versions_devices_and_what_an_extra_lacks(monkeypatch, capsys):
    absent = metadata.PackageNotFoundError("datasets")

    def version(name, real=metadata.version):
        if name == "datasets":
            raise absent
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(sys, "argv", ["seitpp doctor"])
    doctor.cli()
    lines = capsys.readouterr().out.splitlines()
    said = {line.split()[0]: line.split(None, 1)[1] for line in lines if line.startswith("  ")}
    assert said["torch"] == metadata.version("torch")
    assert said["huggingface"] == "lacks datasets: pip install 'seitpp[huggingface]'"
    assert "cores may be used" in said["CPU"]
    assert said["here"].endswith("GB free")


def test_recipes_are_listed_with_what_they_say_of_themselves(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "argv", ["seitpp recipes", "pretrain"])
    list_recipes.cli()
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines if line.startswith("  ")]
    assert names == sorted(path.stem for path in (recipes_folder("pretrain")).glob("*.yaml"))
    assert any("The papers' recipe" in line for line in lines)
    assert max(map(len, lines[:-1])) <= 100


def test_recipes_of_a_stage_that_there_is_not_are_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["seitpp recipes", "finetne"])
    with pytest.raises(SystemExit) as ended:
        list_recipes.cli()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: no recipes for finetne; did you mean finetune?\n"


def test_every_stage_with_recipes_finds_them():
    folders = {path.name for path in recipes_folder(".").iterdir() if any(path.glob("*.yaml"))} - {"accelerate"}
    found = {name for stage in cli.STAGES for name in _folders(stage)}
    assert folders <= found


def _folders(stage):
    try:
        return list(list_recipes.recipes_of(stage))
    except UserError:
        return []
