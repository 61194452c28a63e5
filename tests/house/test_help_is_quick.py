"""Help reads configurations without the libraries that they configure."""

import contextlib
import json
import os
import subprocess
import sys

import pytest

import tiny
from seitpp.cli import STAGES, main
from seitpp.runtime.stand_ins import HEAVY, StandIn, stand_ins

ASKED = {
    **{f"{stage} --help": [stage, "--help"] for stage in STAGES},
    "finetune --help_all": ["finetune", "--help_all"],
    "a configuration": [
        *("pretrain", "--config", "demo", "--store", "tokens", "--output_dir", "run"),
        *("--model.encoder.width", "24", "--print_config"),
    ],
    "a wrong configuration": ["pretrain", "--config", "demo", "--batch_size", "many", "--print_config"],
}
HELP_OF_ALL = """
import contextlib, io, json, sys
from seitpp.cli import main

texts, asked, heavy = {}, json.loads(sys.argv[1]), json.loads(sys.argv[2])
for name, words in asked.items():
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown), contextlib.suppress(SystemExit):
        main(words)
    texts[name] = shown.getvalue()
heavy = [name for name in sys.modules if name.split(".")[0] in heavy]
print(json.dumps({"texts": texts, "heavy": heavy}))
"""


@pytest.fixture(scope="module")
def light():
    """What a process that has only asked for help has shown, and which heavy libraries it has imported."""
    environment = {**os.environ, "COLUMNS": "80"}
    heavy = json.dumps([*HEAVY])
    command = [sys.executable, "-W", "error", "-c", HELP_OF_ALL, json.dumps(ASKED), heavy]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tiny.ROOT, check=True)
    return json.loads(done.stdout)


def test_help_of_no_stage_imports_a_heavy_library(light):
    assert light["heavy"] == []


@pytest.mark.parametrize("name", ASKED)
def test_what_is_said_is_what_is_said_with_all_libraries(light, name, capsys, monkeypatch):
    assert "torch" in sys.modules  # so that nothing is stood in for
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["seitpp"])
    with contextlib.suppress(SystemExit):
        main(ASKED[name])
    said = capsys.readouterr()
    assert light["texts"][name] == said.out + said.err
    expected = {"a configuration": "width: 24", "a wrong configuration": "expected a whole number, got many"}
    assert expected.get(name, "usage: seitpp") in said.out + said.err


def test_a_stand_in_can_be_what_a_library_is_used_for_at_import():
    library = StandIn()

    class Layer(library.nn.Module, library.Other):
        """A class below one of the library."""

    @library.no_grad()
    def decorated():
        """A function that the library decorates."""

    assert Layer.__mro__ == (Layer, object)
    assert isinstance(decorated, StandIn)
    assert isinstance(library.Tensor | None, StandIn)
    assert isinstance(None | library.Tensor, StandIn)
    assert isinstance(library.Dataset[int], StandIn)


def test_nothing_is_stood_in_for_where_torch_is_there():
    import torch

    with stand_ins():
        import torchmetrics

    assert sys.modules["torch"] is torch
    assert not isinstance(torchmetrics.Metric, StandIn)
