"""`rows.npy` of a subset: which rows of the shards are its own."""

import hashlib
import io
from typing import Any

import numpy as np

from seitpp.runtime.errors import UserError

_AGAIN = "make the subset again (seitpp store subset)"


def read_row_numbers(content: bytes, subset: dict[str, Any], rows: int, name: str) -> np.ndarray:
    """Read and check the rows of a subset.

    Args:
        content: bytes of rows.npy.
        subset: what the manifest says of it.
        rows: of all shards together.
        name: of the file, for messages.
    Returns: (rows of the subset,) int64, strictly rising, in [0, rows).
    Raises: UserError that says what is wrong.
    """
    if hashlib.sha256(content).hexdigest() != subset["sha256"]:
        raise UserError(f"{name}: the checksum differs from store.json: {_AGAIN}")
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"version {version}")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    except Exception as error:  # the header is Python, and may be wrong in any way
        raise UserError(f"{name} is no file of NumPy, version 1.0: {_AGAIN}") from error
    values = content[file.tell() :]
    if dtype == np.dtype("<i8") and shape == (subset["rows"],) and len(values) != 8 * subset["rows"]:
        raise UserError(f"{name} has {len(values)} bytes of numbers, expected {8 * subset['rows']}: {_AGAIN}")
    if dtype != np.dtype("<i8") or shape != (subset["rows"],):
        raise UserError(f"{name} holds {dtype} of shape {shape}, expected int64 ({subset['rows']},): {_AGAIN}")
    chosen = np.frombuffer(values, "<i8").astype(np.int64)
    if len(chosen) and not (chosen[0] >= 0 and chosen[-1] < rows and (np.diff(chosen) > 0).all()):
        raise UserError(f"{name} must hold rising numbers from 0 to {rows - 1}, each once: {_AGAIN}")
    return chosen
