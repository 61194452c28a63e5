"""Parts of large files, read in blocks before they are needed, in bounded memory.

Images that are read one after the other lie one after the other, so a block that follows one just read is fetched
whole, and the next ones with it. A part far from all that was read is fetched by itself: images in any order cost
their own bytes only.
"""

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

BLOCK = 1 << 22
AHEAD = 3
"""Blocks that are being fetched beyond the one that is needed."""
KEPT = 24
"""Blocks in memory, those on their way among them: 96 MiB."""
_REMEMBERED = 64

Key = tuple[int, int]
"""Number of a file, and of a block in it."""


class ReadAhead:
    """Many threads may read.

    Args:
        fetch: fetch(file, start, length): bytes of a file by its number.
        sizes: bytes of each file.
        block: bytes of a block.
    """

    def __init__(self, fetch: Callable[[int, int, int], bytes], sizes: list[int], block: int = BLOCK) -> None:
        self.fetch = fetch
        self.sizes = sizes
        self.block = block
        self._lock = Lock()
        self._blocks: OrderedDict[Key, Future[bytes]] = OrderedDict()
        self._touched: OrderedDict[Key, None] = OrderedDict()
        self._threads = ThreadPoolExecutor(max_workers=1 + AHEAD, thread_name_prefix="read-ahead")

    def read(self, file: int, start: int, length: int) -> bytes:
        """Some bytes of a file.

        Raises: what `fetch` raises; the next reader asks again.
        """
        first, last = start // self.block, (start + max(length, 1) - 1) // self.block
        if last - first > AHEAD or not self._follows(file, first):
            return self.fetch(file, start, length)
        blocks = self._wanted(file, first, last)
        try:
            return b"".join(
                each.result()[max(0, start - base) : max(0, start + length - base)]
                for base, each in zip(
                    range(first * self.block, (last + 1) * self.block, self.block), blocks, strict=True
                )
            )
        except BaseException:
            with self._lock:
                for key in [key for key, each in self._blocks.items() if each in blocks and each.done()]:
                    del self._blocks[key]
            raise

    def _follows(self, file: int, block: int) -> bool:
        """Whether a block, or the one before it, was read a short while ago."""
        with self._lock:
            follows = (file, block) in self._touched or (file, block - 1) in self._touched
            self._touched[file, block] = None
            self._touched.move_to_end((file, block))
            while len(self._touched) > _REMEMBERED:
                self._touched.popitem(last=False)
        return follows

    def _wanted(self, file: int, first: int, last: int) -> list[Future[bytes]]:
        """Blocks first to last, and the next ones on their way."""
        count = -(-self.sizes[file] // self.block)
        with self._lock:
            for number in range(first, min(last + 1 + AHEAD, count)):
                if (file, number) not in self._blocks:
                    self._blocks[file, number] = self._threads.submit(self._block, file, number)
            wanted = [self._blocks[file, number] for number in range(first, last + 1)]
            for number in range(first, last + 1):
                self._blocks.move_to_end((file, number))
            while len(self._blocks) > KEPT:
                self._blocks.popitem(last=False)  # whoever waits for it has it still
        return wanted

    def _block(self, file: int, number: int) -> bytes:
        start = number * self.block
        return self.fetch(file, start, min(self.block, self.sizes[file] - start))
