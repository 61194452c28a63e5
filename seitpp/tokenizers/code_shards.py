"""The last step of tokenising with `--coding auto`: the shards, all made and packed, are coded in their places.

Tables are fitted to rows of all shards, so it comes last. Each shard is replaced whole, its sidecar after it, and the
sidecar says that it is coded: a job that was killed goes on, and makes anew the one shard that it was killed at.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange

from seitpp.runtime.errors import UserError
from seitpp.runtime.files import replacing, write_json
from seitpp.runtime.progress import Progress
from seitpp.tokenizers.shard_job import ShardJob
from seitpp.tokens.codec import packed_bytes, unpack
from seitpp.tokens.coding.coder import RowCoder
from seitpp.tokens.coding.fit import FIT_ROWS, choose_tables, spread_rows
from seitpp.tokens.coding.tables_file import read_tables
from seitpp.tokens.format.coded_rows import CodedRows
from seitpp.tokens.format.layout import RANS
from seitpp.tokens.format.manifest import TABLES_FILE
from seitpp.tokens.format.manifest_schema import BASE_COLUMNS
from seitpp.tokens.format.shard import Shard, write_shard
from seitpp.tokens.row_blocks import MANY_ROWS, row_ranges

_AGAIN = "run the same command with --resume none"


def code_shards(folder: Path, jobs: Sequence[ShardJob], codebook_size: int, grid: tuple[int, int]) -> bytes | None:
    """Code a store's shards.

    Args:
        folder: the store's folder.
        jobs: its ShardJobs, all made.
        codebook_size: K.
        grid: (h, w).
    Returns: content of coding.safetensors; None where the shards stay packed, because that is smaller.
    Raises: UserError if a former run left tables that don't fit.
    """
    tables = _tables(folder, jobs, codebook_size, grid)
    if tables is None:
        return None
    try:
        coder = RowCoder(read_tables(tables, codebook_size, grid))
    except ValueError as error:
        raise UserError(f"{folder / TABLES_FILE}: {error}; {_AGAIN}") from error
    rows = sum(_result(job)["rows"] for job in jobs)
    with Progress(rows, "code", enabled=rows > MANY_ROWS) as progress:
        done = 0
        for job in jobs:
            result = _result(job)
            if result.get("coding") != RANS:
                _code(job, coder, codebook_size, grid)
            done += result["rows"]
            progress.update(done)
    return tables


def _tables(folder: Path, jobs: Sequence[ShardJob], codebook_size: int, grid: tuple[int, int]) -> bytes | None:
    """Those of a former run, or new ones."""
    file = folder / TABLES_FILE
    if file.exists():
        return file.read_bytes()
    if any(_result(job).get("coding") == RANS for job in jobs):
        raise UserError(f"{file} is missing, without which coded shards can't be read: {_AGAIN}")
    offsets = np.cumsum([0, *(_result(job)["rows"] for job in jobs)])
    total = int(offsets[-1])
    chosen = spread_rows(total, FIT_ROWS)
    parts = [torch.zeros(0, *grid, dtype=torch.int64)]
    for job, start, stop in zip(jobs, offsets[:-1], offsets[1:], strict=True):
        mine = chosen[(chosen >= start) & (chosen < stop)] - start
        parts.append(_ids(_opened(job, codebook_size, grid), mine, codebook_size, grid))
    ids = rearrange(torch.cat(parts), "b h w -> b (h w)").numpy()
    tables = choose_tables(ids, codebook_size, grid[1], rows=total)
    if tables is None:
        return None
    with replacing(file) as temporary:
        temporary.write_bytes(tables.to_bytes())
    if jobs:
        jobs[0].place.publish(TABLES_FILE)
    return tables.to_bytes()


def _code(job: ShardJob, coder: RowCoder, codebook_size: int, grid: tuple[int, int]) -> None:
    shard = _opened(job, codebook_size, grid)
    blocks = row_ranges(range(len(shard.tokens)))
    parts = [coder.encode(_ids(shard, np.arange(rows.start, rows.stop), codebook_size, grid)) for rows in blocks]
    entry = write_shard(job.path, CodedRows.joined(parts), shard.labels, shard.keys(), shard.targets)
    job.place.publish(job.path.name)
    write_json(job.sidecar, {**shard.entry, **entry, "coding": RANS})  # what was skipped stays
    job.place.publish(job.sidecar.name)


def _opened(job: ShardJob, codebook_size: int, grid: tuple[int, int]) -> Shard:
    result = _result(job)
    columns = tuple(result.get("content", BASE_COLUMNS))
    shard = Shard(job.place.bring(job.path.name), result, packed_bytes(grid[0] * grid[1], codebook_size), columns)
    job.place.leave(job.path.name)  # it is mapped
    return shard


def _ids(shard: Shard, rows: np.ndarray, codebook_size: int, grid: tuple[int, int]) -> torch.Tensor:
    """Ids of some rows of a packed shard, (b, h, w) int64."""
    width = packed_bytes(grid[0] * grid[1], codebook_size)
    packed = shard.tokens[rows].view(np.uint8).reshape(len(rows), width)
    return unpack(torch.from_numpy(packed), codebook_size, grid)


def _result(job: ShardJob) -> dict[str, Any]:
    """What the sidecar says of a shard that is made."""
    result = job.result()
    assert result is not None, "all shards are made before they are coded"
    return result
