"""A pytest plugin: the same tests as another machine sees them, on another day (`pytest -p another_day`).

The clock is shifted, folders are listed in another order, and there is another number of processors. With another
PYTHONHASHSEED and TMPDIR beside it, whatever a test's name takes from any of these differs from an ordinary run's.
"""

import os
import time
from contextlib import contextmanager

SHIFT = 12_345_678  # seconds, about 143 days

_listdir, _scandir, _time, _time_ns = os.listdir, os.scandir, time.time, time.time_ns


@contextmanager
def _scandir_reversed(*path):
    with _scandir(*path) as entries:
        yield iter(list(entries)[::-1])


os.cpu_count = lambda: 97
os.listdir = lambda *path: _listdir(*path)[::-1]
os.scandir = _scandir_reversed
time.time = lambda: _time() + SHIFT
time.time_ns = lambda: _time_ns() + SHIFT * 10**9
