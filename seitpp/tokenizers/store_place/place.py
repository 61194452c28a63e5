"""What the tokenising job asks of the place that its store goes to, and a folder of this machine."""

from pathlib import Path
from typing import Any, Protocol

from seitpp.runtime.files import make_folder
from seitpp.runtime.ownership import is_job
from seitpp.runtime.places import claim

WHAT = "a store that seitpp tokenize made"


class StorePlace(Protocol):
    """Where a store's files go. They are written into `folder`, and published from there.

    Attributes:
        folder: of this machine, where files are made.
        name: where the store lies, for messages.
    """

    folder: Path
    name: str

    def claim(self, config: Any) -> None:
        """Refuse a place that is another's, or where images lie; nothing is written but `folder` itself."""
        ...

    def read(self, file: str) -> bytes | None:
        """Content of a small published file, None where it is not there; nothing is written."""
        ...

    def fetch(self, *, anew: bool) -> None:
        """Bring what a job goes on from into `folder`, all but the shards; anew: also what lies there already."""
        ...

    def size(self, file: str) -> int | None:
        """Bytes of a published file; None where it is not there."""
        ...

    def publish(self, *files: str) -> None:
        """Give files that lie in `folder`, in their order, to the place."""
        ...

    def bring(self, file: str) -> Path:
        """Where a published file can be read here."""
        ...

    def leave(self, file: str) -> None:
        """Say that a published file is not needed here for now."""
        ...

    def remove(self, file: str) -> None:
        """Remove a file, where it is there."""
        ...

    def close(self) -> None:
        """All is published: no copy stays here."""
        ...

    def forget(self) -> None:
        """The lock of `folder` is given up: it may go."""
        ...


class FolderPlace:
    """A folder of this machine: what is written there is published.

    Args:
        folder: the store's.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.name = str(folder)

    def claim(self, config: Any) -> None:
        """Refuse a folder that is another's, or where images lie."""
        claim(config, is_job, WHAT)
        make_folder(self.folder)

    def read(self, file: str) -> bytes | None:
        """Content of a small file, None where it is not there."""
        path = self.folder / file
        return path.read_bytes() if path.is_file() else None

    def fetch(self, *, anew: bool) -> None:
        """Nothing to do: it is here."""

    def size(self, file: str) -> int | None:
        """Bytes of a file."""
        path = self.folder / file
        return path.stat().st_size if path.is_file() else None

    def publish(self, *files: str) -> None:
        """Nothing to do: they are there."""

    def bring(self, file: str) -> Path:
        """Where it lies."""
        return self.folder / file

    def leave(self, file: str) -> None:
        """Nothing to do: it stays."""

    def remove(self, file: str) -> None:
        """Remove a file, where it is there."""
        (self.folder / file).unlink(missing_ok=True)

    def close(self) -> None:
        """Nothing to do."""

    def forget(self) -> None:
        """Nothing to do: it is the store."""


def store_place(output: str | Path) -> StorePlace:
    """The place of a store: a folder, or a URL of a bucket.

    Raises: UserError for a URL that can't be written to.
    """
    if "://" not in str(output):
        return FolderPlace(output)
    from seitpp.tokenizers.store_place.bucket import BucketPlace

    return BucketPlace(str(output))
