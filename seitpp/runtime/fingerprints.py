"""Fingerprints of files that a run reads: what they are, whatever they are called and wherever they lie.

Stores have one of their own (`TokenStore.fingerprint`), and so have tokenizers and sources of images.
"""

import hashlib
from functools import lru_cache
from pathlib import Path

from seitpp.runtime.errors import UserError
from seitpp.runtime.weights import weights_folder


def file_fingerprint(path: str | Path) -> str:
    """SHA-256 of a file's bytes.

    Raises: UserError if there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is not there, or no file")
    stat = path.stat()
    return _sha256(path.resolve(), stat.st_size, stat.st_mtime_ns, stat.st_ino)


def weights_fingerprint(folder: str | Path) -> str:
    """SHA-256 over the weights and the configuration that a run left.

    Args:
        folder: a run, or its weights/.
    Raises: UserError if there are no weights.
    """
    folder = weights_folder(folder)
    parts = [file_fingerprint(folder / name) for name in ("model.safetensors", "config.json")]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, modified: int, inode: int) -> str:
    """Of a file's bytes, read once by a process: each seed of a fine-tuning asks for its gigabyte of weights again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
