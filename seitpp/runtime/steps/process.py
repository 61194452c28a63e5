"""A step that runs: its process, its log, how far it is, what it took."""

import json
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

from seitpp.runtime.steps.step import Step


def log_of(folder: Path, name: str) -> Path:
    """Where a step of a name logs."""
    return folder / "logs" / f"{name.lower().replace(' ', '-').replace(',', '')}.log"


class StepProcess:
    """A step's process, and the thread that reads what it prints.

    Args:
        step: the Step.
        folder: its output goes to logs/ in it.
        threads: as many as it may use.
    """

    def __init__(self, step: Step, folder: Path, threads: int):
        self.step = step
        self.log = log_of(folder, step.name)
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
        assert self.process.stdout is not None  # it is a pipe
        with self.log.open("a") as log, self.process.stdout as lines:
            for line in lines:
                if line.startswith('{"title"'):
                    self.progress = json.loads(line)
                else:
                    log.write(line)
                    log.flush()
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = self.code = os.waitstatus_to_exitcode(status)
        self.peak_memory_mb = peak_memory_mb(usage)

    def signal(self, number: int) -> None:
        """Send a signal to the step and all that it started."""
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return  # it has ended

    def share(self) -> float:
        """How much of the step is done, in [0, 1]."""
        return self.progress.get("done", 0) / max(1, self.progress.get("total", 1))

    def last_words(self) -> str:
        """The line that says what went wrong."""
        lines = [line for line in self.log.read_text().splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("error: ")]
        return (errors or lines or ["it ended without a word"])[-1].removeprefix("error: ")


def peak_memory_mb(usage: resource.struct_rusage) -> int:
    """Most memory that a process has held, in MB."""
    return usage.ru_maxrss // (1024 if sys.platform != "darwin" else 1024 * 1024)


def _executable(command):
    """The same command by this interpreter, wherever its scripts lie."""
    program, *rest = command
    if program == "seitpp":
        return [sys.executable, "-m", "seitpp.cli", *rest]
    if program == "accelerate":
        return [sys.executable, "-m", "accelerate.commands.accelerate_cli", *rest]
    return list(command)
