"""What an Arrow IPC file says of its own layout, read before Arrow is let loose on it.

Arrow unpacks compressed buffers and dictionaries while it reads: a file of a few kilobytes may ask for all memory. Its
Python interface does not tell beforehand. So the three flatbuffers that do are looked at here: the footer, the messages
of the record batches, and the record batch in each (format/File.fbs and Message.fbs of Apache Arrow).
"""

import struct

_MAGIC = b"ARROW1"
_DICTIONARIES, _RECORD_BATCHES = 2, 3  # fields of Footer
_HEADER = 2  # of Message
_COMPRESSION = 3  # of RecordBatch
_BLOCK = 24
"""Bytes of a Block: where a message begins (int64), bytes of its metadata (int32, padded) and of its body (int64)."""
_CONTINUATION = 0xFFFFFFFF


def check_plain(content: memoryview) -> None:
    """Refuse a file that is compressed or has dictionaries.

    Args:
        content: the whole file; only its footer and the head of each record batch are looked at.
    Raises: ValueError that says what is wrong.
    """
    try:
        footer = _Table(content, _footer(content))
        if footer.vector(_DICTIONARIES)[1]:
            raise ValueError("it has dictionary-encoded columns")
        first, count = footer.vector(_RECORD_BATCHES)
        for place in range(first, first + count * _BLOCK, _BLOCK):
            message = _Table(content, _message(content, _read(content, "<q", place)))
            if message.table(_HEADER).field(_COMPRESSION) is not None:
                raise ValueError("it is compressed")
    except struct.error as error:
        raise ValueError("it is no Arrow file, or is cut off") from error


class _Table:
    """A flatbuffers table: its fields are found through a list of offsets, and may be missing."""

    def __init__(self, content: memoryview, place: int) -> None:
        self.content = content
        self.place = place + _read(content, "<I", place)
        self.offsets = self.place - _read(content, "<i", self.place)

    def field(self, number: int) -> int | None:
        """Where a field lies, None if it is missing."""
        at = 4 + 2 * number
        known = at < _read(self.content, "<H", self.offsets)
        offset = _read(self.content, "<H", self.offsets + at) if known else 0
        return self.place + offset if offset else None

    def table(self, number: int) -> "_Table":
        """The table that a field points to."""
        place = self.field(number)
        if place is None:
            raise ValueError("a record batch in it is empty")
        return _Table(self.content, place)

    def vector(self, number: int) -> tuple[int, int]:
        """(Where the elements begin, how many there are) of a field that is a vector; none where it is missing."""
        place = self.field(number)
        if place is None:
            return 0, 0
        place += _read(self.content, "<I", place)
        count = _read(self.content, "<I", place)
        if count * _BLOCK > len(self.content):
            raise ValueError("it is no Arrow file, or is cut off")
        return place + 4, count


def _footer(content: memoryview) -> int:
    """Where the footer begins: the file ends with it, its length and the magic word."""
    end = len(content) - len(_MAGIC) - 4
    if end < 0 or content[-len(_MAGIC) :] != _MAGIC or content[: len(_MAGIC)] != _MAGIC:
        raise ValueError("it is no Arrow file, or is cut off")
    return end - _read(content, "<i", end)


def _message(content: memoryview, place: int) -> int:
    """Where the flatbuffer of a message begins: after its length, and a mark that early Arrow did not write."""
    return place + (8 if _read(content, "<I", place) == _CONTINUATION else 4)


def _read(content: memoryview, form: str, place: int) -> int:
    if place < 0:  # which `unpack_from` would take as from the end
        raise struct.error
    return struct.unpack_from(form, content, place)[0]
