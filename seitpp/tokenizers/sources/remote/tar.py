"""Tar files behind URLs: their indexes by reading headers alone, their images by ranged reads."""

from collections.abc import Sequence
from typing import Any, cast

from seitpp.tokenizers.sources.remote.addresses import parts_of, shown_url
from seitpp.tokenizers.sources.remote.place import Found, Place
from seitpp.tokenizers.sources.remote.ranged_file import RangedFile
from seitpp.tokenizers.sources.remote.read_ahead import ReadAhead
from seitpp.tokenizers.sources.tars.index import TarIndex, index_tar


class RemoteTar:
    """A tar behind a URL, see `TarFile`.

    Args:
        place: that it lies at.
        found: its address, size and version.
        ahead: reads its parts.
        number: of the tar there.
    """

    def __init__(self, place: Place, found: Found, ahead: ReadAhead, number: int) -> None:
        self.place = place
        self.found = found
        self.ahead = ahead
        self.number = number

    def __str__(self) -> str:
        return shown_url(self.found.url)

    @property
    def parts(self) -> tuple[str, ...]:
        """Folders that it lies in, and its name without the ending."""
        return parts_of(self.found.url)

    def index(self) -> TarIndex:
        """What it holds."""
        file = RangedFile(lambda start, length: self.place.part(self.found, start, length), self.found.size)
        return index_tar(str(self), cast("Any", file))

    def bytes_at(self, offset: int, length: int) -> bytes:
        """Some of its bytes."""
        if offset + length > self.found.size:
            raise OSError(f"{self} was cut off")
        return self.ahead.read(self.number, offset, length)


def remote_tars(place: Place, found: Sequence[Found]) -> list[RemoteTar]:
    """Tars of one place, which share what is read ahead."""
    ahead = ReadAhead(lambda file, start, length: place.part(found[file], start, length), [each.size for each in found])
    return [RemoteTar(place, each, ahead, number) for number, each in enumerate(found)]
