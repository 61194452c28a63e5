"""Values as people type them, and what is said of those that do not fit."""

import re
import shlex
import sys
from dataclasses import dataclass, field
from importlib import import_module
from typing import Literal

import pytest

import tiny
from seitpp.cli import STAGES
from seitpp.finetune.train import FinetuneConfig
from seitpp.runtime.command import parse, run_command
from seitpp.runtime.config import StageConfig
from seitpp.runtime.errors import UserError
from seitpp.runtime.field_types import field_types, in_words, lists_as_typed
from seitpp.runtime.locations import Location
from seitpp.runtime.short_help import _wrapped, short_help

NEEDED = ["--store", "a", "--eval_store", "b", "--output_dir", "c"]


@dataclass(frozen=True, kw_only=True)
class TypedConfig(StageConfig):
    """A stage of many kinds of values."""

    view: tuple[int, int] | None = None
    """tokens"""
    names: tuple[str, ...] = ()
    """of classes"""
    runs: tuple[Location, ...] = ()
    """folders"""
    domains: dict[str, Location] = field(default_factory=dict)
    """name to folder"""
    rates: tuple[float, ...] = (0.1,)
    """learning rates"""
    kind: Literal["a", "b"] = "a"
    """one of two"""
    kinds: tuple[Literal["x", "y", "z"], ...] = ("x",)
    """some of three"""


def typed(*words):
    return parse(TypedConfig, ["--output_dir", "x", *words], recipes="typed")


def refused(*words):
    with pytest.raises(UserError) as raised:
        typed(*words)
    return tiny.one_line(str(raised.value))


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--view", "8,9"], "view", (8, 9)),
        (["--view=8, 9"], "view", (8, 9)),
        (["--view", "[8, 9]"], "view", (8, 9)),
        (["--view", "None"], "view", None),
        (["--names", "ant"], "names", ("ant",)),
        (["--names", "ant,3,null,no"], "names", ("ant", "3", "null", "no")),
        (["--names", "[ant, bee]"], "names", ("ant", "bee")),
        (["--names", ""], "names", ()),
        (["--runs", "runs/a,runs/b"], "runs", ("runs/a", "runs/b")),
        (["--domains", "sketch=photos/sketch"], "domains", {"sketch": "photos/sketch"}),
        (["--domains", "a=b,c=d=e"], "domains", {"a": "b", "c": "d=e"}),
        (["--domains", "{a: b}"], "domains", {"a": "b"}),
        (["--rates", "1e-3,2"], "rates", (0.001, 2.0)),
    ],
)
def test_lists_and_mappings_are_read_as_people_type_them(words, name, value):
    assert getattr(typed(*words), name) == value


def test_a_file_whose_name_has_a_comma_is_one_file(tmp_path):
    (tmp_path / "a,b").mkdir()
    assert typed("--runs", str(tmp_path / "a,b")).runs == (str(tmp_path / "a,b"),)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--seed", "1.5"], "--seed: expected a whole number, got 1.5"),
        (["--view", "8"], "--view: expected 2 whole numbers, such as 8,8 or None, got ['8']"),
        (["--rates", "0.1,x"], "--rates: expected numbers, such as 0.5 or 0.5,0.5, got x"),
        (["--kind", "c"], "--kind: expected one of a, b, got c"),
        (["--kinds", "w"], "--kinds: expected some of x, y, z, such as x,y, got w"),
        (["--domains", "photos"], "--domains: expected names with values, such as a=b,c=d, got photos"),
    ],
)
def test_a_value_of_the_wrong_kind_is_said_in_plain_words(words, said):
    assert refused(*words) == said


def test_every_kind_of_field_of_a_large_stage_has_words():
    kinds = field_types(FinetuneConfig)
    assert kinds["augment.geometry.crop_scale"] == tuple[float, float]
    for name, kind in kinds.items():
        assert not re.search("<class|typing|Union|dataclass", in_words(kind)), name


def test_words_of_other_flags_are_left_as_they_are():
    kinds = field_types(TypedConfig)
    words = ["--kind", "a,b", "--config", "x,y", "--names", "c,d"]
    assert lists_as_typed(words, kinds) == ["--kind", "a,b", "--config", "x,y", "--names", '["c", "d"]']


def test_the_configuration_that_a_run_left_is_a_recipe(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("stage: typed\noutput_dir: runs/old\nnames: [ant]\nview: null\nrates: [0.5]\n")
    config = parse(TypedConfig, ["--config", str(file), "--output_dir", "runs/new"], recipes="typed")
    assert (config.output_dir, config.names, config.rates) == ("runs/new", ("ant",), (0.5,))


def said_by(capsys, config_class, *words):
    with pytest.raises(SystemExit) as ended:
        run_command(lambda config: None, config_class, recipes="finetune", argv=words)
    assert not ended.value.code
    return capsys.readouterr().out


def test_help_names_every_flag_of_a_stage_within_a_screen_or_two(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["seitpp finetune"])
    lines = said_by(capsys, FinetuneConfig, "--help").splitlines()
    assert len(lines) <= 120
    assert max(map(len, lines[12:])) <= 90
    own = {name.split(".")[0] for name in field_types(FinetuneConfig)}
    assert own <= {line.split()[0][2:].split(".")[0] for line in lines if line.startswith("  --")}
    assert "seitpp finetune --help_all" in lines[-1]


CONFIGURED = [name for name, (module, _) in STAGES.items() if hasattr(import_module(module), "run_command")]


@pytest.mark.parametrize("stage", CONFIGURED)
def test_help_of_every_stage_fits_a_terminal_and_its_examples_are_commands(stage, monkeypatch):
    module, found = import_module(STAGES[stage][0]), []
    monkeypatch.setattr(module, "run_command", lambda main, config_class, **named: found.append(config_class))
    module.cli()
    monkeypatch.setenv("COLUMNS", "80")
    text = short_help(found[0], f"seitpp {stage}")
    assert len(text.splitlines()) <= 120
    assert max(map(len, text.splitlines())) <= 90
    _, _, examples = text.partition("examples:\n")
    for line in examples.split("\n\n")[0].replace(" \\\n", " ").splitlines():
        assert re.match(r"( {6}# |  (\w+=\S+ )?(seitpp|python|accelerate|find) )", line), line


def test_a_long_example_is_broken_between_flags_alone():
    example = f"seitpp robustness --images a --benchmarks '{{imagenet-a: {'a' * 50}, imagenet-c: c}}' --output_dir b"
    lines = _wrapped(example, 80)
    assert len(lines) > 1
    assert shlex.split("\n".join(lines).replace(" \\\n", " ")) == shlex.split(example)
    assert all(line.endswith(" \\") for line in lines[:-1])
    assert all(line.count("'") % 2 == 0 for line in lines)


def test_help_all_has_the_flags_of_every_part(capsys):
    text = said_by(capsys, FinetuneConfig, "--help_all")
    assert "--augment.geometry.crop_scale" in text


def test_help_needs_no_other_flag(capsys):
    assert "usage:" in said_by(capsys, FinetuneConfig, *NEEDED, "-h")
