"""run.log: what a command said, in the folder of its run."""

import io
import re
import sys
from dataclasses import dataclass

import pytest

from seitpp.runtime import run_log
from seitpp.runtime.command import run_command
from seitpp.runtime.config import StageConfig
from seitpp.runtime.progress import Progress
from seitpp.runtime.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Config(StageConfig):
    """Say something."""


def lines(folder):
    """A log's lines without their times, each of which is checked."""
    said = []
    for line in (folder / "run.log").read_text().splitlines():
        time, text = line[:25], line[27:]
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d", time)
        said.append(text)
    return said


def run(stage, folder, *flags):
    with pytest.raises(SystemExit) as stopped:
        run_command(stage, Config, recipes="pretrain", argv=["--output_dir", str(folder), *flags])
    return stopped.value.code


def test_a_log_has_the_command_and_all_that_was_said_before_the_run_began_and_after_it_ended(tmp_path, capsys):
    def stage(config):
        print("looking at images")
        run = RunFolder(config, stage="talk")
        run.begin()
        print("\x1b[1;32mgreen\x1b[0m words", end="")
        print(", and more")
        print("a warning", file=sys.stderr)
        run.finish({"accuracy": 0.5})
        print("done")

    assert run(stage, tmp_path / "run") == 0
    command, *rest = lines(tmp_path / "run")
    assert command.startswith("$ ")
    assert command.endswith(f" --output_dir {tmp_path / 'run'}")
    assert rest == ["looking at images", "green words, and more", "a warning", "done"]
    assert capsys.readouterr().out == "looking at images\n\x1b[1;32mgreen\x1b[0m words, and more\ndone\n"
    assert isinstance(sys.stdout, io.TextIOBase)
    assert not isinstance(sys.stdout, run_log._Listener)


def test_a_run_that_goes_on_appends_and_one_that_starts_afresh_does_not(tmp_path):
    def stage(config):
        run = RunFolder(config, stage="talk")
        run.log({"step": 0})
        raise KeyboardInterrupt

    for _ in range(2):
        assert run(stage, tmp_path / "run") == 130
    said = lines(tmp_path / "run")
    assert [text[:2] for text in said] == ["$ ", "st", "$ ", "st"]
    assert said[1] == "stopped. To resume, rerun the same command"
    assert run(stage, tmp_path / "run", "--resume", "none") == 130
    assert len(lines(tmp_path / "run")) == 2


def test_what_is_refused_before_the_run_begins_leaves_no_log(tmp_path):
    def stage(config):
        RunFolder(config, stage="talk")
        raise ValueError("no")

    assert run(stage, tmp_path / "run") == 1
    assert not (tmp_path / "run").exists()


def test_the_parts_of_a_run_have_logs_of_their_own_and_are_in_the_whole_ones(tmp_path):
    def stage(config):
        whole = RunFolder(config, stage="whole")
        for seed in range(2):
            each = Config(output_dir=str(tmp_path / "run" / f"seed-{seed}"))
            part = RunFolder(each, stage="part", within=whole)
            part.begin()
            print(f"seed {seed}")
            part.finish({})
        print("mean")
        whole.finish({})
        print("done")

    assert run(stage, tmp_path / "run") == 0
    assert lines(tmp_path / "run")[1:] == ["seed 0", "seed 1", "mean", "done"]
    assert lines(tmp_path / "run" / "seed-0") == ["seed 0"]
    assert lines(tmp_path / "run" / "seed-1") == ["seed 1"]


def test_other_processes_than_the_main_one_keep_nothing(tmp_path, monkeypatch):
    def stage(config):
        run = RunFolder(config, stage="talk")
        run.begin()
        print("heard")

    monkeypatch.setenv("RANK", "1")
    assert run(stage, tmp_path / "run") == 0
    assert not (tmp_path / "run" / "run.log").exists()


@pytest.mark.parametrize("style", ["plain", "json", "bar"])
def test_progress_is_a_line_now_and_then_and_no_bar(tmp_path, monkeypatch, style):
    def stage(config):
        run = RunFolder(config, stage="talk")
        run.begin()
        with Progress(3, "train") as progress:
            progress.style = style
            if style == "bar":
                progress.__enter__()
            for done in (1, 2, 3):
                progress.update(done, "loss 0.5")
        print("end")

    monkeypatch.delenv("SEITPP_PROGRESS", raising=False)
    assert run(stage, tmp_path / "run") == 0
    said = lines(tmp_path / "run")[1:]
    assert [text for text in said if text.startswith("train")] == ["train 3/3  loss 0.5  0 s left"] or style == "bar"
    assert "train 3/3  loss 0.5  0 s left" in said
    assert said[-1] == "end"
    assert not any("\x1b" in text or "{" in text for text in said)
