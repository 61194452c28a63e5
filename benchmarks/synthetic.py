"""Random content of the papers' shape: TokenAdapt, and a store of 32 x 32 of 391 codes with ImageNet's kind of keys."""

import numpy as np
import torch

from seitpp.tokens.codec import pack
from seitpp.tokens.store import write_manifest, write_shard

GRID, VIEW, CODES, CHANNELS, CLASSES = (32, 32), (28, 28), 391, 32, 1000
_ROWS_PER_SHARD = 65536
_FINGERPRINT = "0" * 64


def make_store(folder, rows):
    """Write the store; returns its folder."""
    random = np.random.default_rng(0)
    shards = []
    for start in range(0, rows, _ROWS_PER_SHARD):
        count = min(_ROWS_PER_SHARD, rows - start)
        packed = random_packed(random, count)
        labels = random.integers(CLASSES, size=count)
        keys = [f"n{label:08d}/n{label:08d}_{row:06d}.JPEG" for row, label in enumerate(labels.tolist(), start)]
        shards.append(write_shard(folder / f"shard-{len(shards):05d}.arrow", packed, labels, keys))
    write_manifest(
        folder,
        tokenizer={"name": "random", "fingerprint": _FINGERPRINT},
        codebook=torch.from_numpy(random.standard_normal((CODES, CHANNELS))).float(),
        lookup="cosine",
        grid=GRID,
        preprocessing={},
        classes=[f"n{label:08d}" for label in range(CLASSES)],
        shards=shards,
    )
    return folder


def random_packed(random, rows):
    """Packed rows of random ids, (rows, bytes) uint8."""
    parts = []
    for start in range(0, rows, 8192):
        ids = random.integers(CODES, size=(min(8192, rows - start), *GRID), dtype=np.int16)
        parts.append(pack(torch.from_numpy(ids), CODES).numpy())
    return np.concatenate(parts)


def make_token_adapt(folder, config):
    """Save TokenAdapt of a TokenAdaptConfig, as a run of `seitpp.tokenadapt.train` leaves it; returns the model."""
    from seitpp.runtime.weights import save_weights
    from seitpp.tokenadapt.model import TokenAdapt

    torch.manual_seed(0)
    adapt = TokenAdapt(config, grid=GRID, view=VIEW, codebook_size=CODES, embedding_dim=CHANNELS)
    save_weights(folder / "weights", adapt.state_dict(), {**adapt.described, "tokenizer": _FINGERPRINT})
    return adapt
