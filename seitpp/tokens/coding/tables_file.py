"""`coding.safetensors`: coding tables read from bytes that may be anything."""

import zlib

import numpy as np

from seitpp.tokens.coding.tables import MOST_CLUSTERS, CodingTables

_NAMES = ("left", "up", "place")


def read_tables(content: bytes, codebook_size: int, grid: tuple[int, int]) -> CodingTables:
    """Read coding tables, and check that they are of a store's codes and grid.

    Args:
        content: bytes of the file.
        codebook_size: K.
        grid: (h, w) tokens.
    Raises: ValueError if they are broken or of another store.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(content)
        clusters, stream = tensors["clusters"], tensors["logits"]
        arrays = {name: tensors[name] for name in _NAMES}
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"it has no coding tables ({str(error)[:80]})") from error
    if any(array.dtype != np.uint8 or array.ndim != 1 for array in tensors.values()) or len(clusters) != len(_NAMES):
        raise ValueError("its tensors are not those of coding tables")
    if clusters.min() < 1 or clusters.max() > MOST_CLUSTERS:
        raise ValueError(f"it has {clusters.tolist()} clusters, expected 1 to {MOST_CLUSTERS}")
    if len(arrays["left"]) != codebook_size + 1 or len(arrays["place"]) != grid[0] * grid[1]:
        raise ValueError(
            f"its tables are of {len(arrays['left']) - 1} codes and {len(arrays['place'])} tokens a row, "
            f"the store has {codebook_size} and {grid[0] * grid[1]}"
        )
    logits = _inflated(stream.tobytes(), int(clusters.sum()) * codebook_size).reshape(-1, codebook_size)
    parts = np.split(logits, np.cumsum(clusters.astype(np.int64))[:-1])
    return CodingTables(
        **arrays, **{f"{name}_logits": part for name, part in zip(_NAMES, parts, strict=True)}, width=grid[1]
    )


def _inflated(stream: bytes, length: int) -> np.ndarray:
    """What a zlib stream holds, (length,) int8; no more is ever unpacked."""
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(stream, length + 1)
    except zlib.error as error:
        raise ValueError(f"its logits are broken ({error})") from error
    if len(content) != length or not unpacker.eof or unpacker.unused_data:
        raise ValueError(f"its logits are not {length} bytes")
    return np.frombuffer(content, np.int8)
