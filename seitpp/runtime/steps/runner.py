"""Runs steps: side by side where they may, with one progress display, and resumable."""

import json
import os
import resource
import shlex
import signal
import time
from collections.abc import Callable
from pathlib import Path

from seitpp.runtime.errors import Interrupted, UserError
from seitpp.runtime.files import write_text
from seitpp.runtime.progress import readable_seconds
from seitpp.runtime.steps.display import StepDisplay
from seitpp.runtime.steps.process import StepProcess, log_of, peak_memory_mb
from seitpp.runtime.steps.step import Step


class StepRunner:
    """Run steps in an order that respects what each needs.

    Every step is a process of its own, with as many threads as lanes it takes; what it prints goes to
    logs/<step>.log. With one lane and a `call`, steps are function calls in this process instead. Finished steps are
    lines of commands.jsonl and are not run again.

    Args:
        steps: list of Step.
        folder: where logs/ and commands.jsonl go.
        lanes: steps of one core that run at a time.
        on_finish: called with each Step when it has finished; None: nobody asks.
        call: does in this process what a Step's command does; None: there is always a process.
    """

    def __init__(
        self, steps: list[Step], folder: str | Path, *, lanes: int, on_finish: Callable[[Step], object] | None = None,
        call: Callable[[Step], object] | None = None,
    ) -> None:  # fmt: skip
        self.steps = steps
        self.folder = Path(folder)
        self.lanes = lanes
        self.on_finish = on_finish
        self.call = call if lanes == 1 else None
        self.records = {record["stage"]: record for record in _read_lines(self.folder / "commands.jsonl")}
        self.running = {}
        self.received = []

    def run(self) -> None:
        """Run all steps.

        Raises: UserError with the failed step's own message; Interrupted after Ctrl-C or SIGTERM, once every step
            has saved its state.
        """
        if self.call is not None:
            self._run_here(self.call)
            return
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        former = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with StepDisplay() as display:
                while not self._all_finished():
                    if self.received:
                        self._stop()
                    for step in self._ready():
                        display.say(f"\n{step.name}\n  $ {shlex.join(step.command)}")
                        self.running[step.name] = StepProcess(step, self.folder, self._threads(step))
                    time.sleep(0.2)
                    display.refresh(*self.seconds_left(), self.running.values())
                    self._reap(display)
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)
            for running in self.running.values():
                running.signal(signal.SIGTERM)

    def _run_here(self, call):
        """Call one step after the other; each says itself how far it is, and saves its state where it is stopped."""
        while not self._all_finished():
            (step,) = self._ready()
            print(f"\n{step.name}\n  $ {shlex.join(step.command)}", flush=True)
            started, finished = time.monotonic(), False
            try:
                call(step)
                finished = True
            finally:
                own = peak_memory_mb(resource.getrusage(resource.RUSAGE_SELF))
                self._record(step, finished=finished, seconds=time.monotonic() - started, peak_memory_mb=own)

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
            self._record_process(running)
            if running.code != 0 and not self.received:
                raise UserError(f"{name}: {running.last_words()} (all of it: {running.log})")
            display.say(f"{name}: {readable_seconds(self.records[name]['seconds'])}")

    def _record_process(self, running):
        self._record(
            running.step, finished=running.code == 0, seconds=time.monotonic() - running.started,
            peak_memory_mb=running.peak_memory_mb,
        )  # fmt: skip

    def _record(self, step, *, finished, seconds, peak_memory_mb):
        name = step.name
        if finished and self.on_finish is not None:
            self.on_finish(step)
        former = self.records.get(name, {"seconds": 0.0, "peak_memory_mb": 0})
        self.records[name] = {
            "stage": name,
            "command": shlex.join(step.command),
            "seconds": round(former["seconds"] + seconds, 1),
            "peak_memory_mb": max(former["peak_memory_mb"], peak_memory_mb),
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
            self._record_process(running)
        self.running.clear()
        raise Interrupted(self.received[0], f"stopped; {self.folder} keeps what is done")

    def seconds_left(self) -> tuple[float, float]:
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


def _read_lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def forget_steps(folder: Path) -> None:
    """Remove the record of a folder's steps, and the logs of the steps that it names; no other file."""
    for record in _read_lines(folder / "commands.jsonl"):
        log_of(folder, str(record["stage"])).unlink(missing_ok=True)
    (folder / "commands.jsonl").unlink(missing_ok=True)
