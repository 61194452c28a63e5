"""Locks: a living process keeps others away, a killed one does not, and a file system without them is told of once."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

import tiny
from seitpp.runtime import locks
from seitpp.runtime.errors import UserError
from seitpp.runtime.files import HOST, remove_unfinished, replacing
from seitpp.runtime.locks import lock_folder

WRITE = """
import sys
from seitpp.runtime.files import replacing
with replacing(sys.argv[1]) as temporary:
    temporary.mkdir()
    (temporary / "half").write_text("half")
    print(temporary, flush=True)
    input()
"""


@contextmanager
def writer(path):
    """Another process in the middle of writing a folder; yields it and what it writes."""
    words = [sys.executable, "-c", WRITE, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tiny.ROOT) as process:
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write(path, name="new"):
    with replacing(path) as temporary:
        temporary.mkdir()
        (temporary / name).write_text("")


def test_what_a_killed_process_left_is_removed_by_the_next_that_writes_the_same(tmp_path):
    with writer(tmp_path / "store") as (process, left):
        process.send_signal(signal.SIGKILL)
        process.wait()
    others = [".store.77.tmp", ".seitpp-other.here.77.tmp", ".seitpp-store.elsewhere.77.tmp", "store.tmp"]
    for name in others:
        (tmp_path / name).mkdir()
    assert names(tmp_path) == sorted([*others, ".seitpp-store.lock", Path(left).name])
    write(tmp_path / "store")
    assert names(tmp_path) == sorted([*others, "store"])  # another machine's may be alive: not all share their locks
    os.utime(tmp_path / ".seitpp-store.elsewhere.77.tmp", (0, 0))
    write(tmp_path / "store")
    assert names(tmp_path) == sorted([*others[:2], "store.tmp", "store"])


def test_what_a_living_process_writes_is_never_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.0)
    with writer(tmp_path / "store") as (process, temporary):
        with pytest.raises(UserError, match="store is being written by another process: wait for it, or end it"):
            write(tmp_path / "store")
        remove_unfinished(tmp_path)
        assert Path(temporary, "half").is_file()
        process.communicate("\n")
    assert names(tmp_path) == ["store"]
    assert names(tmp_path / "store") == ["half"]


def test_a_process_may_lock_a_folder_twice_and_keeps_it_until_both_are_given_up(tmp_path):
    first, second = lock_folder(tmp_path), lock_folder(tmp_path)
    first.release()
    ask = "import sys; from seitpp.runtime.locks import lock_folder; lock_folder(sys.argv[1], patience=0.0)"
    assert "is being written by another process" in tiny.run("-c", ask, tmp_path).stderr
    second.release()
    assert tiny.run("-c", ask, tmp_path).returncode == 0


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_is_told_of_once_and_written_to(tmp_path, monkeypatch, capsys, code):
    def refuse(*words):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    monkeypatch.setattr(locks, "_told", False)
    (tmp_path / ".seitpp-store.elsewhere.77.tmp").mkdir()  # it may be written this moment: nobody knows
    write(tmp_path / "store")
    assert not lock_folder(tmp_path / "store").locked
    assert names(tmp_path) == [".seitpp-store.elsewhere.77.tmp", "store"]
    assert "has no locks" in tiny.one_line(capsys.readouterr().err)


def test_what_is_written_within_another_writing_needs_no_name_of_its_own(tmp_path):
    with replacing(tmp_path / "model") as outer:
        write(outer)
        assert names(tmp_path) == sorted([outer.name, ".seitpp-model.lock"])
    assert names(tmp_path / "model") == ["new"]


# Links and folders that are replaced


def test_a_link_is_followed_and_stays(tmp_path):
    (tmp_path / "disk").mkdir()
    for name in ("there", "missing"):
        (tmp_path / name).symlink_to(tmp_path / "disk" / name)
    (tmp_path / "disk" / "there").mkdir()
    for name in ("there", "missing"):
        write(tmp_path / name)
        assert (tmp_path / name).is_symlink()
        assert names(tmp_path / "disk" / name) == ["new"]
    assert names(tmp_path) == ["disk", "missing", "there"]
    with replacing(tmp_path / "file") as temporary:
        temporary.write_text("first")
    (tmp_path / "link").symlink_to("file")
    with replacing(tmp_path / "link") as temporary:
        temporary.write_text("second")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "second"


def test_a_folder_is_not_replaced_by_one_that_lacks_a_file_of_it(tmp_path):
    write(tmp_path / "weights")
    write(tmp_path / "weights")
    (tmp_path / "weights" / ".DS_Store").write_text("")
    write(tmp_path / "weights")
    (tmp_path / "weights" / "yolo.pt").write_text("mine")
    with pytest.raises(UserError, match=r"weights holds yolo.pt, which would be lost: move it elsewhere"):
        write(tmp_path / "weights")
    assert names(tmp_path / "weights") == ["new", "yolo.pt"]
    assert names(tmp_path) == ["weights"]


def test_a_former_folder_whose_successor_never_came_is_put_back(tmp_path):
    (tmp_path / f".seitpp-weights.{HOST}.77.former").mkdir()
    (tmp_path / f".seitpp-weights.{HOST}.77.former" / "model").write_text("old")
    remove_unfinished(tmp_path)
    assert (tmp_path / "weights" / "model").read_text() == "old"
