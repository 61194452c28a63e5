"""Turn images into a token store, once.

    seitpp tokenize --images photos/train --tokenizer runs/tokenizer --output_dir stores/train
    accelerate launch -m seitpp.tokenizers.tokenize --images 'train/{000..099}.tar' --tokenizer … --output_dir …
    seitpp tokenize --images s3://bucket/train --tokenizer runs/tokenizer --output_dir s3://bucket/stores/train
    seitpp tokenize --images hfds/cifar10 --image_column img --tokenizer runs/tokenizer --output_dir …
    seitpp tokenize --targets masks --images ADEChallengeData2016 --tokenizer runs/tokenizer --output_dir stores/ade

The unit of work is a shard: a range of the images, see `shard_job`. The main process lists the shards that are
missing, and process r of w makes every w-th of them. So a job that was killed makes only what is missing, with
whatever number of processes it is started again, and the result does not depend on who made what.
"""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import torch

from seitpp.runtime.command import run_command
from seitpp.runtime.config import StageConfig, require
from seitpp.runtime.devices import make_accelerator
from seitpp.runtime.locations import Location
from seitpp.runtime.processes import Processes
from seitpp.runtime.progress import Progress
from seitpp.tokenizers.segmentation.options import SegmentationOptions
from seitpp.tokenizers.shard_job import ShardJob
from seitpp.tokenizers.sources.decoding.resize import Resize
from seitpp.tokenizers.sources.pixels import quiet_decoding
from seitpp.tokenizers.sources.remote.addresses import is_url
from seitpp.tokenizers.tokenize_job import TokenizeJob
from seitpp.tokens.reading import ReadsLabels

_LOOK_SECONDS = 10.0
REMOTE_READERS = 24
"""Threads that read images behind a URL, where the user does not say: they wait more than they decode."""


@dataclass(frozen=True, kw_only=True)
class TokenizeConfig(SegmentationOptions, StageConfig, ReadsLabels):
    """Turn images into a token store."""

    images: Location
    """folder of class folders (images directly in it are unlabelled), see class_level; .tar files: one, a folder of
    them or a pattern such as 'train/{000..099}.tar'; the same in a bucket (s3://bucket/train, gs://, az://), and tars
    of a web server (https://), read where they are; a .csv file that lists images; hfds/NAME or torch/NAME, a data
    set that timm opens; with masks, the data set's folder"""
    tokenizer: Location
    """folder of a tokenizer, or package.module:Class, a class of your own"""
    like: Location | None = None
    """another store whose class names are kept, and where it is of the same tokenizer its resize, as a test set needs
    its training set's"""
    resize: Resize | None = None
    """what is done with images of another shape: crop keeps the centre, pad adds a white border, squash changes the
    aspect. None: what the tokenizer says. It is a part of the store's fingerprint"""
    class_level: int = 0
    """which of the folders above an image is its class: 0 the first below --images, -1 the last"""
    labels: Location | None = None
    """CSV with columns key,label instead of class folders; images that it does not name are unlabelled"""
    multi_label: bool = False
    """whether a cell of --labels may hold several labels; they become the store's column `labels`"""
    split: str = "train"
    """part of a data set: of hfds/, torch/, and with masks"""
    root: Location | None = None
    """torch/: folder where the data set lies; hfds/: folder of the cache"""
    image_column: str = "image"
    """hfds/: column of images"""
    label_column: str | None = None
    """column of classes of hfds/, or of --labels; None: label, where there is one"""
    batch_size: int = 64
    """images per forward pass"""
    workers: int | None = None
    """threads per process that decode; None: the machine's cores shared among its processes, less one, at least
    one; 24 where images lie behind a URL"""
    rows_per_shard: int | None = None
    """images in a shard; None: 65,536, with masks 2,048"""
    coding: Literal["auto", "none"] = "none"
    """auto: once all shards are made, they are entropy-coded without loss, where that makes them smaller; see seitpp
    store code. It is a part of the store's fingerprint"""
    max_skipped: float = 0.001
    """fraction of images that may fail to decode before the job ends with an error; they are listed in skipped.csv"""

    @property
    def written_to_urls(self) -> tuple[str, ...]:
        """Fields that may be a URL though they are written to."""
        return ("output_dir",)

    def __post_init__(self):
        super().__post_init__()
        require(self, "batch_size", self.batch_size >= 1, "must be at least 1")
        require(self, "rows_per_shard", self.rows_per_shard is None or self.rows_per_shard >= 1, "must be at least 1")
        require(self, "workers", self.workers is None or self.workers >= 1, "must be at least 1")
        require(self, "max_skipped", 0 <= self.max_skipped <= 1, "must lie in [0, 1]")
        require(self, "multi_label", self.labels or not self.multi_label, "is for --labels")
        masks = self.targets == "masks"
        require(self, "labels", not (masks and self.labels), "is not for --targets masks: their labels are maps")
        require(self, "class_level", not (masks and self.class_level), "is not for --targets masks")
        require(self, "class_level", not (self.labels and self.class_level), "and --labels exclude each other")
        self.check_segmentation()
        level = self.class_level and is_url(self.images)
        require(self, "class_level", not level, "is for folders of this machine")
        url = self.targets == "masks" and is_url(self.images)
        require(self, "images", not url, "is a URL: with masks the data set's folder must lie on this machine")


