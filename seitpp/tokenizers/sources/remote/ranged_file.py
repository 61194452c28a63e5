"""A file behind a URL as a file object, for reading little of it: window by window, where it is looked at."""

import io
from collections.abc import Callable

SMALL, LARGE = 1 << 14, 1 << 20
_NEAR = 1 << 16
"""Bytes to the next place that is looked at, below which reading on costs less than asking again."""


class RangedFile(io.RawIOBase):
    """What `tarfile` needs to read the headers of a tar, and nothing between them that is large.

    Args:
        fetch: fetch(start, length): bytes of the file.
        size: of the file, bytes.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        self.fetch = fetch
        self.size = size
        self._place = self._start = 0
        self._window = b""
        self._length = SMALL

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a place."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self.size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def read(self, count: int = -1, /) -> bytes:
        """The next bytes; fewer at the end."""
        stop = self.size if count is None or count < 0 else min(self.size, self._place + count)
        if stop <= self._place:
            return b""
        end = self._start + len(self._window)
        if not (self._start <= self._place and stop <= end):
            near = self._window and 0 <= self._place - end < _NEAR
            self._length = min(LARGE, 4 * self._length) if near else SMALL
            self._start = self._place
            self._window = self.fetch(self._start, min(max(self._length, stop - self._place), self.size - self._start))
        first = self._place - self._start
        self._place = stop
        return self._window[first : first + stop - self._start - first]
