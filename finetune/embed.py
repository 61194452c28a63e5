"""Write the features of every row of a token store into a Parquet file, beside labels and keys.

    python -m seitpp.finetune.embed --store stores/train --weights runs/mtm --out features.parquet

The columns are features (fixed-size list of float32), label (-1 where unknown), class (null there) and key; the
schema's metadata says, under `seitpp`, what the features are of. The store is read as a stream, a row group at a time.
"""

import json
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from seitpp.mtm.encoder import Pooling, TokenEncoder, fitting_view
from seitpp.mtm.model import load_model
from seitpp.runtime.command import run_command
from seitpp.runtime.config import require
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.files import replacing
from seitpp.runtime.locations import Location
from seitpp.runtime.places import fresh_output
from seitpp.runtime.progress import Progress
from seitpp.tokens.loader import evaluation_batches
from seitpp.tokens.reading import ReadsStores
from seitpp.tokens.remote import CacheConfig
from seitpp.tokens.row_blocks import pass_through
from seitpp.tokens.store import open_store
from seitpp.tokens.views import centre

METADATA = b"seitpp"
ROW_GROUP = 4096


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(ReadsStores):
    """Write the features of every row of a token store into a Parquet file."""

    store: Location
    """the store's folder or URL"""
    weights: Location
    """run of seitpp.mtm.pretrain or its weights/"""
    out: Location
    """Parquet file to make"""
    pooling: Pooling = "mean"
    """mean: over patches, as the probes read it; cls: the cls token; both after the final norm"""
    batch_size: int = 64
    """rows encoded at a time"""
    mixed_precision: Literal["auto", "no", "bf16"] = "auto"
    """precision of the encoder's pass, as in a training; auto: bf16 on a GPU"""
    cache: CacheConfig = field(default_factory=CacheConfig)
    """how a store behind a URL is read"""

    def __post_init__(self):
        require(self, "batch_size", self.batch_size >= 1, "must be at least 1")


def main(config: EmbedConfig) -> None:
    """Write the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = fresh_output(config, folder=False)
    store = open_store(config.store, config.cache, verify_shards=config.verify_shards)
    accelerator = make_accelerator(config.mixed_precision)
    device = accelerator.device
    model, fingerprint = load_model(config.weights, device)
    store.check_tokenizer(fingerprint, f"the model in {config.weights}", model.described["codebook_size"])
    encoder = model.encoder
    fitting_view(encoder.view, store.grid, encoder.patch_size, store.geometry)
    width = encoder.width
    features_type = pa.list_(pa.float32(), width)
    about = {"tokenizer": store.tokenizer, "pooling": config.pooling, "classes": store.classes, **model.described}
    schema = pa.schema(
        [("features", features_type), ("label", pa.int32()), ("class", pa.string()), ("key", pa.string())],
        metadata={METADATA: json.dumps(about)},
    )
    names = np.array([*store.classes, None], object)  # the last is that of label -1
    with (
        replacing(out) as temporary,
        pq.ParquetWriter(temporary, schema, use_dictionary=["label", "class"]) as file,  # none of floats: it grows
        Progress(len(store), "embed") as progress,
    ):
        for rows in pass_through(store, ROW_GROUP):
            features = np.empty((len(rows), width), np.float32)
            for batch in evaluation_batches(store, config.batch_size, device=device, rows=np.asarray(rows)):
                places = batch.positions.cpu().numpy()
                with accelerator.autocast():
                    found = pooled(encoder, batch.ids, config.pooling)
                features[places] = found.float().cpu().numpy()
                progress.update(rows.start + int(places[-1]) + 1)
            labels = store.labels_at(rows)
            columns = [
                pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), type=features_type),
                pa.array(labels, pa.int32()),
                pa.array(names[labels], pa.string()),
                pa.array(store.keys(rows), pa.string()),
            ]
            file.write_batch(pa.record_batch(columns, schema=schema))
    print(f"{out}: {len(store)} rows of {width} features ({config.pooling})")


@torch.no_grad()
def pooled(encoder: TokenEncoder, ids: Tensor, pooling: Pooling) -> Tensor:
    """Features of grids, of which the model sees the centre: (b, h, w) ids to (b, d).

    Args:
        encoder: a TokenEncoder.
        ids: (b, h, w) int64.
        pooling: "mean" or "cls".
    """
    return encoder.pooled(centre(ids, encoder.view), pooling)


def cli() -> None:
    """Run the stage from the command line."""
    run_command(main, EmbedConfig, recipes="embed")


if __name__ == "__main__":
    cli()
