"""Progress of a stage: a bar on a terminal, plain lines elsewhere, JSON lines for a program that watches."""

import json
import os
import sys
import time

from seitpp.runtime.run_log import note, unheard

_PLAIN_SECONDS = 10.0
_JSON_SECONDS = 0.5


class Progress:
    """Show how far a stage is.

    With SEITPP_PROGRESS=json in the environment one JSON object a line goes to standard output (`done`, `total`,
    `text`): the demo reads them. Use it as a context manager.

    Args:
        total: units of work (steps, images).
        title: what is being done.
        enabled: False on all processes but the main one.
        start: units that were done before (after a resume).
    """

    def __init__(self, total: int, title: str, *, enabled: bool = True, start: int = 0):
        self.total = total
        self.title = title
        self.done = self.start = start
        self.started = self.shown = self.noted = time.monotonic()
        self.bar = None
        self.style = _style() if enabled else "none"

    def __enter__(self):
        if self.style == "bar":
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[text]}"),
            )
            self.task = self.bar.add_task(self.title, total=self.total, completed=self.start, text="")
            self.bar.start()
        elif self.style == "json":
            self._print_json("")
        return self

    def __exit__(self, *error):
        if self.bar is not None:
            self.bar.stop()

    def update(self, done: int, text: str = "") -> None:
        """Say that `done` of `total` units are finished; `text` holds the newest numbers."""
        self.done = done
        now, last = time.monotonic(), done >= self.total
        if self.style in ("bar", "json") and (last or now - self.noted >= _PLAIN_SECONDS):
            self.noted = now
            note(self._line(text, now))
        if self.style == "bar":
            assert self.bar is not None
            self.bar.update(self.task, completed=done, text=text)
            return
        if self.style == "json" and (last or now - self.shown >= _JSON_SECONDS):
            self.shown = now
            self._print_json(text)
        elif self.style == "plain" and (last or now - self.shown >= _PLAIN_SECONDS):
            self.shown = now
            print(self._line(text, now), flush=True)

    def _line(self, text, now):
        return f"{self.title} {self.done}/{self.total}  {text}  {self._time_left(now)} left"

    def _print_json(self, text):
        line = json.dumps({"title": self.title, "done": self.done, "total": self.total, "text": text})
        with unheard():
            print(line, flush=True)

    def _time_left(self, now):
        done_here = max(1, self.done - self.start)
        return readable_seconds((now - self.started) / done_here * (self.total - self.done))


def readable_seconds(seconds: float) -> str:
    """12 s, 3 min 05 s, 2 h 07 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def _style():
    if os.environ.get("SEITPP_PROGRESS") == "json":
        return "json"
    return "bar" if sys.stdout.isatty() else "plain"