def main(config: TokenizeConfig) -> None:
    """Make the missing shards, then the manifest."""
    accelerator = make_accelerator("no")
    processes = Processes(accelerator)
    job = open_job(config, processes, accelerator.device)
    if processes.is_main:
        for line in job.notices:
            print(line)
    (line,) = run_jobs([job], processes, accelerator.device)
    if processes.is_main:
        print(line)
    accelerator.end_training()


def open_job(config: TokenizeConfig, processes: Processes, device: torch.device) -> TokenizeJob:
    """A store to be made, opened on every process; images behind a URL are listed by the main one alone.

    Raises: UserError on all of them if it can't be opened on one.
    """
    if processes.count == 1 or not is_url(config.images):
        return processes.agree(lambda: TokenizeJob(config, device))
    opened: list[TokenizeJob] = []

    def list_images() -> None:
        opened.append(TokenizeJob(config, device))
        opened[0].prepare()

    processes.from_main(list_images)
    return processes.agree(lambda: opened[0] if opened else TokenizeJob(config, device, listed=True))


def run_jobs(jobs: list[TokenizeJob], processes: Processes, device: torch.device) -> list[str]:
    """Make what is missing of some stores, all their shards divided among the processes; called on all of them.

    Args:
        jobs: TokenizeJobs, the same on every process.
        processes: the launch's.
        device: torch.device of the jobs' tokenizers.
    Returns: a line a job that says what its store holds.
    Raises: UserError if a folder holds a store of other input, or too many images were skipped.
    """
    numbers = processes.from_main(lambda: [job.prepare() for job in jobs])
    missing = [job.shards[number] for job, some in zip(jobs, numbers, strict=True) for number in some]
    mine = missing[processes.rank :: processes.count]
    images = sum(len(job.images) for job in jobs)
    with Progress(images, "tokenise", enabled=processes.is_main) as progress:
        watch = _Watch(images, mine, missing, progress)
        for job in jobs:
            make_shards(job, [shard for shard in mine if shard.folder == job.folder], device, on_images=watch.add)
        processes.wait(watch.look)
        lines = processes.from_main(lambda: [job.finish() for job in jobs])
        if progress.done < images:
            progress.update(images)
    return lines


def make_shards(
    job: TokenizeJob,
    shards: Sequence[ShardJob],
    device: torch.device,
    on_images: Callable[[int], object] = lambda count: None,
) -> None:
    """Make shards, and stop as soon as more images were skipped than the whole job may skip.

    Args:
        job: a TokenizeJob.
        shards: ShardJobs of it.
        device: torch.device of its tokenizer.
        on_images: called with the number of images of each batch that is done.
    """
    skipped = 0
    workers = job.config.workers or (REMOTE_READERS if is_url(job.config.images) else spare_cores())
    with quiet_decoding(), ThreadPoolExecutor(workers) as threads:
        for shard in shards:
            result = shard.make(
                job.images, job.tokenizer, job.store_rows, device, threads, batch_size=job.config.batch_size,
                on_images=on_images,
            )  # fmt: skip
            skipped += len(result["skipped"])
            if job.too_many(skipped):
                job.finish()


def spare_cores() -> int:
    """Cores of this machine for one of its processes, but for the one that encodes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1)


class _Watch:
    """Show images done by all processes: one's own as they are made, others' shards as they appear in the folder."""

    def __init__(self, images, mine, missing, progress):
        own = set(mine)
        self.others = [shard for shard in missing if shard not in own]
        self.there = images - sum(len(shard.rows) for shard in missing)
        self.own = self.theirs = 0
        self.progress = progress
        self.started = self.looked = time.monotonic()
        progress.start = self.there

    def add(self, images):
        """Count images of one's own."""
        self.own += images
        self.look()

    def look(self):
        """Show the sum; the folder is read only now and then."""
        if self.progress.style == "none":
            return
        now = time.monotonic()
        if self.others and now - self.looked >= _LOOK_SECONDS:
            self.looked = now
            self.theirs = sum(len(shard.rows) for shard in self.others if shard.sidecar.exists())
        done = self.own + self.theirs
        self.progress.update(self.there + done, f"{done / max(now - self.started, 1e-9):.0f} images/s")


def cli() -> None:
    """Run the stage from the command line."""
    run_command(main, TokenizeConfig, recipes="tokenize")


if __name__ == "__main__":
    cli()
