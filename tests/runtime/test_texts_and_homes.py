"""Names are texts whatever they look like; `~` is the home wherever a configuration names a place."""

import json
import os
from dataclasses import dataclass, field
from typing import Literal

import pytest

from seitpp.downstream.robustness import RobustnessConfig
from seitpp.mtm.pretrain import PretrainConfig
from seitpp.report.report import cli as report
from seitpp.runtime.command import parse
from seitpp.runtime.config import StageConfig
from seitpp.runtime.errors import UserError
from seitpp.runtime.locations import Location, with_home
from seitpp.runtime.recipes import find_recipe
from seitpp.runtime.steps.step import flag_words
from seitpp.runtime.yaml_texts import load_texts
from seitpp.tokens.remote import CacheConfig
from seitpp.tokens.subset import SubsetConfig

ODD = ["1", "2.50", "1e3", "no", "Yes", "null", "2020-01-01", "0x1F", "a: b", "[x]", "ant, bee", "é😀", "'", '"', " "]
"""Names that YAML takes for numbers, truths, dates, lists and mappings, or for nothing."""


@dataclass(frozen=True, kw_only=True)
class PartConfig:
    """A part."""

    file: Location | None = None
    """a place inside"""


@dataclass(frozen=True, kw_only=True)
class WordsConfig(StageConfig):
    """A stage with every kind of text."""

    output_dir: Location = "out"
    name: str = "usual"
    column: str | None = None
    classes: tuple[str, ...] = ()
    places: tuple[Location, ...] = ()
    domains: dict[str, Location] = field(default_factory=dict)
    precision: Literal["auto", "no", "bf16"] = "auto"
    rates: tuple[float, ...] = ()
    steps: int | None = 3
    crop: bool = False
    part: PartConfig = field(default_factory=PartConfig)


def parsed(*words):
    return parse(WordsConfig, list(words), recipes="pretrain")


@pytest.fixture
def recipe(tmp_path):
    def write(text):
        (tmp_path / "mine.yaml").write_text(text)
        return str(tmp_path / "mine.yaml")

    return write


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return str(tmp_path)


@pytest.mark.parametrize("name", ODD)
def test_a_name_is_the_text_that_was_written(name, recipe):
    assert parsed("--name", name).name == name
    assert parsed("--config", recipe(json.dumps({"name": name}))).name == name


@pytest.mark.parametrize("how", ["flag", "recipe"])
@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("[1, 2]", ("1", "2")),
        ("[yes, no]", ("yes", "no")),
        ("[null, 1e3, on]", ("null", "1e3", "on")),
        ("[2020-01-01, 0x1F, 007]", ("2020-01-01", "0x1F", "007")),
        ("['a, b', \"~\", '']", ("a, b", "~", "")),
    ],
)
def test_names_in_a_list_are_texts(recipe, how, written, names):
    words = ["--classes", written] if how == "flag" else ["--config", recipe(f"classes: {written}\n")]
    assert parsed(*words).classes == names


def test_classes_of_a_subset_are_names():
    words = ["--store", "st", "--output_dir", "out", "--classes"]
    assert parse(SubsetConfig, [*words, "[1, 2]"], recipes="store").classes == ("1", "2")
    assert parse(SubsetConfig, [*words, "[yes, no]"], recipes="store").classes == ("yes", "no")


def test_an_enumeration_takes_no_for_a_word(recipe):
    """Many a recipe's `mixed_precision: no`."""
    path = recipe("mixed_precision: no\nstore: 7\n")
    config = parse(PretrainConfig, ["--config", path, "--output_dir", "out"], recipes="pretrain")
    assert (config.mixed_precision, config.store) == ("no", "7")
    assert parsed("--precision", "no").precision == parsed("--config", recipe("precision: no")).precision == "no"


def test_keys_of_a_dictionary_are_names(recipe):
    assert parsed("--domains", "{no: a, 1: b, null: c}").domains == {"no": "a", "1": "b", "null": "c"}
    assert parsed("--config", recipe("domains: {no: a, 1: 2}")).domains == {"no": "a", "1": "2"}


