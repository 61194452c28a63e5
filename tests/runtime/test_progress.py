"""Progress of a stage: what is shown on a terminal, in a log and to a program that watches."""

import json
import os
import pty
import subprocess
import sys
from types import SimpleNamespace

import pytest

import tiny
from seitpp.runtime import progress
from seitpp.runtime.progress import Progress, readable_seconds

ROOT = tiny.ROOT


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets: `clock.now` seconds."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_a_log_gets_a_line_every_ten_seconds_and_one_at_the_end(clock, capsys):
    with Progress(40, "MTM", start=10) as shown:
        for now, done, text in ((104, 15, "loss 3"), (112, 20, "loss 2"), (113, 22, "loss 2"), (121, 40, "loss 1")):
            clock.now = now
            shown.update(done, text)
    # 10 of the 40 were done before: after 12 s another 10, so the 20 that are left take 24 s
    assert capsys.readouterr().out == "MTM 20/40  loss 2  24 s left\nMTM 40/40  loss 1  0 s left\n"


def test_a_program_that_watches_gets_json_twice_a_second(clock, capsys, monkeypatch):
    monkeypatch.setenv("SEITPP_PROGRESS", "json")
    with Progress(40, "MTM", start=10) as shown:
        for now, done in ((100.4, 15), (100.6, 20), (100.7, 40)):
            clock.now = now
            shown.update(done, f"at {done}")
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(each["done"], each["text"]) for each in said] == [(10, ""), (20, "at 20"), (40, "at 40")]
    assert {(each["title"], each["total"]) for each in said} == {("MTM", 40)}


@pytest.mark.parametrize("style", ["", "json"])
def test_other_processes_show_nothing(clock, capsys, monkeypatch, style):
    monkeypatch.setenv("SEITPP_PROGRESS", style)
    with Progress(2, "MTM", enabled=False) as shown:
        shown.update(2, "loss 1")
    assert capsys.readouterr().out == ""


def on_a_terminal(code):
    """What a Python program writes to a terminal that is its standard output."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "SEITPP_PROGRESS": ""}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=theirs, stderr=subprocess.PIPE, cwd=ROOT, env=environment, text=True
    ) as process:
        os.close(theirs)
        written = b""
        try:
            while part := os.read(ours, 4096):
                written += part
        except OSError:  # how Linux says that the other side is closed
            pass
        assert process.wait(60) == 0, process.stderr.read()
    os.close(ours)
    return written.decode()


def test_a_terminal_gets_a_bar_with_the_newest_numbers():
    written = on_a_terminal(
        "from seitpp.runtime.progress import Progress\n"
        "with Progress(40, 'MTM', start=10) as shown:\n"
        "    shown.update(20, 'loss 2.5')\n"
        "    shown.update(40, 'loss 1.5')\n"
    )
    for part in ("MTM", "\u2501", "40/40", "loss 1.5"):
        assert part in written


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (59.4, "59 s"), (185, "3 min 05 s"), (3599.6, "1 h 00 min"), (7630, "2 h 07 min")],
)
def test_seconds_are_readable(seconds, said):
    assert readable_seconds(seconds) == said
