"""A program of torch.export: loaded by `torch.export.load` and run without this suite, on batches of any size."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from seitpp.finetune.formats.checked import check_program
from seitpp.finetune.formats.network import Network, drop_unused_weights

NOTE = "seitpp.json"
"""Name of what `describe` says, in the file."""


def save_program(file: Path, network: Network, described: dict[str, Any]) -> str:
    """Write a network as a program and compare what is read back with it.

    Args:
        file: the destination.
        network: what to export.
        described: what a user must know, kept in the file under `NOTE`.
    Returns: what the program takes and gives, for people.
    Raises: UserError if it computes something else.
    """
    program = traced(network)
    with quiet_libraries():
        with file.open("wb") as sink:
            torch.export.save(program, sink, extra_files={NOTE: json.dumps(described)})
        with file.open("rb") as source:
            loaded = torch.export.load(source).module()

    def run(example):
        outputs = loaded(example)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    difference = check_program(run, network, "the program")
    return f"{signature(network)}, equal to torch within {difference:.2g}"


def traced(network: Network) -> torch.export.ExportedProgram:
    """The program of a network for batches of any size, without weights that it does not read."""
    network.eval().requires_grad_(False)
    drop_unused_weights(network)
    with quiet_libraries():
        return torch.export.export(
            network, (network.example(2),), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
        )


def signature(network: Network) -> str:
    """What goes in and what comes out: "ids (batch, 28, 28) to logits (batch, 1000)"."""
    example = network.example(1)
    outputs = network(example)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    named = zip((network.input_name, *network.output_names), (example, *outputs), strict=True)
    first, *others = [f"{name} (batch, {', '.join(map(str, each.shape[1:]))})" for name, each in named]
    return f"{first} to {' and '.join(others)}"


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep the warnings of torch's exporters, which are for their authors, from the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
