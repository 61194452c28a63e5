"""Every command that our texts show is one that the real parser takes; what --help shows as a value is one, too."""

import ast
import dataclasses
import importlib
import json
import re
import shlex
import subprocess
import typing

import pytest

import tiny
from seitpp.cli import STAGES
from seitpp.runtime.command import parse
from seitpp.store_cli import ACTIONS, as_flags

_COMMAND = re.compile(
    r"(?:\w+=\S+ )?(?:seitpp (?:launch (?:--\S+ \S+ )*)?(?=[a-z])|"
    r"python -m (?=seitpp\.)|accelerate launch (?:--\S+ \S+ )*-m )(.*)"
)
_BLOCK, _INLINE = re.compile(r"```\w*\n(.*?)```", re.DOTALL), re.compile(r"(?<!`)`([^`]+)`(?!`)")
_REMARK = re.compile(r"\s{2,}(?=[^\s-])|\s#\s")
_MORE = "…"
"""In a command: further flags, or a value, which are named elsewhere."""
_MODULES = {name: module for name, (module, _) in STAGES.items()} | {"mtm.pretrain": "seitpp.mtm.pretrain"}


def _tracked(*patterns):
    done = subprocess.run(["git", "ls-files", *patterns], cwd=tiny.ROOT, capture_output=True, text=True, check=True)
    return [tiny.ROOT / name for name in done.stdout.split() if not name.startswith("tests/")]


