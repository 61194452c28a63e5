"""An ONNX graph, written by torch's exporter and compared with torch by onnxruntime."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from seitpp.finetune.formats.checked import check_program
from seitpp.finetune.formats.network import Network
from seitpp.finetune.formats.program import quiet_libraries, signature, traced
from seitpp.runtime.errors import UserError

NOTE = "seitpp"
"""Key of what `describe` says, in the graph's metadata."""
LARGEST = 2**31 - 2**20
"""Bytes of the largest graph: an ONNX file is one protocol buffer."""


def save_onnx(file: Path, network: Network, described: dict[str, Any]) -> str:
    """Write a network as an ONNX graph for batches of any size, and compare it with torch.

    Args:
        file: the destination.
        network: what to export.
        described: what a user must know, kept in the graph's metadata under `NOTE`.
    Returns: what the graph takes and gives, for people.
    Raises: UserError if onnx, onnxscript or onnxruntime are not installed, the graph is too large or computes something
        else.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError as error:
        raise UserError("--kind onnx needs its extra: pip install 'seitpp[onnx]'") from error
    program = traced(network)
    size = sum(weight.numel() * weight.element_size() for weight in program.state_dict.values())
    if size > LARGEST:
        raise UserError(f"this network has {size / 1e9:.1f} GB of weights, an ONNX file holds 2: use --kind program")
    with quiet_libraries(), _silent("torch.onnx", "onnxscript", "onnx_ir"):
        graph = torch.onnx.export(
            program, dynamo=True, verbose=False, input_names=[network.input_name],
            output_names=list(network.output_names), dynamic_shapes=({0: "batch"},),
        )  # fmt: skip
    assert graph is not None
    proto = graph.model_proto
    onnx.helper.set_model_props(proto, {NOTE: json.dumps(described)})
    onnx.save(proto, str(file))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def run(example):
        return [torch.from_numpy(each) for each in session.run(None, {network.input_name: example.numpy()})]

    difference = check_program(run, network, "the ONNX graph")
    return f"{signature(network)}, onnxruntime equal to torch within {difference:.2g}"


@contextmanager
def _silent(*names: str) -> Iterator[None]:
    """Keep what loggers say below an error from the user."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
