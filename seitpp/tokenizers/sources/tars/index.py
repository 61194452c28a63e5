"""The index of a tar: where each member's bytes are, from one pass over the headers."""

import posixpath
import tarfile
from dataclasses import dataclass, field
from typing import BinaryIO

from seitpp.runtime.errors import UserError
from seitpp.tokenizers.sources.listing.names import is_hidden

BLOCK = 512
CLASS_ENDING = ".cls"
_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
_LONGEST_NUMBER = 64
"""Bytes of a .cls member that are looked at."""


@dataclass(frozen=True)
class TarIndex:
    """What a tar holds.

    Attributes:
        members: first byte and size in bytes of each file, by name.
        numbers: text of each .cls member, by name; read on the way, as it lies beside the headers.
        problems: why what is no file of use is none, by name.
    """

    members: dict[str, tuple[int, int]] = field(default_factory=dict)
    numbers: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def index_tar(name: str, file: BinaryIO) -> TarIndex:
    """Index a tar.

    Of two members with one name the later one counts, as tar has it. A link inside the tar is the file it leads to.

    Args:
        name: of the tar, for messages.
        file: its content, which can be read from any place.
    Raises: UserError if it is compressed, cut off, broken or no tar.
    """
    start = file.read(6)
    for magic, command in _COMPRESSED.items():
        if start.startswith(magic):
            raise UserError(f"{name} is compressed, so it can't be read in any order: {command} it first")
    file.seek(0)
    found, numbers, links, problems = {}, {}, {}, {}
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue] - or all headers of all images stay in memory
                key = member.name.removeprefix("./")
                if any(is_hidden(part) for part in key.split("/") if part != "."):
                    problems[key] = "hidden or system file"
                elif member.isreg():
                    found[key] = (member.offset_data, member.size)
                    if key.endswith(CLASS_ENDING):
                        file.seek(member.offset_data)
                        numbers[key] = file.read(min(member.size, _LONGEST_NUMBER)).decode(errors="replace").strip()
                elif member.islnk() or member.issym():
                    folder = "" if member.islnk() else posixpath.dirname(key)
                    links[key] = posixpath.normpath(posixpath.join(folder, member.linkname))
                elif not member.isdir():
                    problems[key] = "no regular file"
            _check_end(name, file, tar.offset)
    except tarfile.TarError as error:
        raise UserError(f"{name} is no tar, or cut off ({error}): make or fetch it again") from error
    leading = {key: target for key, target in links.items() if target in found}
    for key, target in leading.items():
        if key.endswith(CLASS_ENDING):
            offset, size = found[target]
            file.seek(offset)
            numbers[key] = file.read(min(size, _LONGEST_NUMBER)).decode(errors="replace").strip()
    problems |= dict.fromkeys(links.keys() - leading.keys(), "broken link")
    return TarIndex(found | {key: found[target] for key, target in leading.items()}, numbers, problems)


def _check_end(name: str, file: BinaryIO, offset: int) -> None:
    """Refuse a broken header that Python takes for the end: a true end is a block of zeros, or no more bytes."""
    file.seek(offset)
    if file.read(BLOCK).strip(b"\0"):
        raise UserError(f"{name} is broken at byte {offset}: make or fetch it again")