def _texts():
    """(file, text) of what people read: docstrings, Markdown, notebooks, the comments above recipes."""
    for path in _tracked("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                yield path, ast.get_docstring(node) or ""
    for path in _tracked("*.md"):
        if path.name not in ("LOG.md", "CHANGELOG.md"):  # what was, not what is
            yield path, path.read_text()
    for path in _tracked("*.ipynb"):
        yield from ((path, "".join(cell["source"])) for cell in json.loads(path.read_text())["cells"])
    for path in _tracked("*.yaml"):
        yield path, "\n".join(line[1:].strip() for line in path.read_text().split("\n") if line.startswith("#"))


def _commands():
    """(command, file) of every command, without what a text says beside it; one named in a sentence lacks flags."""
    for path, text in _texts():
        text = re.sub(r"\\\n\s*", "", text)
        sentences = [f"{' '.join(code.split())} {_MORE}" for code in _INLINE.findall(_BLOCK.sub("", text))]
        for found in filter(None, (_COMMAND.match(line.strip()) for line in [*text.split("\n"), *sentences])):
            yield _REMARK.split(found[1])[0].strip(), path.relative_to(tiny.ROOT).as_posix()


_KNOWN = {*_MODULES, *_MODULES.values(), "store"}  # else it is the word seitpp in a sentence
COMMANDS = dict(sorted(pair for pair in set(_commands()) if pair[0].split()[0] in _KNOWN))


def config_of(stage, monkeypatch):
    """(configuration class, folder of recipes) of a stage, by its module."""
    module, found = importlib.import_module(stage), []

    def take(main, config_class, *, recipes):
        found.append((config_class, recipes))

    monkeypatch.setattr(module, "run_command", take)
    module.cli()
    return found[0]


def required(config_class):
    """A value for each flag that has no default."""
    values = {}
    for field in dataclasses.fields(config_class):
        if field.default is field.default_factory is dataclasses.MISSING:
            choices = typing.get_args(field.type) if typing.get_origin(field.type) is typing.Literal else ()
            values[field.name] = choices[0] if choices else "[x]" if typing.get_origin(field.type) is tuple else "x"
    return {f"--{name}": value for name, value in values.items()}


def take_report(words, monkeypatch):
    """Have the report's own parser read a command line."""
    report, taken = importlib.import_module("seitpp.report.report"), []
    monkeypatch.setattr(report, "write_report", lambda *words, **named: taken.append(words) or [])
    report.cli(words)
    assert taken


def completed(words, config_class):
    """The words, with the flags that `…` stands for; behind a flag it stands for a value."""
    flags = [word for word, before in zip(words, ["", *words], strict=False)
             if word != _MORE or before.startswith("--")]  # fmt: skip
    given = {word.split("=")[0] for word in flags}
    more = [pair for pair in required(config_class).items() if pair[0] not in given]
    return flags if flags == words else [*flags, *(word for pair in more for word in pair)]


def test_commands_are_found_in_every_kind_of_text():
    expected = {"README.md", "downstream/robustness.py", "configs/pretrain/demo.yaml", "docs/store-format.md"}
    assert expected <= set(COMMANDS.values())
    assert len(COMMANDS) > 90


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_our_texts_show_is_taken(command, monkeypatch):
    first, *words = shlex.split(command)
    module = _MODULES.get(first, first)
    if "--help" in words or words == [_MORE] or words[:1] == ["ACTION"] or first in ("recipes", "doctor"):
        return  # a stage by its name alone, which COMMANDS looks up
    if module == "seitpp.report.report":
        take_report(words, monkeypatch)
    elif first == "store":
        config_class, recipes = parser_of(f"store {words[0]}", monkeypatch)
        parse(config_class, as_flags(words[0], completed(words[1:], config_class)), recipes=recipes)
    else:
        config_class, recipes = config_of(module, monkeypatch)
        parse(config_class, completed(words, config_class), recipes=recipes)


# What --help shows


def parser_of(stage, monkeypatch):
    """(configuration class, folder of recipes) of `seitpp STAGE`."""
    if not stage.startswith("store "):
        return config_of(STAGES[stage][0], monkeypatch)
    where, config_class, _, _ = ACTIONS[stage.removeprefix("store ")]
    return getattr(importlib.import_module(where), config_class), "store"


def shown_defaults(config_class, recipes, capsys):
    """{flag: its default} as --help_all shows them."""
    with pytest.raises(SystemExit):
        parse(config_class, ["--help_all"], recipes=recipes)
    parts = [part.split("\n\n")[0].split() for part in capsys.readouterr().out.split("\n  --")[1:]]
    found = {part[0]: re.search(r"type: [^()]*, default: ([^()]*)\)$", " ".join(part)) for part in parts}
    return {f"--{name}": default[1] for name, default in found.items() if default}


ONE_OF_SEVERAL = {
    "probe": {"--weights": "x"}, "store subset": {"--count": "3"}, "reduce-codebook": {"--codes": "3"},
    "import-model": {"--store": "x"}, "evaluate": {"--store": "x"}, "predict": {"--files": "[x]"},
    "continual": {"--methods": "[naive, tokens]"}, "store budget": {"--bytes": "1GB"}, "segment": {"--files": "[x]"},
    "split": {"--images": "[x]"}, "fit": {"--images": "[x]"},
}  # fmt: skip
"""Flags of which a stage needs one of several."""


def parsed(stage, config_class, recipes, **flags):
    """The configuration of a stage of which nothing but these flags, and those that it needs, is given."""
    given = required(config_class) | flags | ONE_OF_SEVERAL.get(stage, {})
    return parse(config_class, [word for pair in given.items() for word in pair], recipes=recipes)


WITHOUT_CONFIGURATION = ("report", "recipes", "doctor")


@pytest.mark.parametrize(
    "stage", [*(stage for stage in STAGES if stage not in WITHOUT_CONFIGURATION), *(f"store {a}" for a in ACTIONS)]
)
def test_what_help_shows_as_a_value_is_taken_as_it_stands(stage, monkeypatch, capsys):
    config_class, recipes = parser_of(stage, monkeypatch)
    expected = parsed(stage, config_class, recipes)
    defaults = shown_defaults(config_class, recipes, capsys)
    own = {f"--{field.name}" for field in dataclasses.fields(config_class) if not dataclasses.is_dataclass(field.type)}
    assert own - set(required(config_class)) <= set(defaults)
    spelled = {flag: "None" if value == "null" else value for flag, value in defaults.items()}  # as the texts call it
    for values in (defaults, spelled):
        assert parsed(stage, config_class, recipes, **values) == expected
