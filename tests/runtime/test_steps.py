"""Steps are run to the end of all, however often their runner is stopped."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from seitpp.runtime.errors import UserError
from seitpp.runtime.steps.runner import StepRunner
from seitpp.runtime.steps.step import Step


def python(code, *words):
    return (sys.executable, "-c", code, *map(str, words))


def note(path, text):
    """A command that appends a line to a file."""
    return python("import sys; open(sys.argv[1], 'a').write(sys.argv[2] + '\\n')", path, text)


def step(name, command, *after, cores=1):
    return Step(name=name, command=command, after=after, seconds=1.0, cores=cores)


def records(folder):
    return [json.loads(line) for line in (folder / "commands.jsonl").read_text().splitlines()]


def test_steps_run_after_those_they_need(tmp_path):
    file = tmp_path / "order.txt"
    steps = [
        step("last", note(file, "last"), "middle", "first"),
        step("middle", note(file, "middle"), "first"),
        step("first", note(file, "first")),
    ]
    StepRunner(steps, tmp_path, lanes=2).run()
    assert file.read_text().split() == ["first", "middle", "last"]
    assert [record["finished"] for record in records(tmp_path)] == [True, True, True]


def test_finished_steps_are_not_run_again(tmp_path):
    file = tmp_path / "runs.txt"
    for _ in range(2):
        StepRunner([step("once", note(file, "ran"))], tmp_path, lanes=1).run()
    assert file.read_text() == "ran\n"


def test_who_asks_hears_of_each_step_that_finishes_and_of_no_other(tmp_path):
    fails = python("import sys; sys.exit(1)")
    steps = [step("first", python("")), step("second", python(""), "first"), step("third", fails, "second")]
    heard = []
    with pytest.raises(UserError, match="third"):
        StepRunner(steps, tmp_path, lanes=2, on_finish=heard.append).run()
    assert heard == steps[:2]


def test_two_steps_share_the_lanes_and_a_wide_one_waits_for_both(tmp_path):
    file = tmp_path / "order.txt"
    both = "import sys, time; f = open(sys.argv[1], 'a'); f.write('in '); f.flush(); time.sleep(1); f.write('out ')"
    steps = [
        step("one", python(both, file)),
        step("two", python(both, file)),
        step("wide", note(file, "wide"), cores=2),
    ]
    StepRunner(steps, tmp_path, lanes=2).run()
    assert file.read_text().split() == ["in", "in", "out", "out", "wide"]


def test_a_step_gets_the_threads_of_its_lanes(tmp_path):
    write = "import os, sys; open(sys.argv[1], 'w').write(os.environ['OMP_NUM_THREADS'])"
    steps = [step("narrow", python(write, tmp_path / "n")), step("wide", python(write, tmp_path / "w"), cores=2)]
    StepRunner(steps, tmp_path, lanes=2).run()
    cores = os.cpu_count() or 1
    assert (tmp_path / "n").read_text() == str(max(1, cores // 2))
    assert (tmp_path / "w").read_text() == str(cores)


def test_a_step_that_fails_is_quoted_and_what_was_done_is_kept(tmp_path):
    fails = python("import sys; print('error: no such thing'); sys.exit(1)")
    steps = [step("good", note(tmp_path / "good.txt", "ran")), step("bad", fails, "good"), step("never", fails, "bad")]
    with pytest.raises(UserError, match=r"bad: no such thing \(all of it: .*bad\.log\)"):
        StepRunner(steps, tmp_path, lanes=1).run()
    assert {record["stage"]: record["finished"] for record in records(tmp_path)} == {"good": True, "bad": False}


RUNNER = """
import sys, pathlib
from seitpp.runtime.steps.runner import StepRunner
from seitpp.runtime.steps.step import Step
from seitpp.runtime.errors import Interrupted
folder = pathlib.Path(sys.argv[1])
work = '''
import pathlib, signal, sys, time
folder, stop = pathlib.Path(sys.argv[1]), []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
done = folder / "done.txt"
for index in range(int(done.read_text()) if done.exists() else 0, 20):
    if stop:
        sys.exit(143)
    with (folder / "log.txt").open("a") as log:
        log.write(f"{index} ")
    done.write_text(str(index + 1))
    print('{"title": "work", "done": %d, "total": 20, "text": ""}' % (index + 1), flush=True)
    time.sleep(0.1)
'''
steps = [Step(name="work", command=(sys.executable, "-c", work, str(folder)), after=(), seconds=2.0)]
try:
    StepRunner(steps, folder, lanes=1).run()
except Interrupted as interruption:
    print(interruption)
    sys.exit(130)
"""


def start_runner(folder):
    runner = subprocess.Popen([sys.executable, "-c", RUNNER, str(folder)], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (folder / "log.txt").exists() or len((folder / "log.txt").read_text().split()) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return runner


def test_ctrl_c_lets_the_steps_save_and_the_same_command_goes_on(tmp_path):
    runner = start_runner(tmp_path)
    runner.send_signal(signal.SIGINT)
    assert "keeps what is done" in runner.communicate(timeout=60)[0]
    assert runner.returncode == 130
    assert records(tmp_path)[0]["finished"] is False
    again = subprocess.run([sys.executable, "-c", RUNNER, str(tmp_path)], check=True, timeout=60)
    assert again.returncode == 0
    assert (tmp_path / "log.txt").read_text().split() == [str(index) for index in range(20)]
    assert records(tmp_path)[0]["finished"] is True


def test_steps_of_a_killed_runner_end_by_themselves(tmp_path):
    runner = start_runner(tmp_path)
    runner.kill()
    runner.communicate(timeout=60)
    time.sleep(1.0)
    after = (tmp_path / "log.txt").read_text()
    time.sleep(0.5)
    assert (tmp_path / "log.txt").read_text() == after
    assert len(after.split()) < 20
