"""A run is gone on with where its inputs are the same, whatever they are called; it is not where they are others."""

import json
import os
import re
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

import tiny
from seitpp.runtime.config import StageConfig
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import write_json
from seitpp.runtime.fingerprints import file_fingerprint, weights_fingerprint
from seitpp.runtime.run_folder import RunFolder
from seitpp.runtime.same_run import Described, differences


@dataclass(frozen=True, kw_only=True)
class PartConfig:
    """A part."""

    adapter: str | None = None


@dataclass(frozen=True, kw_only=True)
class InputConfig(StageConfig):
    """A stage."""

    store: str = "stores/train"
    weights: str | None = None
    domains: dict[str, str] = field(default_factory=dict)
    part: PartConfig = field(default_factory=PartConfig)


@pytest.fixture
def config(tmp_path):
    return InputConfig(output_dir=str(tmp_path / "run"))


def started(config, **data):
    RunFolder(config, stage="some.stage", data=data).log({"step": 0})


@pytest.mark.parametrize("spelling", ["./stores/train", "/home/me/stores/train", "../elsewhere/train", "s3://b/train"])
def test_another_spelling_of_the_same_input_is_the_same_run(config, spelling):
    started(config, store="a" * 64)
    started(replace(config, store=spelling), store="a" * 64)


def test_the_same_spelling_of_another_input_is_another_run(config):
    started(config, store="a" * 64)
    matters = (
        r"run holds another run \(store: 'stores/train' is another since, a{12} there, b{12} now\): choose another "
    )
    with pytest.raises(UserError, match=matters) as refused:
        started(config, store="b" * 64)
    tiny.one_line(str(refused.value))


def test_a_refusal_names_the_field_and_both_values(config):
    started(config, store="a" * 64, weights=None)
    with pytest.raises(UserError, match=r"\(weights: None \(None\) there, 'runs/mtm' \(c{12}\) now\)"):
        started(replace(config, weights="runs/mtm"), store="a" * 64, weights="c" * 64)


def test_inputs_inside_parts_and_dictionaries_are_compared_so_too(config):
    first = replace(config, part=PartConfig(adapter="a"), domains={"sketch": "s"})
    second = replace(config, part=PartConfig(adapter="./a"), domains={"sketch": "./s"})
    prints = {"part.adapter": "1", "domains.sketch": "2"}
    started(first, **prints)
    started(second, **prints)
    with pytest.raises(UserError, match=r"domains\.sketch: '\./s' \(2\) there, 's' \(3\) now"):
        started(first, **{**prints, "domains.sketch": "3"})
    with pytest.raises(UserError, match=r"domains\.photo: None there, 'p' now"):
        started(replace(first, domains={"sketch": "s", "photo": "p"}), **prints, **{"domains.photo": "4"})


def test_a_run_without_fingerprints_is_known_by_its_spelling(config):
    """Those of older versions have none of weights and images."""
    started(replace(config, weights="w"), store="a" * 64)
    started(replace(config, weights="w"), store="a" * 64, weights="c" * 64)
    known = json.loads(Path(config.output_dir, "env.json").read_text())
    assert known["inputs"] == {"store": "a" * 64, "weights": "c" * 64}  # and has them from now on


def test_a_run_without_fingerprints_is_another_where_it_is_spelt_otherwise(config):
    started(replace(config, weights="w"), store="a" * 64)
    with pytest.raises(UserError, match=r"weights: 'w' there, '\./w' now"):
        started(replace(config, weights="./w"), store="a" * 64, weights="c" * 64)


def test_what_may_change_may_not_be_another_input():
    there, here = Described({"tokenizer": "a"}, {"tokenizer": "1"}), Described({"tokenizer": "b"}, {"tokenizer": "1"})
    assert differences(there, here, ["tokenizer"]) == []
    assert differences(there, replace(here, inputs={"tokenizer": "2"}), ["tokenizer"]) == [
        "tokenizer: 'a' (1) there, 'b' (2) now"
    ]


def test_a_file_is_known_by_its_bytes(tmp_path):
    """SHA-256 of "abc": FIPS 180-2, appendix B.1."""
    (tmp_path / "one").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_fingerprint(tmp_path / "one") == known
    shutil.copy(tmp_path / "one", tmp_path / "two")
    (tmp_path / "link").symlink_to("two")
    assert file_fingerprint(tmp_path / "two") == file_fingerprint(tmp_path / "link") == known


def test_a_file_that_is_made_anew_is_another(tmp_path):
    file = tmp_path / "one"
    file.write_bytes(b"abc")
    first = file_fingerprint(file)
    (tmp_path / "new").write_bytes(b"abd")
    os.replace(tmp_path / "new", file)  # noqa: PTH105 - as `replacing` does
    assert file_fingerprint(file) != first


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match="gone"):
        file_fingerprint(tmp_path / "gone")


def test_weights_are_known_by_their_tensors_and_their_configuration(tmp_path):
    run = tiny.make_mtm(tmp_path / "run")
    known = weights_fingerprint(run)
    assert re.fullmatch("[0-9a-f]{64}", known)
    assert known == weights_fingerprint(run / "weights") == weights_fingerprint(shutil.copytree(run, tmp_path / "copy"))
    assert weights_fingerprint(tiny.make_mtm(tmp_path / "other", codes=38)) != known
    described = json.loads((run / "weights" / "config.json").read_text())
    write_json(run / "weights" / "config.json", {**described, "augmentation": "tokenadapt"})
    assert weights_fingerprint(run) != known
    with pytest.raises(UserError, match="holds no weights"):
        weights_fingerprint(tmp_path)
