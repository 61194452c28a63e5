"""Write a token store in a form that other programs read: Parquet, the files of the SeiT release, or pictures.

    seitpp store export stores/train --format parquet --out exported
    seitpp store export stores/train --format seit --out release --name imagenet1k-train
    seitpp store export stores/train --format imagefolder --out pictures --tokenizer runs/tokenizer

The rows are read as a stream. The folder is written beside its place and moved there when it is whole.
"""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from PIL import Image

from seitpp.runtime.config import require
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import replacing
from seitpp.runtime.locations import Location
from seitpp.runtime.places import fresh_output
from seitpp.runtime.progress import Progress
from seitpp.tokenizers.tokenizer import load_tokenizer
from seitpp.tokens.exchange import published
from seitpp.tokens.exchange.codebook_file import codebook_checksum, write_bare_tensor
from seitpp.tokens.format.layout import MOST_IN_ONE_TABLE, PLANES
from seitpp.tokens.reading import ReadsStores
from seitpp.tokens.row_blocks import pass_through, row_ranges
from seitpp.tokens.store import open_store
from seitpp.tokens.synonyms import PUBLISHED_COUNT, is_local, nearest_codes, write_synonyms


@dataclass(frozen=True, kw_only=True)
class ExportConfig(ReadsStores):
    """Write a token store in a form that other programs read: seitpp store export STORE."""

    store: Location
    """the store's folder or URL"""
    format: Literal["parquet", "seit", "imagefolder"]
    """parquet: a file a shard; seit: the published release's files; imagefolder: decoded PNGs in class folders"""
    out: Location
    """folder to make"""
    name: str | None = None
    """seit: what the files' names begin with, such as imagenet1k-train; None: the name of the store's folder"""
    tokenizer: Location | None = None
    """imagefolder: the tokenizer that made the store"""
    batch_size: int = 64
    """imagefolder: images decoded at a time"""

    def __post_init__(self):
        require(self, "batch_size", self.batch_size >= 1, "must be at least 1")
        decodes = self.format == "imagefolder"
        require(self, "tokenizer", not decodes or self.tokenizer, "but imagefolder needs it: give --tokenizer FOLDER")
        require(self, "name", self.name is None or "/" not in self.name, "must not hold a /: the folder is --out")


def main(config: ExportConfig) -> None:
    """Write the folder."""
    out = fresh_output(config, folder=True)
    store = open_store(config.store, verify_shards=config.verify_shards)
    if config.format == "seit" and store.codebook_size > MOST_IN_ONE_TABLE:
        raise UserError(
            f"{config.store} has {store.codebook_size:,} codes, and in the release's files an id takes a byte for each "
            f"255 of it: they are for at most {MOST_IN_ONE_TABLE:,} codes. Use --format parquet"
        )
    write = {"parquet": _write_parquet, "seit": _write_seit, "imagefolder": _write_images}[config.format]
    with replacing(out) as folder, Progress(len(store), "export") as progress:
        folder.mkdir()
        write(store, folder, config, progress.update)
    print(f"{out}: {len(store)} images as {config.format}")


