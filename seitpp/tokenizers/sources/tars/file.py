"""One tar file: what is asked of it, and a tar on this machine."""

import os
from pathlib import Path
from typing import Protocol

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.tars.index import TarIndex, index_tar

_ENDINGS = (".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz", ".tar.zst")


def is_tar_name(name: str) -> bool:
    """Whether a file's name says that it is a tar, compressed or not."""
    return name.lower().endswith(_ENDINGS)


class TarFile(Protocol):
    """A tar whose members can be read in any order, by many threads at once; its text is its name, for messages."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Folders that it lies in, and its name without the ending."""
        ...

    def index(self) -> TarIndex:
        """What it holds.

        Raises: UserError for a tar that is missing, compressed or broken.
        """
        ...

    def bytes_at(self, offset: int, length: int) -> bytes:
        """Some of its bytes."""
        ...


class LocalTar:
    """A tar on this machine.

    Args:
        path: of the file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def parts(self) -> tuple[str, ...]:
        """Folders that it lies in, and its name without the ending."""
        return self.path.absolute().with_suffix("").parts

    def index(self) -> TarIndex:
        """What it holds."""
        if self.path.exists() and not self.path.is_file():  # a pipe would be waited for, for ever
            raise UserError(f"{self.path} is no file but a folder, pipe or device: name a tar file")
        try:
            with self.path.open("rb") as file:
                return index_tar(str(self.path), file)
        except FileNotFoundError as error:
            raise UserError(f"{self.path} does not exist: check --images") from error

    def bytes_at(self, offset: int, length: int) -> bytes:
        """Some of its bytes, by a positional read, which needs no lock between threads, nor a file that stays open."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            content = os.pread(descriptor, length, offset)
        finally:
            os.close(descriptor)
        if len(content) < length:
            raise OSError(f"{self.path} was cut off")
        return content
