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
        clusters, stream = tensors["clusters"], tensors["tables"]
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"it has no coding tables ({str(error)[:80]})") from error
    if any(each.dtype != np.uint8 or each.ndim != 1 for each in (clusters, stream)) or len(clusters) != len(_NAMES):
        raise ValueError("its tensors are not those of coding tables")
    if clusters.min() < 1 or clusters.max() > MOST_CLUSTERS:
        raise ValueError(f"it has {clusters.tolist()} clusters, expected 1 to {MOST_CLUSTERS}")
    lengths = [codebook_size + 1, codebook_size + 1, grid[0] * grid[1], *(clusters.astype(int) * codebook_size)]
    parts = np.split(_inflated(stream.tobytes(), sum(lengths)), np.cumsum(lengths)[:-1])
    named = dict(zip(_NAMES, parts[:3], strict=True))
    logits = [part.view(np.int8).reshape(-1, codebook_size) for part in parts[3:]]
    return CodingTables(
        **named, **{f"{name}_logits": part for name, part in zip(_NAMES, logits, strict=True)}, width=grid[1]
    )


def _inflated(stream: bytes, length: int) -> np.ndarray:
    """What a zlib stream holds, (length,) uint8; no more is ever unpacked."""
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(stream, length + 1)
    except zlib.error as error:
        raise ValueError(f"its tables are broken ({error})") from error
    if len(content) != length or not unpacker.eof or unpacker.unused_data:
        raise ValueError(f"its tables are not the {length} bytes that the store's codes and grid need")
    return np.frombuffer(content, np.uint8)
