"""Runs steps, each a command: side by side where they may, with one progress display, and resumable."""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from seitpp.runtime.errors import Interrupted, UserError
from seitpp.runtime.files import write_text
from seitpp.runtime.progress import readable_seconds

_PLAIN_SECONDS = 15.0


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command of many.

    Attributes:
        name: what the page calls it; unique.
        command: words as a user types them.
        after: names of steps that must be finished first.
        seconds: about how long it takes, for the time left.
        cores: 2 where it uses both lanes' cores, else 1.
    """

    name: str
    command: tuple
    after: tuple
    seconds: float
    cores: int = 1


class StepRunner:
    """Run steps in an order that respects what each needs.

    Every step is a process of its own, with as many threads as lanes it takes; what it prints goes to
    logs/<step>.log. Finished steps are lines of commands.jsonl and are not run again.

    Args:
        steps: list of Step.
        folder: where logs/ and commands.jsonl go.
        lanes: steps of one core that run at a time.
        on_finish: called with each Step when it has finished; None: nobody asks.
    """

    def __init__(self, steps, folder, *, lanes, on_finish=None):
        self.steps = steps
        self.folder = Path(folder)
        self.lanes = lanes
        self.on_finish = on_finish
        self.records = {record["stage"]: record for record in _read_lines(self.folder / "commands.jsonl")}
        self.running = {}
        self.received = []

    def run(self):
        """Run all steps.

        Raises: UserError with the failed step's own message; Interrupted after Ctrl-C or SIGTERM, once every step
            has saved its state.
        """
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        former = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with _Display(self) as display:
                while not self._all_finished():
                    if self.received:
                        self._stop()
                    for step in self._ready():
                        display.say(f"\n{step.name}\n  $ {shlex.join(step.command)}")
                        self.running[step.name] = _Running(step, self.folder, self._threads(step))
                    time.sleep(0.2)
                    display.refresh()
                    self._reap(display)
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)
            for running in self.running.values():
                running.signal(signal.SIGTERM)

    def _note(self, number, frame):
        if self.received:
            for running in self.running.values():
                running.signal(signal.SIGKILL)
        self.received.append(number)

    def _finished(self, name):
        return self.records.get(name, {}).get("finished", False)

    def _all_finished(self):
        return all(self._finished(step.name) for step in self.steps)

    def _threads(self, step):
        cores = os.cpu_count() or 1
        return cores if step.cores > 1 else max(1, cores // self.lanes)

    def _ready(self):
        """Steps that may start now, at most as many as there are free lanes."""
        free = self.lanes - sum(min(self.lanes, running.step.cores) for running in self.running.values())
        chosen = []
        for step in self.steps:
            wanted = min(self.lanes, step.cores)
            waits = self._finished(step.name) or step.name in self.running
            if not waits and wanted <= free and all(self._finished(name) for name in step.after):
                chosen.append(step)
                free -= wanted
        return chosen

    def _reap(self, display):
        for name, running in list(self.running.items()):
            if running.thread.is_alive():
                continue
            del self.running[name]
            self._record(running, finished=running.code == 0)
            if running.code != 0 and not self.received:
                raise UserError(f"{name}: {running.last_words()} (all of it: {running.log})")
            display.say(f"{name}: {readable_seconds(self.records[name]['seconds'])}")

    def _record(self, running, *, finished):
        name = running.step.name
        if finished and self.on_finish is not None:
            self.on_finish(running.step)
        former = self.records.get(name, {"seconds": 0.0, "peak_memory_mb": 0})
        self.records[name] = {
            "stage": name,
            "command": shlex.join(running.step.command),
            "seconds": round(former["seconds"] + time.monotonic() - running.started, 1),
            "peak_memory_mb": max(former["peak_memory_mb"], running.peak_memory_mb),
            "finished": finished,
        }
        write_text(
            self.folder / "commands.jsonl", "".join(json.dumps(record) + "\n" for record in self.records.values())
        )

    def _stop(self):
        """Ask every step to save, wait for it, and leave."""
        for running in self.running.values():
            running.signal(signal.SIGTERM)
        for running in list(self.running.values()):
            running.thread.join()
            self._record(running, finished=running.code == 0)
        self.running.clear()
        raise Interrupted(self.received[0], f"stopped; {self.folder} keeps what is done")

    def seconds_left(self):
        """(share done, seconds left), from what steps took here against what they take elsewhere."""
        done = total = took = expected = 0.0
        for step in self.steps:
            weight = step.seconds * step.cores
            total += weight
            if self._finished(step.name):
                share, spent = 1.0, self.records[step.name]["seconds"]
            elif step.name in self.running:
                running = self.running[step.name]
                spent = time.monotonic() - running.started
                share = max(running.share(), min(0.05, spent / step.seconds))
            else:
                continue
            done += weight * share
            if share > 0.2:
                took, expected = took + spent, expected + step.seconds * share
        pace = took / expected if expected > 5 else 1.0
        return done / total, (total - done) * pace / self.lanes


class _Running:
    """A step's process, and the thread that reads what it prints."""

    def __init__(self, step, folder, threads):
        self.step = step
        self.log = folder / "logs" / f"{step.name.lower().replace(' ', '-').replace(',', '')}.log"
        self.started = time.monotonic()
        self.code, self.peak_memory_mb, self.progress = None, 0, {}
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "GOMP_SPINCOUNT": "1000",  # threads that wait sleep soon: spinning beside other work cost a factor of ten
            "SEITPP_PROGRESS": "json",
            "PYTHONUNBUFFERED": "1",
        }
        # A session of its own: Ctrl-C on the terminal reaches the runner alone, which passes it on once.
        self.process = subprocess.Popen(
            _executable(step.command), env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        with self.log.open("a") as log, self.process.stdout as lines:
            for line in lines:
                if line.startswith('{"title"'):
                    self.progress = json.loads(line)
                else:
                    log.write(line)
                    log.flush()
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = self.code = os.waitstatus_to_exitcode(status)
        self.peak_memory_mb = usage.ru_maxrss // (1024 if sys.platform != "darwin" else 1024 * 1024)

    def signal(self, number):
        """Send a signal to the step and all that it started."""
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return  # it has ended

    def share(self):
        """How much of the step is done, in [0, 1]."""
        return self.progress.get("done", 0) / max(1, self.progress.get("total", 1))

    def last_words(self):
        """The line that says what went wrong."""
        lines = [line for line in self.log.read_text().splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("error: ")]
        return (errors or lines or ["it ended without a word"])[-1].removeprefix("error: ")


class _Display:
    """One bar for the whole on a terminal; plain lines now and then elsewhere."""

    def __init__(self, runner):
        self.runner = runner
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

    def say(self, text):
        """Print above the bar."""
        if self.bar is None:
            print(text, flush=True)
        else:
            self.bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def refresh(self):
        """Show how far the whole is, and the steps that run."""
        share, left = self.runner.seconds_left()
        parts = [f"{readable_seconds(left)} left"]
        for running in self.runner.running.values():
            progress = running.progress
            counted = f" {progress['done']}/{progress['total']} {progress['text']}" if progress else ""
            parts.append(f"{running.step.name}{counted}")
        text = " │ ".join(parts)
        if self.bar is not None:
            self.bar.update(self.task, completed=share, description=text)
        elif time.monotonic() - self.shown > _PLAIN_SECONDS:
            self.shown = time.monotonic()
            print(f"{share:4.0%}  {text}", flush=True)


def _executable(command):
    """The same command by this interpreter, wherever its scripts lie."""
    program, *rest = command
    if program == "seitpp":
        return [sys.executable, "-m", "seitpp.cli", *rest]
    if program == "accelerate":
        return [sys.executable, "-m", "accelerate.commands.accelerate_cli", *rest]
    return list(command)


def _read_lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
