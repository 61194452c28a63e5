"""Stores of images that are only evaluated: made by the tokenising job, kept, and used again by later runs."""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from seitpp.runtime.locks import lock_folder
from seitpp.runtime.processes import Processes
from seitpp.tokenizers.sources.source import ImageSource, source_fingerprint
from seitpp.tokenizers.tokenize import TokenizeConfig, run_jobs
from seitpp.tokenizers.tokenize_job import TokenizeJob
from seitpp.tokenizers.tokenizer import Tokenizer
from seitpp.tokens.store import TokenStore, open_store


def kept_job(
    config: Any, folder: str | Path, images: ImageSource, tokenizer: Tokenizer, about: dict[str, Any] | None = None
) -> TokenizeJob:
    """The job that makes the store `folder`; it refuses one of other images, tokenizer or `about`.

    Args:
        config: of the stage: it has images, tokenizer, batch_size, max_skipped and resume.
        folder: the store.
        images: an ImageSource, to read instead of `config.images`.
        tokenizer: a Tokenizer on its device.
        about: what else the pixels depend on, see TokenizeJob.
    """
    details = TokenizeConfig(
        images=config.images, tokenizer=config.tokenizer, output_dir=str(folder), batch_size=config.batch_size,
        max_skipped=config.max_skipped, resume=config.resume,
    )  # fmt: skip
    return TokenizeJob(details, tokenizer.codebook.device, images=images, tokenizer=tokenizer, about=about)


def kept_fingerprint(images: ImageSource, tokenizer: Tokenizer) -> str:
    """SHA-256 of what the store of some images holds, as far as that is known before it is made."""
    return hashlib.sha256(f"{tokenizer.fingerprint} {source_fingerprint(images)}".encode()).hexdigest()


def make_kept_stores(
    jobs: list[TokenizeJob], folder: str | Path, processes: Processes, device: torch.device
) -> list[TokenStore]:
    """Make what is missing of some stores, over all processes; other runs of the same stores wait, and then use them.

    Args:
        jobs: TokenizeJobs, the same on every process.
        folder: that all their stores lie in.
        processes: the launch's.
        device: torch.device of the jobs' tokenizers.
    Returns: the stores.
    Raises: UserError if a folder holds a store of other input, or too many images can't be decoded.
    """
    with _locked(Path(folder), processes):
        run_jobs(jobs, processes, device)
    return [open_store(job.folder) for job in jobs]


@contextmanager
def _locked(folder: Path, processes: Processes) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    lock = processes.agree(lambda: lock_folder(folder, patience=math.inf) if processes.is_main else None)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
