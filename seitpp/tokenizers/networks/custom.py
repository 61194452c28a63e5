"""A custom tokenizer class: found by its import path, built, and checked against the protocol on one image."""

import json
from typing import Any

import torch
from torch import nn

from seitpp.runtime.errors import UserError
from seitpp.runtime.own_code import import_own, make_own, short
from seitpp.runtime.weights import fingerprint_of
from seitpp.tokens.format.layout import MOST_CODES
from seitpp.tokens.one_dimensional import GEOMETRIES, geometry_of


def make_own_tokenizer(spec: str) -> Any:
    """Make `package.module:Class` and check it.

    A class without `fingerprint` gets one of its import path, weights and preprocessing.

    Args:
        spec: import path; the current directory is importable too.
    Returns: the tokenizer.
    Raises: UserError that says what the class lacks or does otherwise than the Tokenizer protocol says.
    """
    tokenizer: Any = _make(spec)
    fields = {name: _attribute(tokenizer, name, spec) for name in _EXPECTED}
    for name, (fits, expected) in _EXPECTED.items():
        if not fits(fields[name]):
            raise UserError(f"{spec}: {name} is {short(fields[name])}, expected {expected}")
    if (geometry := geometry_of(tokenizer)) not in GEOMETRIES:
        raise UserError(f"{spec}: geometry is {short(geometry)}, expected {' or '.join(map(repr, GEOMETRIES))}")
    if len(fields["codebook"]) != fields["codebook_size"]:
        raise UserError(
            f"{spec}: codebook has {len(fields['codebook'])} rows, codebook_size is {fields['codebook_size']}"
        )
    _try(tokenizer.eval(), fields, spec)
    if not hasattr(tokenizer, "fingerprint"):
        tokenizer.fingerprint = fingerprint_of(tokenizer.state_dict(), {"class": spec, **fields["preprocessing"]})
    if not isinstance(tokenizer.fingerprint, str):
        raise UserError(f"{spec}: fingerprint is {short(tokenizer.fingerprint)}, expected a SHA-256 as text, or none")
    return tokenizer


def _make(spec):
    found = import_own(spec)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        module, _, name = spec.partition(":")
        raise UserError(f"{spec}: {module} has no torch module class {name}: expected package.module:Class")
    return make_own(found, spec)


def _attribute(tokenizer, name, spec):
    try:
        return getattr(tokenizer, name)
    except AttributeError as error:
        raise UserError(f"{spec} has no {name} ({short(error)}): see seitpp.tokenizers.tokenizer.Tokenizer") from error


@torch.no_grad()
def _try(tokenizer, fields, spec):
    """Encode and decode one grey image."""
    size, grid = tuple(fields["image_size"]), tuple(fields["grid"])
    ids = _run(tokenizer.encode, torch.full((1, 3, *size), 0.5), spec, "encode")
    if not isinstance(ids, torch.Tensor) or ids.dtype != torch.int64 or ids.shape != (1, *grid):
        raise UserError(f"{spec}: encode of a (1, 3, {size[0]}, {size[1]}) image gave {short(ids)}, "
                        f"expected int64 ids (1, {grid[0]}, {grid[1]})")  # fmt: skip
    if not 0 <= int(ids.min()) <= int(ids.max()) < fields["codebook_size"]:
        raise UserError(f"{spec}: encode gave ids in [{int(ids.min())}, {int(ids.max())}], codebook_size is "
                        f"{fields['codebook_size']}")  # fmt: skip
    images = _run(tokenizer.decode, ids, spec, "decode")
    if not isinstance(images, torch.Tensor) or not images.is_floating_point() or images.shape != (1, 3, *size):
        raise UserError(f"{spec}: decode of (1, {grid[0]}, {grid[1]}) ids gave {short(images)}, "
                        f"expected a (1, 3, {size[0]}, {size[1]}) float image")  # fmt: skip
    if not 0.0 <= float(images.min()) <= float(images.max()) <= 1.0:
        raise UserError(f"{spec}: decode gave pixels in [{float(images.min()):.3g}, {float(images.max()):.3g}], "
                        f"expected [0, 1]")  # fmt: skip


def _run(method, batch, spec, name):
    try:
        return method(batch)
    except Exception as error:
        raise UserError(f"{spec}: {name} failed on one image ({short(error)})") from error


def _is_pair(value):
    return isinstance(value, tuple | list) and len(value) == 2 and all(type(side) is int and side > 0 for side in value)


def _is_codebook(value):
    return isinstance(value, torch.Tensor) and value.ndim == 2 and value.is_floating_point()


def _is_json(value):
    try:
        return isinstance(value, dict) and bool(json.dumps(value))
    except (TypeError, ValueError):
        return False


_EXPECTED = {
    "name": (lambda value: isinstance(value, str), "a text"),
    "image_size": (_is_pair, "(height, width)"),
    "grid": (_is_pair, "(h, w)"),
    "codebook_size": (
        lambda value: type(value) is int and 2 <= value <= MOST_CODES,
        f"a number from 2 to {MOST_CODES:,}",
    ),
    "codebook": (_is_codebook, "a (k, c) tensor of floats"),
    "lookup": (lambda value: value in ("cosine", "euclidean", "signs"), '"cosine", "euclidean" or "signs"'),
    "preprocessing": (_is_json, "a dict that JSON can hold"),
    "encode": (callable, "a method"),
    "decode": (callable, "a method"),
}
