"""Configurations from plain values, such as a model's config.json: built again, or refused by the field's name."""

import json
from dataclasses import asdict, dataclass, field
from typing import Literal

import pytest

import tiny
from seitpp.runtime.config import from_dict, require
from seitpp.runtime.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Part:
    width: int = 3
    mixer: Literal["attention", "convolution"] = "attention"

    def __post_init__(self):
        require(self, "width", self.width > 0, "must be positive")


@dataclass(frozen=True, kw_only=True)
class Whole:
    size: tuple[int, int]
    widths: tuple[int, ...] = (1,)
    rate: float = 0.5
    part: Part = field(default_factory=Part)
    other: Part | None = None


def test_what_json_keeps_of_a_configuration_is_built_again():
    config = Whole(size=(2, 3), widths=(4, 5, 6), rate=1, part=Part(mixer="convolution"), other=Part(width=9))
    assert from_dict(Whole, json.loads(json.dumps(asdict(config))), "it") == config


def test_what_is_missing_has_its_default():
    assert from_dict(Whole, {"size": [2, 3], "part": {}}, "it") == Whole(size=(2, 3))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"size": [2, 3], "sise": 1}, ["sise"]),
        ({"size": [2, 3], "part": {"wdith": 1}}, ["wdith"]),
        ({"size": [2, 3], "part": {"width": "x"}}, ["part.width", "x"]),
        ({"size": [2, 3], "part": {"width": None}}, ["part.width", "None"]),
        ({"size": [2, 3], "part": {"mixer": "mlp"}}, ["part.mixer", "mlp"]),
        ({"size": [2, 3], "part": {"width": 0}}, ["width = 0", "positive"]),
        ({"size": [2, 3], "part": 5}, ["part", "5"]),
        ({"size": [2, 3], "other": 5}, ["other", "5"]),
        ({"size": [2, 3, 4]}, ["size", "4"]),
        ({"size": 2}, ["Whole"]),
        ({}, ["size"]),
        ([], ["[]"]),
        (None, ["None"]),
    ],
)
def test_what_does_not_fit_is_named_with_its_source(values, named):
    with pytest.raises(UserError) as refused:
        from_dict(Whole, values, "run/config.json")
    line = tiny.one_line(str(refused.value))
    assert all(word in line for word in ["run/config.json", "Whole", *named])


def test_a_model_of_another_version_is_refused_by_its_file(tmp_path):
    from seitpp.mtm.model import load_model

    file = tiny.make_mtm(tmp_path) / "weights" / "config.json"
    described = json.loads(file.read_text())
    described["model"]["encoder"]["rotary"] = True
    file.write_text(json.dumps(described))
    with pytest.raises(UserError, match=r"config\.json is no ModelConfig.*rotary"):
        load_model(tmp_path)
