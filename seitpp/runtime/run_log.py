"""run.log: what a command said on the terminal, in the folder of its run, with the time of each line.

    2026-11-28 11:20:31+00:00  $ seitpp pretrain --store stores/train --output_dir runs/mtm
    2026-11-28 11:20:35+00:00  MTM: 3,461 samples, 2.9 million parameters

A command listens to what it prints (`listening`), a run that begins keeps it (`keep`), what was said before included;
a resumed one appends. Bars are kept as lines, one every ten seconds. In a program of one's own nothing is listened to.
"""

import re
import shlex
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

NAME = "run.log"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[@-Z\\-_]")
"""What makes terminals change colour, move the cursor, clear lines."""
_REDRAWN = re.compile(r"\x1b\[[0-9]*[A-GJK]|\x1b\[\?25[lh]")
"""Moves of the cursor and clearing, of which bars consist."""
_REMEMBERED = 200
"""Lines that were said before there was a run."""


class _Log:
    """Where lines go: into the logs of the runs that are under way, or else of the one that ended last."""

    def __init__(self) -> None:
        self.files: list[Path] = []
        self.last: Path | None = None
        self.before: deque[str] = deque(maxlen=_REMEMBERED)
        self.silent = False

    def take(self, line: str) -> None:
        """Keep a line, or remember it until there is a run."""
        text = _CONTROL.sub("", line).rstrip()
        if self.silent or not text:
            return
        stamped = f"{datetime.now().astimezone().isoformat(sep=' ', timespec='seconds')}  {text}\n"
        files = self.files or ([self.last] if self.last is not None else [])
        if not files:
            self.before.append(stamped)
        for file in files:
            _append(file, stamped)


class _Listener:
    """A stream that goes on as it was, and tells a log of its lines; no IOBase, which would flush when it goes."""

    def __init__(self, stream: Any, log: _Log) -> None:
        self.stream, self.log, self.rest = stream, log, ""

    def write(self, text: str) -> int:
        """Write, and keep what became whole lines; of a line that a bar draws again and again, nothing."""
        written = self.stream.write(text)
        if _REDRAWN.search(text):
            self.rest = ""
            return written
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            self.log.take(line.rsplit("\r", 1)[-1])
        return written

    def writelines(self, lines: Iterable[str]) -> None:
        """Write one after the other."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


_LOG: _Log | None = None
"""Of the command that is running, on its main process."""


@contextmanager
def listening(words: Sequence[str]) -> Iterator[None]:
    """Listen to standard output and standard error while a command runs.

    Args:
        words: the command, of which a log tells first.
    """
    global _LOG
    former, streams = _LOG, (sys.stdout, sys.stderr)
    _LOG = log = _Log()
    log.take(f"$ {shlex.join(words)}")
    ours: Any = tuple(_Listener(stream, log) for stream in streams)
    sys.stdout, sys.stderr = ours
    try:
        yield
    finally:
        if (sys.stdout, sys.stderr) == ours:
            sys.stdout, sys.stderr = streams
        _LOG = former


def keep(folder: Path) -> None:
    """Keep what is said from now on in a run's log as well, with what was said before the first run began."""
    if _LOG is not None:
        file = folder / NAME
        if _LOG.before:
            _append(file, "".join(_LOG.before))
            _LOG.before.clear()
        _LOG.files.append(file)


def leave(folder: Path) -> None:
    """A run has ended; what is said then goes to those that it is a part of, or else still to its own log."""
    if _LOG is not None and folder / NAME in _LOG.files:
        _LOG.files.remove(folder / NAME)
        _LOG.last = folder / NAME


def note(line: str) -> None:
    """Keep a line that is not printed as one."""
    if _LOG is not None:
        _LOG.take(line)


@contextmanager
def unheard() -> Iterator[None]:
    """Print something, such as lines for a program, that no log keeps."""
    if _LOG is None:
        yield
        return
    _LOG.silent = True
    try:
        yield
    finally:
        _LOG.silent = False


def _append(file: Path, text: str) -> None:
    with suppress(OSError), file.open("a", encoding="utf-8", errors="backslashreplace") as stream:  # not worth a run
        stream.write(text)