def test_numbers_truths_and_nothing_are_what_their_fields_make_of_them(recipe):
    texts = "rates: [1, 3e-4, .5]\nsteps: null\ncrop: yes\ncolumn: null\n"
    for config in (
        parsed("--config", recipe(texts)),
        parsed("--rates", "[1, 3e-4, .5]", "--steps", "null", "--crop", "yes", "--column", "null"),
    ):
        assert (config.rates, config.steps, config.crop, config.column) == ((1.0, 3e-4, 0.5), None, True, None)
    assert parsed("--config", recipe("steps:\ncolumn:\n")).steps is None
    assert parsed("--config", recipe("column: ~\n")).column is None


@pytest.mark.parametrize("words", [["--domains", "{a, b}"], ["--steps", "few"], ["--domains", "ant"]], ids=str)
def test_what_is_of_no_type_of_its_field_is_refused(words):
    with pytest.raises(UserError, match=words[0].removeprefix("--")):
        parsed(*words)


def test_what_is_no_yaml_is_read_as_it_stands():
    assert parsed("--name", "[", "--column", "{a: ").name == "["


def test_a_mapping_may_be_merged_into_another():
    assert load_texts("a: &a {x: 1}\nb: {<<: *a, y: no}") == {"a": {"x": "1"}, "b": {"x": "1", "y": "no"}}


def test_a_command_hands_its_values_on_whatever_they_look_like():
    values = {
        "name": "-x",
        "classes": ODD,
        "domains": {name: name for name in ODD},
        "places": ["demo, v2/a", "b\udcff"],
    }
    words = flag_words({**values, "steps": 5, "rates": [1e-4, 1.0], "crop": True, "part.file": "null, a"})
    config = parsed(*words)
    assert (config.name, config.steps, config.rates, config.crop) == ("-x", 5, (1e-4, 1.0), True)
    assert (list(config.classes), config.domains, list(config.places)) == tuple(list(values.values())[1:])
    assert config.part.file == "null, a"


# The home


def test_the_home_is_meant_in_every_place_and_in_no_name(home):
    config = parsed(
        "--output_dir=~/out", "--resume=~/run/checkpoints/step-1", "--name=~/name", "--classes", "['~/a']",
        "--places", "['~/a', b, 's3://x/y']", "--domains", "{'~': ~/sketch}", "--part.file=~/file",
    )  # fmt: skip
    assert config == WordsConfig(
        output_dir=f"{home}/out", resume=f"{home}/run/checkpoints/step-1", name="~/name", classes=("~/a",),
        places=(f"{home}/a", "b", "s3://x/y"), domains={"~": f"{home}/sketch"}, part=PartConfig(file=f"{home}/file"),
    )  # fmt: skip


def test_the_home_is_meant_in_a_recipe_and_in_its_name(home, tmp_path):
    (tmp_path / "base.yaml").write_text("places: ['~/a']\n")
    (tmp_path / "own.yaml").write_text("base: ~/base.yaml\n")
    assert parsed("--config=~/own.yaml").places == (f"{home}/a",)
    assert str(find_recipe("~/own.yaml", "pretrain")) == f"{home}/own.yaml"


def test_the_home_is_meant_in_the_stages(home):
    words = ["--classifiers=[~/a, ~/b]", "--images=~/test/{000..003}.tar", "--tokenizer=~/t", "--output_dir=~/x"]
    config = parse(RobustnessConfig, [*words, "--domains", "{sketch: ~/sketch}"], recipes="robustness")
    assert (config.classifiers, config.images) == ((f"{home}/a", f"{home}/b"), f"{home}/test/{{000..003}}.tar")
    assert (config.tokenizer, config.output_dir) == (f"{home}/t", f"{home}/x")
    assert config.domains == {"sketch": f"{home}/sketch"}


def test_the_home_is_meant_in_the_cache(home, monkeypatch):
    monkeypatch.delenv("SEITPP_CACHE", raising=False)
    assert str(CacheConfig().path) == f"{home}/.cache/seitpp"
    monkeypatch.setenv("SEITPP_CACHE", "~/shards")
    assert str(CacheConfig().path) == str(CacheConfig(folder="~/shards").path) == f"{home}/shards"


def test_the_home_is_meant_in_the_report(home, capsys):
    with pytest.raises(SystemExit):
        report(["~/nothing", "--out=~/page.html"])
    assert f"{home}/nothing" in capsys.readouterr().err


def test_a_user_whom_nobody_knows_is_a_name():
    assert with_home("~nobody-of-this-name/x") == "~nobody-of-this-name/x"
    assert with_home("a/~") == "a/~"
    assert with_home("~") == os.path.expanduser("~")  # noqa: PTH111
