"""How far many steps are: one bar, or plain lines."""

import sys
import time
from collections.abc import Iterable

from seitpp.runtime.progress import readable_seconds
from seitpp.runtime.steps.process import StepProcess

_PLAIN_SECONDS = 15.0


class StepDisplay:
    """One bar for the whole on a terminal; plain lines now and then elsewhere. Use it as a context manager."""

    def __init__(self):
        self.bar = None
        self.shown = time.monotonic()

    def __enter__(self):
        if sys.stdout.isatty():
            from rich.progress import BarColumn, Progress, TextColumn

            self.bar = Progress(
                TextColumn("{task.percentage:>3.0f} %"), BarColumn(bar_width=24), TextColumn("{task.description}")
            )
            self.task = self.bar.add_task("", total=1.0)
            self.bar.start()
        return self

    def __exit__(self, *error):
        if self.bar is not None:
            self.bar.stop()

    def say(self, text: str) -> None:
        """Print above the bar."""
        if self.bar is None:
            print(text, flush=True)
        else:
            self.bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def refresh(self, share: float, left: float, running: Iterable[StepProcess]) -> None:
        """Show how far the whole is, and the steps that run.

        Args:
            share: of the whole that is done, in [0, 1].
            left: seconds that the rest takes about.
            running: the StepProcesses.
        """
        parts = [f"{readable_seconds(left)} left"]
        for process in running:
            progress = process.progress
            counted = f" {progress['done']}/{progress['total']} {progress['text']}" if progress else ""
            parts.append(f"{process.step.name}{counted}")
        text = " │ ".join(parts)
        if self.bar is not None:
            self.bar.update(self.task, completed=share, description=text)
        elif time.monotonic() - self.shown > _PLAIN_SECONDS:
            self.shown = time.monotonic()
            print(f"{share:4.0%}  {text}", flush=True)
