"""The recordings of the published models: tensors, and their weights made from the formula of parity/README.md."""

import json
import os
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

FOLDER = Path(os.environ.get("PARITY_DIR") or Path(__file__).parent / "parity")


def release_ids():
    """(rows, tokens) uint16, the ids that the release's files hold."""
    return np.load(FOLDER / "tiny-train-expected.npy")


def release_labels():
    """The labels of the release's files."""
    return [int(line) for line in (FOLDER / "tiny-train-label.txt").read_text().splitlines()]


def recording(name):
    """All tensors of a fixture."""
    with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)


def published_weights(name):
    """The published state dict of a fixture: name to tensor."""
    with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
        seed = int(file.metadata()["seed"])
    shapes = json.loads((FOLDER / "shapes.json").read_text())[name]
    return {tensor: formula_weight(tensor, shape, seed) for tensor, shape in shapes.items()}


def block_count(weights, prefix):
    """How many transformer blocks a state dict holds under a prefix."""
    return len({name.removeprefix(prefix).split(".")[0] for name in weights if name.startswith(prefix)})


def largest_difference(tensor, reference):
    """Greatest absolute difference of two tensors of the same shape."""
    assert tensor.shape == reference.shape
    return float((tensor - reference).abs().max())


def formula_weight(name, shape, seed):
    """A tensor of the formula of parity/README.md."""
    values = np.random.RandomState((zlib.crc32(name.encode()) ^ seed) & 0xFFFFFFFF).standard_normal(shape) * 0.05
    if name.endswith("word_embeddings.weight"):
        values *= 12
    if len(shape) == 1 and name.endswith(".weight"):
        values += 1
    return torch.from_numpy(values.astype(np.float32))