def _write_parquet(store, folder, config, progress):
    """One file for the rows of each shard, with the codebook beside them."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from safetensors.torch import save_file

    from seitpp.tokens.exchange.parquet_rows import METADATA

    codebook = store.codebook
    save_file({"codebook": codebook}, folder / "codebook.safetensors")
    _copy_synonyms(store, folder)
    left_out = ("shards", "subset", "coding_tables")  # the ids are written plainly
    manifest = {name: value for name, value in store.manifest.items() if name not in left_out} | {"coding": PLANES}
    manifest["codebook_checksum"] = codebook_checksum(codebook)
    integer = np.uint16 if store.codebook_size <= MOST_IN_ONE_TABLE else np.uint32
    ids_type = pa.list_(pa.from_numpy_dtype(integer), store.grid[0] * store.grid[1])
    further = [(name, column.type) for name, column in store.targets_at([]).columns.items()]
    schema = pa.schema(
        [("ids", ids_type), ("label", pa.int32()), ("class", pa.string()), ("key", pa.string()), *further],
        metadata={METADATA: json.dumps(manifest)},
    )
    names = np.array([*store.classes, None], object)  # the last is that of label -1
    ranges = [range(start, stop) for start, stop in pairwise(store.shard_offsets.tolist()) if stop > start]
    for number, rows in enumerate(ranges or [range(0)]):
        with pq.ParquetWriter(folder / f"part-{number:05d}.parquet", schema) as file:
            for part in row_ranges(rows, block=4096):  # a row group each
                ids = pa.array(store.ids(part).numpy().astype(integer).reshape(-1))
                labels = store.labels_at(part)
                columns = [
                    pa.FixedSizeListArray.from_arrays(ids, type=ids_type),
                    pa.array(labels),
                    pa.array(names[labels], pa.string()),
                    pa.array(store.keys(part), pa.string()),
                    *store.targets_at(part).columns.values(),
                ]
                file.write_batch(pa.record_batch(columns, schema=schema))
                progress(part.stop)
        store.close_shards()


def _write_seit(store, folder, config, progress):
    """The release's files: tokens and their index, labels, codebook, synonyms; and class names, which it lacks."""
    name = config.name or Path(str(store.folder)).name
    data = folder / f"{name}-token.data.bin.gz"
    with (
        published.writing(data, len(store)) as append,
        (folder / f"{name}-label.txt").open("w", encoding="utf-8") as labels,
    ):
        for rows in pass_through(store):
            append(rearrange(store.ids(rows), "b h w -> b (h w)").numpy())
            labels.writelines(f"{label}\n" for label in store.labels_at(rows).tolist())
            progress(rows.stop)
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in store.classes), encoding="utf-8")
    write_bare_tensor(folder / "codebook.ckpt", store.codebook)
    if not _copy_synonyms(store, folder):
        write_synonyms(folder / "synonyms.json", nearest_codes(store.codebook, store.lookup, PUBLISHED_COUNT))
    if not published.reads_back(store.codebook_size, store.grid):
        print(
            "note: seitpp reads these files back; the published code knows only grids of 1,024 tokens and K up to 510"
        )


@torch.no_grad()
def _write_images(store, folder, config, progress):
    """Decoded PNGs, in a folder for each class; unlabelled ones lie directly in the folder."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = load_tokenizer(config.tokenizer, device, fingerprint=store.tokenizer["fingerprint"])
    store.check_tokenizer(tokenizer.fingerprint, config.tokenizer, tokenizer.codebook_size)
    if unfit := [name for name in store.classes if name in ("", ".", "..") or set(name) & set("/\\\0")]:
        raise UserError(f"{store.folder} has a class {unfit[0]!r}, which can't be the name of a folder")
    for name in store.classes:
        (folder / name).mkdir()
    with ThreadPoolExecutor(max_workers=4) as threads:
        for rows in pass_through(store, config.batch_size):
            images = tokenizer.decode(store.ids(rows).to(device))
            pixels = (images.clamp(0, 1) * 255.0).round().to(torch.uint8).cpu()
            paths = [
                _free_path(folder / (store.classes[label] if label >= 0 else ""), key, row)
                for row, label, key in zip(rows, store.labels_at(rows).tolist(), store.keys(rows), strict=True)
            ]
            list(threads.map(_save, rearrange(pixels, "b c h w -> b h w c").numpy(), paths))
            progress(rows.stop)


def _free_path(folder, key, row):
    """Where the image of a row goes: its key's name as .png, with the row's number where that is taken."""
    stem = PurePosixPath(key.replace("\\", "/").replace("\0", "")).stem or f"{row:08d}"
    path = folder / f"{stem.encode()[:200].decode(errors='ignore')}.png"  # names are of 255 bytes at most
    while path.exists():
        path = folder / f"{path.stem}-{row}.png"
    path.touch()
    return path


def _save(pixels, path):
    Image.fromarray(pixels).save(path, format="PNG")


def _copy_synonyms(store, folder):
    """Take the store's synonym dictionary along; returns whether it has one."""
    if not is_local(store) or not (Path(store.folder) / "synonyms.json").is_file():
        return False
    shutil.copyfile(Path(store.folder) / "synonyms.json", folder / "synonyms.json")
    return True
