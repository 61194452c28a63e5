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

HELP_OF_ALL = """
import contextlib, io, json, sys
from seitpp.cli import STAGES, main

texts = {}
for stage, flag in [*((stage, "--help") for stage in STAGES), ("finetune", "--help_all")]:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        main([stage, flag])
    texts[f"{stage} {flag}"] = shown.getvalue()
heavy = [name for name in sys.modules if name.split(".")[0] in sys.argv[1].split(",")]
print(json.dumps({"texts": texts, "heavy": heavy}))
"""


@pytest.fixture(scope="module")
def light():
    """What a process that has only asked for help has shown, and which heavy libraries it has imported."""
    environment = {**os.environ, "COLUMNS": "80"}
    heavy = ",".join(HEAVY - {"numpy"})
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", HELP_OF_ALL, heavy], capture_output=True, text=True, env=environment,
        cwd=tiny.ROOT, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_help_of_no_stage_imports_a_heavy_library(light):
    assert light["heavy"] == []


@pytest.mark.parametrize(("stage", "flag"), [*((stage, "--help") for stage in STAGES), ("finetune", "--help_all")])
def test_help_says_the_same_as_it_does_with_all_libraries(light, stage, flag, capsys, monkeypatch):
    assert "torch" in sys.modules  # so that nothing is stood in for
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["seitpp"])
    with contextlib.suppress(SystemExit):
        main([stage, flag])
    shown = capsys.readouterr().out
    assert "usage: seitpp" in shown
    assert light["texts"][f"{stage} {flag}"] == shown


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
